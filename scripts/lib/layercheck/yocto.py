# SPDX-License-Identifier: MIT
"""openembedded-core's yocto-check-layer on our layer, with every test that it has."""

import os
import re
import time

from composeapps import durable
from layercheck import process
from layercheck.errors import CheckError
from layercheck.kasrun import unprivileged
from layercheck.results import Result, Status

# As a user's build is that knows docker and systemd but nothing of this layer: DISTRO_FEATURES lacks "composeapps",
# so the test of signatures shows that adding the layer changes no task.
_LOCAL_CONF = """\
MACHINE = "qemux86-64"
DISTRO = "nodistro"
CONF_VERSION = "2"
DISTRO_FEATURES:append = " virtualization seccomp ipv6"
INIT_MANAGER = "systemd"
PACKAGE_CLASSES = "package_ipk"
BB_NO_NETWORK = "1"
CONNECTIVITY_CHECK_URIS = ""
"""

# Sets the build environment up and runs what follows the two directories.
_SHELL = """\
core=$1 build=$3
export BITBAKEDIR=$2
shift 3
. "$core/oe-init-build-env" "$build" >/dev/null && exec "$@"
"""

_TEST = re.compile(r"RESULTS - [\w.]*?\.?(test_\w+): (PASSED|FAILED|ERROR|SKIPPED|UNKNOWN|EXPECTEDFAIL)")
_RESULT = re.compile(r"^(?:INFO: )?\s*(\S+) \.\.\. (PASS|FAIL.*|SKIPPED.*)$")


def run(context, combination):
    """Run yocto-check-layer with the layers of ``combination``; returns one Result with the outcome of each test."""
    started = time.monotonic()
    subject = context.layer.name
    log = context.directory / "log" / "yocto-check-layer.log"
    try:
        with context.progress.step("checking out for yocto-check-layer"):
            context.kas.checkout(combination, log.with_name("checkout-yocto.log"))
    except CheckError as err:
        return Result("yocto", subject, Status.UNREACHED, "the layers cannot be checked out",
                      time.monotonic() - started, problems=[str(err)])
    build = context.directory / "build" / "yocto-check-layer"
    core = context.kas.layers / "openembedded-core"
    durable.make_directories(build / "conf")
    durable.write_file(build / "conf" / "local.conf", _LOCAL_CONF.encode())
    durable.write_file(build / "conf" / "bblayers.conf", (
        f'POKY_BBLAYERS_CONF_VERSION = "2"\nBBPATH = "${{TOPDIR}}"\nBBFILES ?= ""\nBBLAYERS = "{core / "meta"}"\n'
    ).encode())
    report = build / "report.log"
    report.unlink(missing_ok=True)
    dependencies = sorted(str(path) for path in context.kas.layers.iterdir()
                          if path.name in _repositories(context, combination) - {"openembedded-core", "bitbake"})
    argv = ["bash", "-c", _SHELL, "bash", str(core), str(context.kas.layers / "bitbake"), str(build),
            "yocto-check-layer", "--no-auto-dependency", "--output-log", str(report), str(context.layer),
            "--dependency", *dependencies]
    at = ["starting"]

    def on_line(line):
        at[0] = line.removeprefix("INFO: ").strip() or at[0]

    with context.progress.step("yocto-check-layer"):
        status = process.run(unprivileged(argv), log, _environment(context), context.top, on_line,
                             lambda: context.progress.detail(at[0]))
    text = report.read_text(errors="replace") if report.exists() else ""
    result = judge(text, status, subject)
    result.seconds, result.log = time.monotonic() - started, str(log)
    if result.status != Status.PASSED and not result.problems:
        result.problems = [process.last_lines(log)]
    return result


def _repositories(context, combination):
    return {name for name, entry in context.kas.dump(combination)["repos"].items() if entry and entry.get("url")}


def _environment(context):
    kept = ("HOME", "TERM", "TMPDIR", "http_proxy", "https_proxy", "no_proxy")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8",
        # No byte code in the layer, which BitBake hashes.
        "PYTHONPYCACHEPREFIX": str(context.directory / "pycache"),
    }


def judge(report, status, subject):
    """Return the Result that the text of yocto-check-layer's report means."""
    tests = dict(_TEST.findall(report))
    failed = sorted(name for name, outcome in tests.items() if outcome in ("FAILED", "ERROR", "UNKNOWN"))
    skipped = sorted(name for name, outcome in tests.items() if outcome == "SKIPPED")
    layers = [match for match in map(_RESULT.match, report.splitlines()) if match]
    passed = not status and tests and not failed and layers and all(match[2] == "PASS" for match in layers)
    summary = f"{len(tests)} tests, {len(failed)} failed, {len(skipped)} skipped"
    problems = [f"{name} failed" for name in failed]
    problems += [f"{match[1]}: {match[2]}" for match in layers if match[2] != "PASS" and not failed]
    return Result("yocto", subject, Status.PASSED if passed else Status.FAILED, summary, counts=tests,
                  problems=problems)
