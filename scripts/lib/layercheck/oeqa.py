# SPDX-License-Identifier: MIT
"""The layer's oeqa cases, run by openembedded-core's own oeqa on an image in QEMU.

The image is the fast lane's: Debian's kernel and user land with the layer's recipes. So this proves the
cases, the agent and the image's configuration, not an image that openembedded-core built.
"""

import json
import logging
import time
from pathlib import Path

from composeapps import durable
from composeapps.errors import ComposeAppsError
from emulator import image as images
from emulator.apps import wait_for_apps
from emulator.errors import EmulatorError
from emulator.machine import Machine
from layercheck.errors import CheckError
from layercheck.results import Result, Status
from oeqatarget import SerialTarget, run_cases

CHECK = "oeqa"


def run(context, combination):
    """Run the cases on the composeapps-image built last; returns one Result. The repositories must be reachable."""
    started, subject = time.monotonic(), context.layer.name
    log = context.directory / "log" / "oeqa.log"
    durable.make_directories(log.parent)
    try:
        with context.progress.step("checking out for oeqa"):
            context.kas.checkout(combination, log.with_name("checkout-oeqa.log"))
        image = images.latest("composeapps-image")
    except (CheckError, EmulatorError) as err:
        return Result(CHECK, subject, Status.UNREACHED, "the layers or an image are missing",
                      time.monotonic() - started, problems=[str(err)])
    try:
        with context.progress.step(f"running the oeqa cases in {image.stem}"):
            outcomes = _outcomes(context, image, log)
    except ComposeAppsError as err:
        return Result(CHECK, subject, Status.FAILED, "the cases could not be run", time.monotonic() - started,
                      problems=[str(err)], log=str(log))
    result = judge(outcomes, subject)
    result.seconds, result.log = time.monotonic() - started, str(log)
    return result


def judge(outcomes, subject):
    """Return the Result of what became of the cases, oeqatarget.Results; one that was skipped did not pass."""
    counts = {kind: sum(each.outcome == kind for each in outcomes) for kind in ("passed", "failed", "skipped")}
    passed = bool(outcomes) and counts["passed"] == len(outcomes)
    problems = [f"{each.case} {each.outcome}: {each.text}" for each in outcomes if each.outcome != "passed"]
    return Result(CHECK, subject, Status.PASSED if passed else Status.FAILED,
                  f"{counts['passed']} of {len(outcomes)} cases passed", counts=counts, problems=problems)


def _outcomes(context, image, log):
    packages = json.loads(image.read_text())["contents"]["recipes"]
    logger = logging.getLogger("layercheck.oeqa")
    logger.propagate = False
    handler = logging.FileHandler(log, mode="w")
    logger.addHandler(handler)
    try:
        with Machine(image, name="oeqa") as machine:
            context.progress.detail(f"booted in {machine.boot_seconds:.0f} s ({machine.accel.name})")
            wait_for_apps(machine, context.progress.detail)
            data = {"MACHINE": machine.image.machine, "DISTRO": "fastlane"}
            core = Path(context.kas.layers) / "openembedded-core" / "meta" / "lib"
            return run_cases(SerialTarget(machine, logger), packages, core, test_data=data, logger=logger)
    finally:
        logger.removeHandler(handler)
        handler.close()
