# SPDX-License-Identifier: MIT
"""The shell's look at the provisioning area at each boot: when it has something taken over, and when it does not."""

import subprocess
from pathlib import Path

import pytest

from composeapps.disk import area

GUARD = Path(__file__).resolve().parents[2] / "meta-composeapps/recipes-composeapps/composeapps-disk-config/files"


@pytest.fixture
def guard(tmp_path):
    """A function that runs the look over an area's bytes; tells whether it had them taken over."""
    sysfs, programs = tmp_path / "sys", tmp_path / "bin"
    for number, name in enumerate(("boot", "provision", "data")):
        (sysfs / f"sda{number}").mkdir(parents=True)
        (sysfs / f"sda{number}/uevent").write_text(f"DEVNAME=..{tmp_path}/{name}\nPARTNAME={name}\n")
        (tmp_path / name).write_bytes(area.pack(area.Provision(device="other")))
    programs.mkdir()
    for name, text in (("composeapps-root-disk", f"echo {sysfs}"), ("python3", f'echo "$@" > {tmp_path}/taken')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    script = (GUARD / "composeapps-provision").read_text().replace("/var/sota", str(tmp_path / "sota"))
    (tmp_path / "sota").mkdir()

    def look(data, known=True):
        (tmp_path / "provision").write_bytes(data)
        (tmp_path / "taken").unlink(missing_ok=True)
        (tmp_path / "sota/device.json").write_text("{}")
        if not known:
            (tmp_path / "sota/device.json").unlink()
        text = script.replace("@libexecdir@", str(programs)).replace("@bindir@", str(programs))
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        taken = tmp_path / "taken"
        assert not taken.exists() or taken.read_text() == f"-I -m composeapps.cli.provisioning {sysfs}\n"
        return taken.exists()

    return look


def taken_over(serial):
    return area.wiped(area.Provision(serial=serial)).ljust(area.SIZE, b"\0")


@pytest.mark.parametrize("given", [
    area.Provision(device="shop-1"), area.Provision(serial="A1", settings="composeapps.parallel = 4\n"),
    area.Provision(device="shop-1", serial="A1", new_key=True), area.Provision(device="shop-1", key="k" * 2000),
    area.Provision(serial="A1", key="k")])
def test_what_waits_is_taken_over(guard, given):
    assert guard(area.pack(given)) and guard(area.pack(given), known=False)


def test_a_serial_number_is_taken_over_where_the_device_does_not_know_it(guard):
    assert not guard(taken_over("A1")) and guard(taken_over("A1"), known=False)


@pytest.mark.parametrize("data", [bytes(area.SIZE), b"\xa5" * area.SIZE, taken_over("")])
def test_nothing_is_done_where_nothing_is(guard, data):
    assert not guard(data) and not guard(data, known=False)


def test_an_area_that_was_wiped_half_way_is_looked_at(guard):
    whole = area.pack(area.Provision(device="shop-1", key="k" * 2000))
    assert guard(whole[:area.SECTOR].ljust(area.SIZE, b"\0"))
