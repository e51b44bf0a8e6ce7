# SPDX-License-Identifier: MIT
"""What a factory publishes, as python-tuf's own client reads it: an independent one, and a device's trust at stake."""

import datetime
import json

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError, UnsignedMetadataError

from composeapps import durable
from composeapps.errors import UsageError
from composeapps.signing import documents as docs
from composeapps.signing import edit, keys
from composeapps.signing.repository import Repository
from signing.conftest import WEB, command

NOW = datetime.datetime(2027, 3, 1, tzinfo=datetime.UTC)


def test_a_device_finds_what_was_created_and_what_came_later(factory):
    device = factory.device()
    assert device.find("shop-1") is None
    factory.create("--arch", "x86_64")
    custom = device.find("shop-1")
    assert custom.pop("createdAt").endswith("Z")
    assert custom == {"name": "shop", "version": "1", "targetFormat": "OSTREE", "arch": "x86_64",
                      "hardwareIds": ["pc"], "tags": ["main"], "docker_compose_apps": {"web": {"uri": WEB}}}
    factory.create()
    assert device.find("shop-2")["version"] == "2"
    assert device.find("shop-1") and factory.device().find("shop-2")


def test_a_device_of_the_first_root_follows_three_rotations(factory):
    device, late = factory.device(), factory.device()
    old = factory.keys / "root.pub"
    for number in range(3):
        key = factory.key(f"root{number}")
        factory.do("rotate", "root", "--add", key, "--remove", old)
        old = key
        device.find("shop-1")
    factory.create()
    assert late.find("shop-1") and device.find("shop-1")
    assert "4.root.json" in factory.files()


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_device_goes_on_when_other_keys_are_rotated(factory, role):
    factory.create()
    device = factory.device()
    assert device.find("shop-1")
    old = factory.keys / ("targets.pub" if role == "targets" else "online.pub")
    factory.do("rotate", role, "--add", factory.key("new"), "--remove", old)
    assert device.find("shop-1")
    # The old keys are not needed any more.
    if role == "targets":
        (factory.keys / "targets.pem").unlink()
    factory.create()
    assert device.find("shop-2") and factory.device().find("shop-2")


def test_a_stolen_key_signs_nothing_any_more(factory):
    factory.create()
    device = factory.device()
    assert device.find("shop-1")
    new = factory.key("online2")
    factory.do("revoke", "--stolen", factory.keys / "online.pub", "--add", new)
    assert device.find("shop-1")
    before = factory.files()
    done = command("renew", factory.repository, "--key", factory.keys / "online.pem")
    assert done.status == 2 and "timestamp lacks 1 signature" in done.err and factory.files() == before
    # What the thief signs with the stolen key is refused.
    state = Repository(factory.repository).read()
    forged = docs.next_of(state.timestamp, 7, datetime.datetime.now(datetime.UTC))
    forged.sign(keys.find(factory.keys / "online.pem", keys.PassPhrases()).signer())
    (factory.repository / "timestamp.json").write_bytes(forged.to_bytes())
    with pytest.raises(RepositoryError):
        device.find("shop-1")


def test_two_of_three_root_keys_have_to_sign(factory):
    elsewhere = factory.place / "elsewhere"
    elsewhere.mkdir()
    for name in ("alice", "bob"):
        factory.key(name).rename(elsewhere / f"{name}.pem")
    words = ["rotate", "root", "--add", factory.keys / "alice.pub", "--add", factory.keys / "bob.pub", "--threshold",
             "2"]
    before = factory.files()
    done = factory.run(*words)
    assert done.status == 2 and "root lacks 1 signature" in done.err and factory.files() == before
    # Made here, signed there, published here: Alice and Bob each got a copy.
    first, second = factory.place / "first.json", factory.place / "second.json"
    factory.do(*words, "--change", first)
    second.write_bytes(first.read_bytes())
    for path, name in ((first, "alice"), (second, "bob")):
        shown = command("sign", path)
        assert shown.status == 0 and "2 of 3 keys sign root (before: 1)" in shown.out
        signed = command("sign", path, "--key", elsewhere / f"{name}.pem")
        assert signed.status == 0 and "signed root" in signed.out
    online = ["--key", factory.keys / "online.pem"]
    assert command("publish", factory.repository, first, second, *online).status == 0
    device = factory.device()
    device.find("shop-1")
    assert "2.root.json" in factory.files()
    # A copy that was lost and comes again changes nothing.
    done = command("publish", factory.repository, first, *online)
    assert done.status == 2 and "make the change again" in done.err
    # One of the keys alone cannot make another root.
    done = command("rotate", factory.repository, "root", "--threshold", "1", "--key", elsewhere / "alice.pem", *online)
    assert done.status == 2 and "2.root" not in done.err


def test_a_target_is_made_signed_and_published_on_three_machines(factory):
    change = factory.place / "shop.json"
    factory.create("--change", change, run=lambda *words: factory.do(*words, keys=False))
    assert "2.targets.json" not in factory.files()
    shown = command("sign", change, "--key", factory.keys / "targets.pem")
    assert f"web: {WEB}" in shown.out and "+ Target shop-1 for pc, tags main" in shown.out
    done = command("publish", factory.repository, change, "--key", factory.keys / "online.pem")
    assert done.status == 0, done.err
    assert factory.device().find("shop-1")


