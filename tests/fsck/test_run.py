# SPDX-License-Identifier: MIT
"""How a run behaves beside dockerd and other runs, in time, and in what it remembers."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest

from fsck.stores import fingerprint

pytestmark = pytest.mark.root


def test_beside_a_living_dockerd_it_refuses(device):
    device.start()
    before = fingerprint(device.root / "image")
    status, text = device.fsck()
    assert status == 11 and "dockerd is at work" in text and text.count("\n") == 1
    assert fingerprint(device.root / "image") == before
    assert device.fsck("--dry-run")[0] == 11
    device.stop()
    assert device.fsck()[0] == 0


def test_a_dockerd_that_only_begins_is_seen_too(device):
    """Before it has opened its databases, a process named dockerd with this data root tells."""
    script = "import sys, ctypes; ctypes.CDLL(None).prctl(15, b'dockerd'); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script, "--data-root", str(device.root)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout.readline() == "ready\n"
        status, text = device.fsck()
        assert status == 11 and f"process {living.pid}" in text
        living.stdin.close()
    assert device.fsck()[0] == 0


def test_beside_another_fsck_it_refuses(device):
    held = os.open(device.root, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    status, text = device.fsck()
    os.close(held)
    assert status == 9 and "another fsck is at work" in text


def test_without_a_data_root_there_is_nothing_to_do(device):
    shutil.rmtree(device.root)
    status, report = device.fsck()
    assert status == 0 and report["status"] == "clean" and not device.root.exists()


def test_a_ledger_that_was_tampered_with_counts_as_empty(device):
    assert device.fsck()[1]["verified"] == 6
    ledger = device.root / "composeapps-fsck/ledger"
    text = ledger.read_text()
    for change in (lambda: ledger.write_text(text[:-2]), lambda: ledger.write_text(text.replace(" 1 ", " 2 ")),
                   lambda: ledger.chmod(0o666), lambda: ledger.write_bytes(b"\xff" * 100)):
        change()
        status, report = device.fsck()
        assert (status, report["verified"], report["known"]) == (0, 6, 0)
        ledger.unlink()
        ledger.write_text(text)
        ledger.chmod(0o600)
    assert device.fsck()[1]["known"] == 6


def test_what_the_ledger_has_is_read_again_when_its_directory_is_another(device):
    assert device.fsck()[0] == 0
    diff = device.cache("other") / "diff"
    shutil.copytree(diff, diff.with_name("copy"), symlinks=True)
    shutil.rmtree(diff)
    diff.with_name("copy").rename(diff)
    assert device.fsck()[1]["verified"] == 1


def _with_heal(device, body, *options):
    """Run fsck with another heal_layer, the expression ``body``."""
    script = ("import errno, os, sys\nfrom composeapps import durable\nfrom composeapps.cli import main\n"
              "from composeapps.dockerstore import heal\n"
              f"def heal_layer(*given, **named):\n    {body}\n"
              "heal.heal_layer = heal_layer\nsys.exit(main.main(sys.argv[1:]))")
    argv = device.command(*options)
    arguments = argv[argv.index("composeapps.cli.main") + 1:]
    return subprocess.run([argv[0], "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_a_layer_whose_repair_was_cut_off_is_trusted_no_more(device):
    assert device.fsck()[0] == 0
    damaged = device.cache("base", "middle") / "diff/opt/full/new"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    # Only a run that reads all sees it; the power goes when it is about to repair it.
    assert _with_heal(device, "os.kill(os.getpid(), 9)", "--full").returncode == -9
    status, report = device.fsck()
    assert status == 10 and [finding["state"] for finding in report["findings"]] == ["A"]
    assert device.fsck()[0] == 0


def test_a_full_disk_takes_nothing_away(device):
    damaged = device.cache("base", "middle") / "diff/opt/full/new"
    os.truncate(damaged, 0)
    full = "with durable.storage_errors('healing'): raise OSError(errno.ENOSPC, 'No space left on device')"
    done = _with_heal(device, full)
    report = json.loads(done.stdout)
    assert done.returncode == 4 and "full" in report["findings"][0]["repair"]
    assert damaged.exists() and device.layer("base", "middle").exists() and device.mount("app-one").exists()
    status, report = device.fsck()
    assert status == 10 and [finding["state"] for finding in report["findings"]] == ["A"]
    assert device.fsck()[0] == 0


def test_a_time_limit_leaves_the_rest_to_the_background(device):
    os.truncate(device.cache("base", "middle") / "diff/opt/full/new", 0)
    other = device.cache("other", "other-top") / "diff/etc/more"
    other.write_bytes(other.read_bytes()[::-1])
    status, report = device.fsck("--time-limit", "0")
    # What shows without reading was healed all the same.
    assert status == 10 and [finding["state"] for finding in report["findings"]] == ["A"]
    assert len(report["unverified"]) == 5

    device.start()
    status, report = device.fsck("--background")
    assert status == 4 and report["verified"] == 4
    assert [finding["repair"] for finding in report["findings"]] == ["the next boot repairs it"]
    device.stop()

    # Reading is over at once, but what is known to be damaged is looked at.
    status, report = device.fsck("--time-limit", "0")
    assert status == 10 and report["unverified"] == [] and report["known"] == 5
    assert device.chain("other", "other-top") not in os.listdir(device.layerdb / "sha256")
    assert not (device.root / "composeapps-fsck/pending").exists()
    assert device.fsck()[0] == 0


def test_the_last_report_stays_with_the_store(device):
    os.truncate(device.mount("app-one") / "parent", 0)
    status, report = device.fsck()
    kept = json.loads((device.root / "composeapps-fsck/report.json").read_text())
    assert status == 10 and kept["findings"] == report["findings"]
    assert device.fsck()[0] == 0


def test_what_is_set_aside_is_bounded(device):
    container = device.container("app-local")
    for number in range(12):
        container.mkdir(exist_ok=True)
        (container / "config.v2.json").write_text(f"{number} is no configuration")
        assert device.fsck()[0] == 10
    assert len(list((device.root / "lost+fsck").iterdir())) <= 8


def test_for_people_it_says_what_it_did(device):
    os.truncate(device.layer("base", "middle") / "size", 0)
    command = [word for word in device.command() if word != "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 10 and len(lines) == 2
    assert lines[0].startswith("[B] layer ") and "size is empty" in lines[0] and lines[0].endswith("counted it again")
    assert "repaired (6 layers, 3 images, 3 containers" in lines[1]


def test_wrong_usage_is_one_line(device):
    done = subprocess.run([*device.command(), "--time-limit", "soon"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
