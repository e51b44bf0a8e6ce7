# SPDX-License-Identifier: MIT
"""Have the real BitBake fetch, unpack and patch the recipe that the layer adds patches to."""

import re
import shlex
import shutil
import time

from composeapps import durable
from layercheck.bitbakelog import Reader
from layercheck.errors import CheckError
from layercheck.process import last_lines
from layercheck.results import Result, Status
from moby import series

CHECK = "patch"
RECIPE = "docker-moby"

# The source comes from where the recipe says. This machine's patch does what quilt-native would, which would have to be
# compiled first; what it says of a hunk that fits only nearly is the same. Nor is moby's history of interest.
_SETTINGS = """\
BB_NO_NETWORK = "0"
BB_GIT_SHALLOW = "1"
PATCHTOOL = "patch"
INHERIT_DISTRO:remove = "uninative"
INHERIT:remove = "rm_work"
# BitBake has one recipe to read, and what is appended to it.
BBMASK = "/(?!docker-moby_)[^/]*$"
INHERIT += "composeapps-check-patch"
"""
# What the recipe is built from or runs with is masked, and not wanted up to do_patch.
_CLASS = """\
python composeapps_check_patch () {
    for name in ("DEPENDS", *(f"{kind}:{package}" for kind in ("RDEPENDS", "RRECOMMENDS")
                              for package in (d.getVar("PACKAGES") or "").split())):
        d.setVar(name, "")
    # Where BitBake keeps the [depends] flags of all tasks, later ones than do_patch among them.
    tasks = d.getVar("_task_deps", False)
    for flag in ("depends", "rdepends"):
        tasks[flag] = {}
    d.setVar("_task_deps", tasks)
}
addhandler composeapps_check_patch
composeapps_check_patch[eventmask] = "bb.event.RecipeParsed"
"""
_APPLYING = re.compile(r"Applying patch '([^']+)'")
_UNFETCHED = re.compile(r"FetchError\('Unable to fetch URL from any source\.', '([^;']+)")
# As insane.bbclass looks for it.
_FUZZ = "--- Patch fuzz start ---"


def run(context, combination):
    """Patch RECIPE in the layers of ``combination``; returns one Result. The repositories must be reachable."""
    started, subject = time.monotonic(), context.layer.name
    log = context.directory / "log" / "patch.log"
    try:
        with context.progress.step("checking out for the patches"):
            context.kas.checkout(combination, log.with_name("checkout-patch.log"))
    except CheckError as err:
        return Result(CHECK, subject, Status.UNREACHED, "the layers cannot be checked out",
                      time.monotonic() - started, problems=[str(err)])
    build = context.kas.build_directory(combination)
    # BitBake does nothing where it patched before.
    for path in [*build.glob(f"tmp*/work/*/{RECIPE}"), *build.glob(f"tmp*/stamps/*/{RECIPE}")]:
        shutil.rmtree(path, ignore_errors=True)
    settings = build / "check-patch.conf"
    durable.make_directories(build / "classes")
    durable.write_file(settings, _SETTINGS.encode())
    durable.write_file(build / "classes" / "composeapps-check-patch.bbclass", _CLASS.encode())
    reader = Reader()
    with context.progress.step(f"fetching and patching {RECIPE}"):
        status = context.kas.shell(
            combination, shlex.join(["bitbake", "--postread", str(settings), "--cmd", "patch", RECIPE]),
            log, on_line=reader.line, on_tick=lambda: context.progress.detail(reader.reading.at))
    logs = sorted(build.glob(f"tmp*/work/*/{RECIPE}/*/temp/log.do_patch"))
    said = logs[-1].read_text(errors="replace") if logs else ""
    result = judge(reader.end(), said, status, subject)
    result.seconds, result.log = time.monotonic() - started, str(log)
    if result.status != Status.PASSED and not result.problems:
        result.problems = [last_lines(log)]
    return result


def judge(reading, said, status, subject):
    """Return the Result of patching: passed when each patch of the layer was applied just as it is.

    Arguments:
        reading: a bitbakelog.Reading of the run.
        said: the log of do_patch, "" when it was not reached.
        status: BitBake's exit status.
        subject: the name of the layer.
    """
    applied = _APPLYING.findall(said)
    wanted = series.names()
    errors = reading.select(("ERROR", "FATAL"), True) + reading.select(("ERROR", "FATAL"), False)
    counts = {"patches": len(wanted), "applied": len([name for name in wanted if name in applied])}
    if not said and any("do_fetch" in text or "Fetcher failure" in text for text in errors):
        urls = dict.fromkeys(found for text in errors for found in _UNFETCHED.findall(text))
        return Result(CHECK, subject, Status.UNREACHED, f"the source of {RECIPE} cannot be fetched", counts=counts,
                      problems=[f"not reached: {url}" for url in urls] or [errors[0].splitlines()[0]])
    problems = errors[:4]
    problems += [f"{name} was not applied" for name in wanted if name not in applied] if not errors else []
    # What a patch says stands before the line of the next one.
    parts = re.split(_APPLYING, said)
    fuzzy = [name for name, text in zip(parts[1::2], parts[2::2], strict=True) if _FUZZ in text and name in wanted]
    problems += [f"{name} fits only with fuzz" for name in fuzzy]
    passed = not status and not problems
    return Result(CHECK, subject, Status.PASSED if passed else Status.FAILED,
                  f"{counts['applied']} of {len(wanted)} patches applied to {RECIPE}", counts=counts, problems=problems)