def test_a_change_that_somebody_wrote_into_is_refused(factory):
    change = factory.place / "shop.json"
    factory.create("--change", change)
    value = json.loads(change.read_text())
    custom = value["documents"]["targets"]["signed"]["targets"]["shop-1"]["custom"]
    custom["docker_compose_apps"]["web"]["uri"] = WEB.replace("a1", "b2")
    change.write_text(json.dumps(value))
    before = factory.files()
    done = command("publish", factory.repository, change, "--key", factory.keys / "online.pem")
    assert done.status == 2 and "targets lacks 1 signature" in done.err and factory.files() == before


def test_a_wave_signs_for_its_own_devices_only(factory):
    device = factory.device()
    ci = factory.key("ci")
    factory.do("wave", "canary", "--wave-key", ci.with_suffix(".pub"), "--tag", "canary")
    only = [factory.place / "ci"]
    only[0].mkdir()
    for name in ("ci", "online"):
        (only[0] / f"{name}.pem").write_bytes((factory.keys / f"{name}.pem").read_bytes())
        (only[0] / f"{name}.pem").chmod(0o600)

    def as_ci(action, *words):
        return command(action, factory.repository, *words, "--keys", only[0])

    assert factory.create("--wave", "canary", run=as_ci).status == 0
    assert device.find("shop-1")["tags"] == ["canary"]
    refused = factory.create("--wave", "canary", "--tag", "main", run=as_ci)
    assert refused.status == 2 and "may sign for the tags canary only" in refused.err
    # The targets key itself is not there.
    assert factory.create(run=as_ci).status == 2
    assert as_ci("promote", "shop-1", "--tag", "main").status == 2
    factory.do("promote", "shop-1", "--tag", "main", "--drop-tag", "canary")
    assert device.find("shop-1")["tags"] == ["main"]
    factory.do("wave", "canary", "--remove")
    assert device.find("shop-1") and factory.device().find("shop-1")
    # It may come again under its name.
    factory.do("wave", "canary", "--wave-key", ci, "--tag", "canary")
    factory.create("--wave", "canary")
    assert device.find("shop-2")["tags"] == ["canary"]


def test_what_was_revoked_is_gone_and_never_comes_back(factory):
    device = factory.device()
    factory.create()
    assert device.find("shop-1")
    factory.do("revoke", "shop-1")
    assert device.find("shop-1") is None
    done = factory.create("--version", "1", run=factory.run)
    assert done.status == 2 and "was there and was revoked at" in done.err and "take version 2" in done.err
    factory.create()
    assert device.find("shop-2")


def _publish(repository, signing, now, documents=None):
    """Publish what needs no change, or documents, at another time than now."""
    state = repository.read() if documents is None or repository.is_there() else docs.State()
    docs.sign(state, documents or {}, signing)
    repository.publish(state, documents or {}, signing, now)


def test_what_has_expired_is_renewed(factory, tmp_path):
    """A factory that was away for ten years; its root, too, has expired."""
    signing = keys.find_all([], [factory.keys], keys.PassPhrases())
    of = {path.stem: next(key for key in signing if key.path.stem == path.stem) for path in factory.keys.glob("*.pem")}
    repository = Repository(tmp_path / "old")
    past = NOW - datetime.timedelta(days=3650)
    with repository.alone():
        _publish(repository, signing, past, edit.init(
            {"root": [of["root"]], "targets": [of["targets"]], "snapshot": [of["online"]],
             "timestamp": [of["online"]]}, {}, {}, past))
    factory.repository = repository.directory
    device = factory.device()
    with pytest.raises(ExpiredMetadataError):
        device.find("shop-1")
    factory.do("renew", "--role", "root", "--role", "targets")
    factory.create()
    assert device.find("shop-1")
    roles = json.loads(factory.do("list", "--json", keys=False).out)["roles"]
    today = docs.text_of(datetime.datetime.now(datetime.UTC))
    assert all(each["expires"] > today for each in roles.values())


def test_renewing_needs_the_online_key_alone_and_tells_what_ends(factory):
    before = Repository(factory.repository).read()
    done = command("renew", factory.repository, "--key", factory.keys / "online.pem")
    after = Repository(factory.repository).read()
    assert done.status == 0 and done.err == ""
    assert after.version("timestamp") == before.version("timestamp") + 1
    assert after.version("snapshot") == before.version("snapshot")
    factory.device().find("shop-1")
    factory.do("renew", "--days", "targets=1", "--role", "targets")
    done = command("renew", factory.repository, "--key", factory.keys / "online.pem")
    assert done.status == 0 and done.err == ""
    factory.do("renew", "--days", "targets=60", "--role", "targets")
    assert (Repository(factory.repository).read().targets.signed.expires
            - datetime.datetime.now(datetime.UTC)).days in (59, 60)


class _Cut(Exception):  # noqa: N818 - it is no error of the program's
    """The power is gone."""


