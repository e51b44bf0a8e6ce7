# SPDX-License-Identifier: MIT
"""dockerd's settings: what a product may add, and that it cannot lose the image store that apps rely on."""

import json
from pathlib import Path

import pytest

RECIPE = "composeapps-docker-config"


def _files(layer, *options):
    result, message = layer.run(RECIPE, options=options)
    assert message == ""
    root = Path(result["D"][RECIPE])
    dropin = root / "usr/lib/systemd/system/docker.service.d/50-composeapps.conf"
    return json.loads((root / "etc/docker/daemon.json").read_text()), dropin.read_text()


def _with(settings):
    # The command takes values that need no quoting, so the setting comes from a configuration file.
    return f"COMPOSEAPPS_DOCKER_SETTINGS = '{settings}'\n"


def _append(layer, settings):
    layer.write(f"recipes/x/{RECIPE}_%.bbappend", _with(settings))


def test_the_image_store_is_pinned_and_dockerd_waits_for_its_check(layer):
    settings, dropin = _files(layer)
    assert settings["storage-driver"] == "overlay2" and settings["features"] == {"containerd-snapshotter": False}
    assert "After=docker-store-fsck.service" in dropin and "RequiresMountsFor=/var/lib/docker\n" in dropin


def test_a_product_adds_settings(layer):
    _append(layer, '{ "features": { "cdi": true }, "data-root": "/data/docker", "bip": "10.9.0.1/16" }')
    settings, dropin = _files(layer)
    assert settings["features"] == {"containerd-snapshotter": False, "cdi": True}
    assert settings["bip"] == "10.9.0.1/16" and settings["storage-driver"] == "overlay2"
    assert "RequiresMountsFor=/data/docker\n" in dropin


def test_the_store_is_checked_before_anything_uses_it(layer):
    _append(layer, '{ "data-root": "/data/docker" }')
    result, message = layer.run(RECIPE)
    assert message == ""
    units = Path(result["D"][RECIPE], "usr/lib/systemd/system")
    boot, rest = ((units / f"docker-store-fsck{name}.service").read_text() for name in ("", "-background"))
    assert "ExecStart=/usr/bin/composeapps fsck --data-root /data/docker --time-limit" in boot
    assert "ReadWritePaths=-/data/docker\n" in boot and "RequiresMountsFor=/data/docker\n" in boot
    assert "Before=docker.service containerd.service" in boot
    # docker.socket comes before basic.target, which ssh and a console's login wait for.
    assert "DefaultDependencies=no" in boot and "docker.socket" not in boot.split("[Service]")[0].split("Before=")[1]
    assert "fsck --data-root /data/docker --background" in rest and "IOSchedulingClass=idle" in rest
    assert "@" not in (boot + rest).replace("SystemCallFilter=@system-service", "")


def test_dockerd_may_read_images_from_the_store_wherever_it_is(layer):
    assert 'Environment="DOCKER_LOAD_ROOTS=/var/sota/reset-apps"\n' in _files(layer)[1]
    dropin = _files(layer, "--set", "COMPOSEAPPS_STORE=/data/apps")[1]
    assert 'Environment="DOCKER_LOAD_ROOTS=/data/apps"\n' in dropin


@pytest.mark.parametrize("settings, sentence", [
    ('{ "features": { "containerd-snapshotter": true } }', "selects containerd's image store"),
    ('{ "storage-driver": "btrfs" }', "selects the storage driver 'btrfs'"),
    ('{ "features": [] }', '"features" is not a JSON object'),
    ('[ "bip" ]', "is not a JSON object of settings"),
    ('{ bip: 1 }', "is not JSON"),
])
def test_the_wrong_image_store_is_refused_when_it_is_parsed(layer, refused, settings, sentence):
    _append(layer, settings)
    message = refused()
    assert f"COMPOSEAPPS_DOCKER_SETTINGS {sentence}" in message or (
        "COMPOSEAPPS_DOCKER_SETTINGS: " in message and sentence in message)


def test_an_image_knows_before_its_packages_are_looked_at(layer, refused):
    layer.write("recipes/x/composeapps-image.bbappend", _with('{ "storage-driver": "vfs" }'))
    assert "selects the storage driver 'vfs'" in refused()
