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

_TEST = re.compile(r"INFO: (test_\w+) \(")
_OUTCOME = re.compile(r"INFO:  \.\.\. (ok|FAIL|ERROR|skipped|expected failure)")
_LAYER = re.compile(r"INFO: (\S+) \.\.\. (PASS|FAIL.*|SKIPPED.*)")
# What says why a test failed, among the traceback and BitBake's whole output.
_TELLING = re.compile(r"\w*Error: |ERROR: |\d+ signatures changed|   \S+:do_\w+: \w+ -> \w+$")
_TELLING_SHOWN = 8
# Without these it was not the check that it claims to be.
_EXPECTED = {"test_parse", "test_readme", "test_security", "test_signatures", "test_world", "test_world_inherit_class"}


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
    dependencies = sorted(str(path) for path in context.kas.layers.iterdir()
                          if path.name in _repositories(context, combination) - {"openembedded-core", "bitbake"})
    argv = ["bash", "-c", _SHELL, "bash", str(core), str(context.kas.layers / "bitbake"), str(build),
            "yocto-check-layer", "--no-auto-dependency", str(context.layer), "--dependency", *dependencies]
    at = ["starting"]

    def on_line(line):
        at[0] = line.removeprefix("INFO: ").strip() or at[0]

    with context.progress.step("yocto-check-layer"):
        status = process.run(unprivileged(argv), log, _environment(context), context.top, on_line,
                             lambda: context.progress.detail(at[0]))
    result = judge(log.read_text(errors="replace"), status, subject)
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
        # As for kas: no byte code in the layer, which BitBake hashes, and one order of sets, so that the five runs of
        # BitBake share a cache where they can. Its server starts with what it was told to let through.
        "PYTHONPYCACHEPREFIX": str(context.directory / "pycache"),
        "PYTHONHASHSEED": "0",
        "BB_ENV_PASSTHROUGH_ADDITIONS": "PYTHONPYCACHEPREFIX PYTHONHASHSEED",
    }


def judge(output, status, subject):
    """Return the Result that the output of yocto-check-layer means.

    Arguments:
        status: its exit status.
        subject: the name of the layer.
    """
    tests, reasons, name, verdict = {}, {}, None, None
    for line in output.splitlines():
        begun, ended, layer = _TEST.match(line), _OUTCOME.match(line), _LAYER.match(line)
        if line.startswith(("INFO: =====", "INFO: setUpClass")):
            # Groups of tests that do not apply are skipped whole; what failed is told a second time at the end.
            name = None
        elif begun:
            name = begun[1]
        elif ended and name:
            tests[name] = ended[1]
        elif layer and layer[1] == subject:
            verdict = layer[2]
        elif name and tests.get(name) in ("FAIL", "ERROR") and _TELLING.match(line):
            reasons.setdefault(name, []).append(line)
    failed = [test for test, outcome in tests.items() if outcome in ("FAIL", "ERROR")]
    problems = ["\n  ".join([f"{test} failed:", *reasons.get(test, [])[:_TELLING_SHOWN]]) for test in failed]
    if not failed and verdict != "PASS":
        problems.append(f"yocto-check-layer says: {verdict}" if verdict else "yocto-check-layer broke off")
    missing = sorted(_EXPECTED - set(tests))
    passed = not status and verdict == "PASS" and not failed and not missing
    if not problems and missing:
        problems.append(f"it did not run {', '.join(missing)}")
    return Result("yocto", subject, Status.PASSED if passed else Status.FAILED,
                  f"{len(tests)} tests, {len(failed)} failed", counts=tests, problems=problems)
