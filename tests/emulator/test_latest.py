# SPDX-License-Identifier: MIT
"""Which image is booted when none is named."""

import os

import pytest

import hostsetup
from emulator import EmulatorError
from emulator import image as images


def test_the_image_that_was_built_last_is_booted_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(hostsetup, "BUILD", tmp_path)
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    with pytest.raises(EmulatorError, match=f"there is no image in {deploy}: build one with scripts/build-image"):
        images.latest()
    for seconds, name in enumerate(["composeapps-image-qemux86-64", "shop-image-qemux86-64", "shop-image.spdx"], 1):
        (deploy / f"{name}.json").write_text("{}")
        os.utime(deploy / f"{name}.json", (seconds, seconds))
    assert images.latest().name == "shop-image-qemux86-64.json"
    assert images.latest("composeapps-image").name == "composeapps-image-qemux86-64.json"
    # As a build does that finds it up to date.
    os.utime(deploy / "composeapps-image-qemux86-64.json")
    assert images.latest().name == "composeapps-image-qemux86-64.json"
