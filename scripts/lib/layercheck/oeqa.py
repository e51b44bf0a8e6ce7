# SPDX-License-Identifier: MIT
"""Run the layer's oeqa cases, with openembedded-core's own oeqa, on an image in QEMU."""

import json
from pathlib import Path

from demonstration.device import wait_for_apps
from emulator import image as images
from emulator.machine import Machine
from oeqatarget import SerialTarget, run_cases


def run(openembedded_core, image=None, *, on_line=lambda line: None, logger=None):
    """Boot ``image``, run the cases on it over its serial console, and return a list of ``oeqatarget.Result``.

    Arguments:
        openembedded_core: a checkout of it; its meta/lib brings oeqa.
        image: the description that scripts/build-image wrote (default: the newest one in build/deploy).
        on_line: called with each line about what is being done.
        logger: for oeqa's own messages.

    Raises a ComposeAppsError when the image does not boot or oeqa cannot be loaded. That cases fail is in
    the results. Proves the cases, the agent and the image's configuration; the image is Debian's dockerd and
    kernel with the layer's recipes, not one that openembedded-core built.
    """
    image = Path(image or images.latest())
    packages = json.loads(image.read_text())["contents"]["recipes"]
    logger = logger or _quiet()
    with Machine(image, name="oeqa") as machine:
        on_line(f"booted in {machine.boot_seconds:.0f} s ({machine.accel.name})")
        wait_for_apps(machine, on_line)
        data = {"MACHINE": machine.image.machine, "DISTRO": "fastlane"}
        oeqa = Path(openembedded_core) / "meta" / "lib"
        return run_cases(SerialTarget(machine, logger), packages, oeqa, test_data=data, logger=logger)


def _quiet():
    import logging

    logger = logging.getLogger("layercheck.oeqa")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
