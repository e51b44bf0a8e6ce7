# SPDX-License-Identifier: MIT
"""What a device believes after years, cuts, rotations and servers that do odd things: the right version each time."""

import contextlib
import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from composeapps.delivery import clock, refresh
from composeapps.delivery.trust import NothingHereError, TrustError
from composeapps.errors import NotFoundError
from records.test_sealed import Cut, cutting
from support.metadata import NOW, Repository, text

DAY = datetime.timedelta(days=1)
LIB = Path(__file__).resolve().parents[2] / "meta-composeapps/lib"


def test_what_a_factory_signed_is_found(device, repository):
    assert device.versions() == [1]
    repository.publish(2)
    found = device.refresh()
    assert found.changed and [target.version for target in found.targets] == [1, 2]


def test_a_check_that_finds_nothing_asks_two_files_and_writes_nothing(device, repository):
    device.versions()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in device.state.rglob("*")}
    repository.requests.clear()
    found = device.refresh()
    assert not found.changed and [target.version for target in found.targets] == [1]
    assert repository.requests == ["2.root.json", "timestamp.json"]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in device.state.rglob("*")} == before


def test_a_check_that_finds_nothing_loads_no_cryptography(device, repository):
    """It takes longer to load than all the rest."""
    device.versions()
    served = device.place / "served"
    served.mkdir()
    for name, data in repository.files.items():
        (served / name).write_bytes(data)
    code = f"""
import sys
from pathlib import Path
from composeapps.delivery import refresh
from composeapps.delivery.stored import Stored
from composeapps.delivery.trust import from_text
served = Path({str(served)!r})
found = refresh.refresh(Stored({str(device.state)!r}, {str(device.seeds)!r}, "main"),
                        lambda name, limit: (served / name).read_bytes() if (served / name).exists() else None,
                        at=from_text({text(NOW)!r}))
print(found.changed, len(found.targets), sorted({{"tuf", "cryptography", "securesystemslib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], env={"PYTHONPATH": str(LIB)}, text=True, check=True,
                          capture_output=True)
    assert done.stdout == "False 1 []\n"


def test_a_timestamp_that_is_renewed_under_its_old_version_is_taken(device, repository):
    """Update servers do that each week; who keeps to the old one is stuck when it ends."""
    device.versions()
    later = NOW + 8 * DAY
    with pytest.raises(TrustError) as caught:
        device.versions(at=later)
    assert caught.value.rule == "alive"
    repository.timestamp["expires"] = text(later + 7 * DAY)
    repository.renew()
    assert device.versions(at=later) == [1]


@pytest.mark.parametrize("dialect", ["standard"], indirect=True)
def test_a_timestamp_of_the_known_version_is_no_news_in_the_standard(device, repository):
    device.versions()
    version = repository.timestamp["version"]
    repository.publish(2)
    repository.renew(version)
    assert device.versions() == [1]
    repository.publish(3)
    assert device.versions() == [1, 2, 3]


def test_versions_are_counted_by_tags_and_changing_back_finds_them_again(dialect, repository, device):
    """A server counts from 1 for each tag; to a client that keeps one count that is an attack."""
    repository.publish(2).publish(3)
    assert device.versions() == [1, 2, 3]
    other = Repository(dialect)
    other.add(7, tags=("devel",))
    other.publish()
    assert device.versions(tag="devel", fetch=other.fetch) == [7]
    assert device.versions() == [1, 2, 3]
    old = Repository(dialect).publish(1)
    with pytest.raises(TrustError):
        device.versions(fetch=old.fetch)
    assert device.versions(tag="devel", fetch=other.fetch) == [7]


@pytest.mark.parametrize("tag", ["..", "../..", "a/b", ".", "", "x" * 5000, "\0", "ü"])
def test_a_tag_is_no_path(device, tag):
    assert device.versions(tag=tag) == [1]
    assert device.versions(tag=tag) == [1]
    inside = {path.relative_to(device.state).parts[0] for path in device.state.rglob("*")}
    assert inside <= {"root.json", "copies", "tags"}
    assert sorted(path.name for path in device.place.iterdir()) == ["seeds", "state"]


def test_a_year_offline_with_three_rotations_of_the_root_and_a_revoked_key(device, repository):
    device.versions()
    later = NOW + 365 * DAY
    for role in ("root", "timestamp", "targets"):
        repository.rotate(role)
    for signed in (repository.timestamp, repository.snapshot, repository.targets):
        signed["expires"] = text(later + 7 * DAY)
    repository.publish(2)
    assert device.versions(at=later) == [1, 2]
    # The revoked key goes on signing.
    revoked = Repository("ats" if repository.ats else "standard")
    repository.keys["targets"] = revoked.keys["targets"]
    repository.publish(3)
    with pytest.raises(TrustError) as caught:
        device.versions(at=later)
    assert caught.value.rule == "signed"
    assert [target.version for target in refresh.known(device.stored())] == [1, 2]


def test_roots_that_ended_on_the_way_do_not_matter_and_the_last_one_does(device, repository):
    device.versions()
    repository.root["expires"] = text(NOW - DAY)
    repository.rotate("timestamp")
    repository.root["expires"] = text(NOW + DAY)
    repository.rotate("timestamp")
    repository.publish(2)
    assert device.versions() == [1, 2]
    with pytest.raises(TrustError) as caught:
        device.versions(at=NOW + 2 * DAY)
    assert caught.value.rule == "root-alive"


@pytest.mark.parametrize("roles", [("timestamp", "snapshot")])
def test_after_the_keys_of_a_role_are_exchanged_its_versions_begin_anew(device, repository, roles):
    """That is the way back after an attacker has used the numbers up."""
    repository.publish(2, version=2_000_000)
    device.versions()
    repository.rotate(*roles)
    repository.snapshot["version"] = repository.timestamp["version"] = 0
    repository.targets["version"] = 2_000_000
    repository.publish(3)
    assert device.versions() == [1, 2, 3]


def test_an_image_brings_a_newer_root(device, repository):
    device.versions()
    repository.rotate("root")
    repository.rotate("root", "timestamp", "snapshot", "targets")
    repository.publish(2)
    (device.seeds / "3.root.json").write_bytes(repository.files["3.root.json"])
    del repository.files["2.root.json"]
    assert device.versions() == [1, 2]


def test_a_root_of_the_image_that_cannot_be_read_is_told_and_the_one_before_it_counts(device):
    (device.seeds / "2.root.json").write_bytes(b"\0")
    assert device.versions() == [1]
    assert "2.root.json cannot be used as a root" in device.told[0]


def test_without_a_root_nothing_is_believed(device):
    shutil.rmtree(device.seeds)
    with pytest.raises(NotFoundError, match="there is no root to trust"):
        device.versions()


def test_a_server_that_has_nothing_takes_nothing_away(device, repository):
    device.versions()
    repository.files.clear()
    with pytest.raises(NothingHereError):
        device.versions()
    assert [target.version for target in refresh.known(device.stored())] == [1]


@pytest.mark.parametrize("what", ["snapshot.json", "targets.json"])
def test_a_server_that_lacks_what_it_promises_is_named(device, repository, what):
    device.versions()
    del repository.publish(2).files[what]
    with pytest.raises(TrustError, match=f"lacks {what}"):
        device.versions()


def test_a_timestamp_from_before_a_refused_update_does_not_come_back(device, repository):
    """What is in place is that of the old timestamp, what was believed last is not."""
    device.versions()
    old = dict(repository.files)
    repository.publish(2)
    del repository.files["targets.json"]
    with pytest.raises(TrustError):
        device.versions()
    with pytest.raises(TrustError) as caught:
        device.versions(fetch=lambda name, limit: old.get(name))
    assert caught.value.rule == "no-older"


@pytest.mark.parametrize("spoilt", ["state/root.json", "state/tags/main/seen.json", "state/copies/root.json",
                                    "state/copies/tags/main/seen.json"])
@pytest.mark.parametrize("how", ["empty", "gone", "noise"])
def test_one_damaged_copy_costs_no_protection(device, repository, spoilt, how):
    old = dict(repository.files)
    repository.rotate("root")
    repository.publish(2)
    device.versions()
    path = device.place / spoilt
    path.unlink() if how == "gone" else path.write_bytes(b"" if how == "empty" else os.urandom(200))
    with pytest.raises(TrustError) as caught:
        device.versions(fetch=lambda name, limit: old.get(name))
    assert caught.value.rule == "no-older"
    assert device.versions() == [1, 2]


def test_a_lost_record_is_made_from_the_documents(device, repository):
    old = dict(repository.files)
    repository.publish(2)
    device.versions()
    for path in device.state.rglob("seen.json"):
        path.unlink()
    with pytest.raises(TrustError) as caught:
        device.versions(fetch=lambda name, limit: old.get(name))
    assert caught.value.rule == "no-older"
    for path in device.state.rglob("seen.json"):
        path.write_bytes(b"")
    assert device.versions() == [1, 2]


def test_lost_documents_are_fetched_again_and_nothing_older(device, repository):
    old = dict(repository.files)
    repository.publish(2)
    device.versions()
    for path in device.state.rglob("*.role.json"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrustError):
        device.versions(fetch=lambda name, limit: old.get(name))
    assert device.versions() == [1, 2]


def test_a_power_cut_at_any_write_never_goes_back_and_never_wedges(dialect, tmp_path, monkeypatch, other_device):
    for number in range(1, 400, 1 if dialect == "standard" else 5):
        repository = Repository(dialect).publish(1)
        device = other_device(repository)
        device.versions()
        old = dict(repository.files)
        repository.rotate("root")
        repository.publish(2)
        with monkeypatch.context() as patch:
            came = cutting(patch, number)
            with contextlib.suppress(Cut):
                device.versions()
            ended = not came()
        # The old repository comes back: it is refused, or nothing of the new one had been believed.
        stored = device.stored()
        seen = stored.seen("timestamp")
        try:
            found = device.versions(fetch=lambda name, limit, old=old: old.get(name))
        except TrustError as err:
            assert err.rule == "no-older" and seen.version == 2
        else:
            assert found == [1] and seen.version == 1, number
        assert device.versions() == [1, 2], number
        if ended:
            return
    raise AssertionError("it does not come to its end")


def test_a_clock_of_1970_is_no_earlier_than_the_image_and_what_was_signed(tmp_path, monkeypatch):
    built = tmp_path / "clock-epoch"
    built.touch()
    os.utime(built, (NOW.timestamp(), NOW.timestamp()))

    class Early(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(60, tz)

    monkeypatch.setattr(clock.datetime, "datetime", Early)
    assert clock.now(built=(built,)).timestamp() == NOW.timestamp()
    later = NOW + 30 * DAY
    assert clock.now(later, None, built=(built,)).timestamp() == later.timestamp()
    assert clock.now(built=()).timestamp() == 60


def test_the_time_that_signed_metadata_tells_of_is_a_floor(device, repository):
    device.versions()
    assert device.stored().signed() == NOW
    repository.now = NOW + 3 * DAY
    repository.delegate("canary", 7)
    repository.now = NOW + 2 * DAY
    repository.publish(2)
    device.versions()
    assert device.stored().signed() == NOW + 3 * DAY, "whoever signed it"


def test_a_target_from_the_future_does_not_end_all_that_follows(device, repository):
    """A build server whose clock is ahead: a device that took its word would believe nothing any more, for ever."""
    repository.add(2, createdAt="9999-12-31T23:59:59Z")
    repository.delegate("canary", 7)
    repository.delegated["canary"][0]["targets"]["device-7"]["custom"]["createdAt"] = "2099-01-01T00:00:00Z"
    repository.publish()
    assert device.versions() == [1, 2, 7]
    assert device.stored().signed() == NOW
    repository.publish(3)
    assert device.versions(at=clock.now(device.stored().signed(), NOW, built=())) == [1, 2, 3, 7]


def test_waves_are_delegated_and_one_that_ended_stops_no_other(device, repository):
    repository.delegate("canary", 7, hardware=("qemux86-64",))
    repository.delegate("wave-2", 8)
    repository.publish()
    assert device.versions() == [1, 7, 8]
    repository.delegated["canary"][0]["expires"] = text(NOW - DAY)
    repository.delegated["canary"][0]["version"] += 1
    repository.publish(2)
    device.told.clear()
    assert device.versions() == [1, 2, 8]
    assert "canary" in device.told[0] and "passed over" in device.told[0]


def test_nothing_is_kept_of_a_wave_that_is_gone(device, repository):
    """Waves come and go for years, and each has a document of its own."""
    for number in (7, 8, 9):
        repository.delegated.clear()
        repository.targets.pop("delegations", None)
        repository.delegate(f"wave-{number}", number)
        # The snapshot goes on to list those that were.
        repository.publish()
        repository.snapshot["meta"] |= {f"wave-{each}.json": {"version": 1} for each in range(7, number)}
        repository.put("snapshot", repository.snapshot, repository.keys["snapshot"])
        repository.renew()
        assert device.versions() == [1, number]
        assert device.versions() == [1, number]
    assert sorted(path.name for path in device.state.rglob("*.role.json")) == [
        f"{role}.role.json" for role in ("snapshot", "targets", "timestamp", "wave-9")]
    assert device.stored().roles() == ["snapshot", "targets", "timestamp", "wave-9"]


@pytest.mark.parametrize("dialect", ["ats"], indirect=True)
def test_metadata_without_a_list_of_targets_has_none_each_time(device, repository):
    repository.delegate("canary", 7)
    del repository.targets["targets"]
    repository.publish()
    for _each in range(2):
        assert device.versions() == [7]
        assert [target.version for target in refresh.known(device.stored())] == [7]


def test_a_delegated_role_signs_only_what_it_may(device, repository):
    repository.delegate("canary", 7, 9, paths=("device-7",))
    repository.publish()
    assert device.versions() == [1, 7]
    assert device.versions() == [1, 7], "the same without asking"


def test_who_delegates_has_the_last_word_about_a_name(device, repository):
    repository.delegate("canary", 1, hardware=("stolen",))
    repository.publish()
    found = device.refresh().targets
    assert [(target.version, target.hardware_ids) for target in found] == [(1, ("qemux86-64",))]


def test_a_terminating_delegation_ends_the_search_for_its_names(device, repository):
    repository.delegate("first", paths=("device-7",), terminating=True)
    repository.delegate("second", 7, 8)
    repository.publish()
    assert device.versions() == [1, 8]


def test_roles_that_delegate_in_a_circle_come_to_an_end(device, repository):
    repository.delegate("canary", 7)
    signed, keys = repository.delegated["canary"]
    signed["delegations"] = json.loads(json.dumps(repository.targets["delegations"]))
    repository.publish()
    assert device.versions() == [1, 7]
