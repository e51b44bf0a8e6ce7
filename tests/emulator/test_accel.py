# SPDX-License-Identifier: MIT
"""Whether KVM runs guests is found out by running one, once a boot of the host."""

import json

import pytest

from emulator import EmulatorError, accel

pytestmark = pytest.mark.qemu


def test_the_probes_guest_runs_where_a_guest_can_run():
    works, reason = accel.run_probe_guest(accel.tcg("").arguments, timeout=60)
    assert works, reason


def test_a_guest_that_never_runs_is_given_up():
    works, reason = accel.run_probe_guest((*accel.tcg("").arguments, "-S"), timeout=1)
    assert not works
    assert "1 s" in reason


def test_an_accelerator_that_qemu_refuses_is_reported_with_its_words():
    works, reason = accel.run_probe_guest(("-machine", "q35", "-accel", "no-such-accelerator"), timeout=60)
    assert not works
    assert "no-such-accelerator" in reason


@pytest.mark.timeout(60)
def test_probing_this_machine_comes_to_an_end(tmp_path):
    works, reason = accel.probe(cache=tmp_path / "accel.json")
    assert isinstance(works, bool)
    assert reason


def test_without_the_device_there_is_no_kvm(tmp_path):
    works, reason = accel.probe(cache=tmp_path / "accel.json", device=str(tmp_path / "kvm"))
    assert not works
    assert str(tmp_path / "kvm") in reason


def test_the_answer_is_kept_until_the_host_changes(tmp_path):
    cache, device = tmp_path / "sub" / "accel.json", str(tmp_path / "kvm")
    accel.probe(cache=cache, device=device)
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps({**kept, "kvm": True, "reason": "kept"}))
    assert accel.probe(cache=cache, device=device) == (True, "kept")

    cache.write_text(json.dumps({"key": ["another boot", *kept["key"][1:]], "kvm": True, "reason": "kept"}))
    assert accel.probe(cache=cache, device=device)[0] is False


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}', '{"kvm": true}'])
def test_a_damaged_cache_is_replaced(tmp_path, damage):
    cache = tmp_path / "accel.json"
    cache.write_text(damage)
    assert accel.probe(cache=cache, device=str(tmp_path / "kvm"))[0] is False
    assert json.loads(cache.read_text())["kvm"] is False


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("COMPOSEAPPS_ACCEL", "kvm")
    assert accel.select().name == "kvm"
    monkeypatch.setenv("COMPOSEAPPS_ACCEL", "tcg")
    assert accel.select().name == "tcg"
    assert accel.select("kvm").name == "kvm"
    monkeypatch.setenv("COMPOSEAPPS_ACCEL", "hvf")
    with pytest.raises(EmulatorError, match="COMPOSEAPPS_ACCEL says 'hvf'"):
        accel.select()


def test_emulation_gets_more_time_and_no_cmpxchg16b():
    assert accel.tcg("").timeout_scale > accel.kvm("").timeout_scale
    assert "IvyBridge,-cx16" in accel.tcg("").arguments


def test_emulation_gives_systemd_the_time_that_it_gives_everything(new_machine):
    """Else a slow boot gives the serial console up after 90 seconds, and nobody can talk to the device."""
    said = dict(word.split("=") for word in new_machine(accel="tcg").cmdline.split() if word.startswith("systemd.def"))
    limit = f"{90 * accel.TCG_TIMEOUT_SCALE:.0f}"
    assert said == {"systemd.default_device_timeout_sec": limit, "systemd.default_timeout_start_sec": limit}
    assert "systemd.default" not in new_machine(accel="kvm").cmdline