@pytest.mark.parametrize("words", [
    ("create", "--name", "shop", "--hardware", "pc", "--tag", "main", "--app", WEB, "--unchecked"),
    ("rotate", "root", "timestamp", "targets", "--add", "new.pem", "--threshold", "2"),
    ("revoke", "--stolen", "online.pub", "--add", "new.pem"),
], ids=["create", "rotate", "stolen"])
def test_a_cut_at_any_write_leaves_a_whole_repository(factory, monkeypatch, words):
    factory.create()
    factory.key("new")
    words = [factory.keys / word if str(word).endswith((".pem", ".pub")) else word for word in words]
    seen, cuts, real = factory.device(), 0, durable.replace
    assert seen.find("shop-1")
    while True:
        left = iter(range(cuts))

        def cut(*args, left=left):
            if next(left, None) is None:
                raise _Cut
            real(*args)

        monkeypatch.setattr(durable, "replace", cut)
        try:
            done = factory.run(*words)
        except _Cut:
            done = None
        monkeypatch.setattr(durable, "replace", real)
        # Whoever comes now, and whoever was there before, gets one state whole.
        assert factory.device().find("shop-1") and seen.find("shop-1")
        Repository(factory.repository).read()
        if done is not None:
            break
        cuts += 1
    assert done.status in (0, 2) and cuts >= 3
    factory.create()
    latest = Repository(factory.repository).read().targets.signed.targets
    assert seen.find(max(latest)) and factory.device().find(max(latest))


def test_a_timestamp_of_a_stolen_key_that_is_lost_is_healed_after_a_cut(factory, monkeypatch):
    """The old online key is gone, so nobody can sign for both roots: the cut lies between root and timestamp."""
    factory.create()
    new = factory.key("new")
    (factory.keys / "online.pem").unlink()
    device, real = factory.device(), durable.replace
    words = ("revoke", "--stolen", factory.keys / "online.pub", "--add", new)

    def cut(temporary, target, *rest):
        if target.name == "timestamp.json":
            raise _Cut
        real(temporary, target, *rest)

    monkeypatch.setattr(durable, "replace", cut)
    with pytest.raises(_Cut):
        factory.run(*words)
    monkeypatch.setattr(durable, "replace", real)
    with pytest.raises(UnsignedMetadataError):
        device.find("shop-1")
    factory.do("renew")
    assert device.find("shop-1")


def test_a_damaged_repository_is_told_and_not_built_upon(factory):
    factory.create()
    whole = factory.files()
    for name in ("timestamp.json", "2.snapshot.json", "2.targets.json", "1.root.json"):
        path = factory.repository / name
        for content in (b"", b"{}", whole[name][:-20], whole[name].replace(b'"version":', b'"version": 1')):
            path.write_bytes(content)
            done = factory.create(run=factory.run)
            assert done.status == 4 and str(factory.repository) in done.err, (name, content)
        path.write_bytes(whole[name])
    (factory.repository / "2.targets.json").unlink()
    assert factory.create(run=factory.run).status == 4
    assert factory.run("init").status == 2
    (factory.repository / "2.targets.json").write_bytes(whole["2.targets.json"])
    factory.create()
    assert factory.device().find("shop-2")


def test_init_goes_on_after_a_cut(factory, monkeypatch, tmp_path):
    factory.repository, real = tmp_path / "anew", durable.replace
    for cut_at in ("1.targets.json", "1.snapshot.json", "timestamp.json", "1.root.json"):
        def cut(temporary, target, *rest, cut_at=cut_at):
            if target.name == cut_at:
                raise _Cut
            real(temporary, target, *rest)

        monkeypatch.setattr(durable, "replace", cut)
        with pytest.raises(_Cut):
            factory.run("init")
    monkeypatch.setattr(durable, "replace", real)
    factory.do("init")
    factory.create()
    assert factory.device().find("shop-1")


def test_a_clock_that_is_behind_signs_nothing(factory):
    state = Repository(factory.repository).read()
    with pytest.raises(UsageError, match="this machine's clock says 1970-01-01T00:00:00Z"):
        docs.clock(state, datetime.datetime.fromtimestamp(0, datetime.UTC))
    signed = state.timestamp.signed.expires - datetime.timedelta(days=7)
    with pytest.raises(UsageError, match="set the clock"):
        docs.clock(state, signed - datetime.timedelta(days=2))
    assert docs.clock(state, signed + datetime.timedelta(days=2))


def test_what_was_signed_in_the_future_is_mended(factory):
    """By a clock that was ahead, which nobody noticed before it was set right."""
    repository, ahead = Repository(factory.repository), NOW + datetime.timedelta(days=7000)
    signing = keys.find_all([], [factory.keys], keys.PassPhrases())
    _publish(repository, signing, ahead)
    done = factory.run("renew")
    assert done.status == 2 and "--trust-clock" in done.err
    factory.do("renew", "--trust-clock")
    factory.create()
    assert factory.device().find("shop-1")
    assert repository.read().timestamp.signed.expires < NOW + datetime.timedelta(days=365)
