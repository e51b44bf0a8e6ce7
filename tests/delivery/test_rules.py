# SPDX-License-Identifier: MIT
"""Each rule refuses its attack, in both dialects, and nothing else does: without the rule the attack goes through."""

import copy
import datetime
import json

import pytest

from composeapps.delivery import rules
from composeapps.delivery.trust import TrustError
from support.metadata import NOW, text

DAY = datetime.timedelta(days=1)


def foreign(repository):
    return [repository.key("a stranger's")]


def next_root(repository, device):
    device.versions()
    repository.root["version"] += 2
    repository.files["2.root.json"] = repository.serve_root()


def root_of_a_stranger(repository, device):
    device.versions()
    repository.keys["root"] = foreign(repository)
    repository.root["version"] += 1
    repository.put_root()


def root_that_does_not_sign_itself(repository, device):
    device.versions()
    old = repository.keys["root"]
    repository.rotate("root")
    repository.files["2.root.json"] = repository.document(repository.root, old)
    repository.keys["root"] = old


def unsigned(role):
    def attack(repository, device):
        device.versions()
        repository.keys[role] = foreign(repository)
        repository.publish(2)

    return attack


def older_timestamp(repository, device):
    repository.publish(2)
    device.versions()
    repository.renew(1)


def older_snapshot(repository, device):
    old = dict(repository.files)
    repository.publish(2)
    device.versions()
    # A new timestamp that vouches for the old snapshot.
    repository.files.update({name: old[name] for name in ("snapshot.json", "targets.json")})
    repository.renew(3)


def older_targets(repository, device):
    old = copy.deepcopy(repository.targets)
    repository.publish(2)
    device.versions()
    repository.targets = old
    repository.snapshot["version"] += 1
    repository.timestamp["version"] += 1
    repository.sign()


def another_snapshot_of_the_version(repository, device):
    device.versions()
    repository.add(2)
    repository.targets["version"] += 1
    repository.timestamp["version"] += 1
    repository.sign()


def snapshot_that_loses_a_role(repository, device):
    repository.delegate("wave", 5)
    repository.publish()
    device.versions()
    repository.delegated = {}
    repository.targets.pop("delegations")
    repository.publish()


def altered_content(repository, device):
    device.versions()
    repository.publish(2)
    repository.targets["targets"]["device-2"]["custom"]["version"] = "3"
    # Signed by the right key, and not what the snapshot vouches for.
    repository.put("targets", repository.targets, repository.keys["targets"])


def version_that_was_not_promised(repository, device):
    device.versions()
    repository.publish(2)
    entry = repository.snapshot["meta"]["targets.json"]
    repository.snapshot["meta"] = {"targets.json": {"version": entry["version"] + 1}}
    repository.put("snapshot", repository.snapshot, repository.keys["snapshot"])
    repository.renew()


def ended(role):
    def attack(repository, device):
        device.versions()
        repository.publish(2)
        getattr(repository, role)["expires"] = text(NOW - DAY)
        repository.sign()

    return attack


def timestamp_of_the_same_version_that_says_something_else(repository, device):
    device.versions()
    version = repository.timestamp["version"]
    repository.publish(2)
    repository.renew(version)


def timestamp_of_the_same_version_that_ends_earlier(repository, device):
    device.versions()
    repository.timestamp["expires"] = text(NOW + DAY)
    repository.renew()


def snapshot_in_place_of_a_timestamp(repository, device):
    device.versions()
    repository.keys["snapshot"] = repository.keys["timestamp"]
    repository.rotate()
    signed = copy.deepcopy(repository.snapshot)
    signed["version"], signed["meta"] = 50, repository.timestamp["meta"]
    repository.put("timestamp", signed, repository.keys["timestamp"])


# (rule, attack, only in this dialect): what the rule is for, and that another one does not do its work.
ATTACKS = (
    ("type", snapshot_in_place_of_a_timestamp, ""),
    ("next-root", next_root, ""),
    ("signed", root_of_a_stranger, ""),
    ("signed-by-itself", root_that_does_not_sign_itself, ""),
    ("signed", unsigned("timestamp"), ""),
    ("signed", unsigned("snapshot"), ""),
    ("signed", unsigned("targets"), ""),
    ("no-older", older_timestamp, ""),
    ("vouches-for-no-older", older_snapshot, ""),
    ("vouches-for-no-older", older_targets, ""),
    ("no-version-twice", another_snapshot_of_the_version, ""),
    ("loses-nothing", snapshot_that_loses_a_role, ""),
    ("promised-content", altered_content, ""),
    ("promised-version", version_that_was_not_promised, ""),
    ("alive", ended("timestamp"), ""),
    ("alive", ended("snapshot"), ""),
    ("alive", ended("targets"), ""),
    ("says-the-same", timestamp_of_the_same_version_that_says_something_else, "ats"),
    ("lives-on", timestamp_of_the_same_version_that_ends_earlier, "ats"),
)


def name_of(attack):
    return getattr(attack, "__qualname__", str(attack)).partition(".")[0]


@pytest.mark.parametrize(("rule", "attack", "only"), ATTACKS, ids=[f"{rule}-{name_of(attack)}-{number}" for number, (
    rule, attack, _only) in enumerate(ATTACKS)])
def test_an_attack_is_refused_by_its_rule_and_goes_through_without_it(rule, attack, only, dialect, repository, device,
                                                                      monkeypatch):
    if only and dialect != only:
        # The standard passes such a timestamp over: test_refresh has that.
        return
    attack(repository, device)
    with pytest.raises(TrustError) as caught:
        device.versions()
    assert caught.value.rule == rule
    assert "not believed" in str(caught.value)
    monkeypatch.setattr(rules, "RULES", tuple(each for each in rules.RULES if each.name != rule))
    try:
        device.versions()
    except TrustError as err:
        assert err.rule in SECOND.get(rule, ()), err
    except AttributeError:
        # A snapshot that was taken for a timestamp has not what one is read for.
        assert rule == "type"


# Rule -> rules that stop its attack, too, since they look at it from another side.
SECOND = {"vouches-for-no-older": ("no-older",), "signed-by-itself": ("signed",)}


def test_every_rule_has_an_attack():
    untested = {rule.name for rule in rules.RULES} - {rule for rule, _attack, _only in ATTACKS}
    # Another dialect: below.
    assert untested == {"dialect"}


def test_a_root_of_the_other_dialect_is_refused(dialect, repository, device, monkeypatch):
    from support.metadata import Repository

    device.versions()
    other = Repository("standard" if dialect == "ats" else "ats")
    other.root["version"] = 2
    # The same keys in the other form: their signatures are as good.
    repository.files["2.root.json"] = other.put_root()
    with pytest.raises(TrustError) as caught:
        device.versions()
    assert caught.value.rule == "dialect"


@pytest.mark.parametrize("count", [1, 2])
def test_a_threshold_counts_keys_and_not_signatures(dialect, count, other_device):
    from support.metadata import Repository

    repository = Repository(dialect, threshold=2).publish(1)
    device = other_device(repository)
    repository.keys["timestamp"] = repository.keys["timestamp"][:count]
    repository.publish(2)
    if count == 2:
        assert device.versions() == [1, 2]
        return
    with pytest.raises(TrustError) as caught:
        device.versions()
    assert caught.value.rule == "signed" and "1 of 2" in str(caught.value)


def test_one_key_under_two_ids_counts_once(other_device):
    """The standard does not say what a key's id is; two of them make no two keys."""
    from support.metadata import Repository

    repository = Repository("standard")
    key = repository.keys["timestamp"][0]
    twin = repository.key("standardtimestamp0")
    twin.private, twin.public, twin.document = key.private, key.public, {**key.document, "x-note": "the same key"}
    twin.id = "b" * 64
    repository.keys["timestamp"] = [key, twin]
    repository.root["keys"] = {each.id: each.document for keys in repository.keys.values() for each in keys}
    repository.root["roles"] = {role: {"keyids": [each.id for each in keys], "threshold": len(keys)}
                                for role, keys in repository.keys.items()}
    repository.serve_root()
    repository.publish(1)
    with pytest.raises(TrustError) as caught:
        other_device(repository).versions()
    assert caught.value.rule == "signed"


@pytest.mark.parametrize("spoil", [
    lambda document: document["signatures"].append(document["signatures"][0]),
    lambda document: document["signed"].update(version="2"),
    lambda document: document["signed"].update(version=0),
    lambda document: document["signed"].update(version=1.5),
    lambda document: document["signed"].update(expires="tomorrow"),
    lambda document: document["signed"].pop("meta"),
    lambda document: document["signed"].update(meta=[]),
    lambda document: document.update(signed=[]),
    lambda document: document.pop("signatures"),
    lambda document: document.update(signatures={"keyid": 1}),
    lambda document: document["signatures"][0].update(sig="?"),
], ids=range(11))
def test_what_has_not_the_form_of_metadata_is_refused_by_a_sentence(spoil, repository, device):
    from composeapps.errors import ComposeAppsError

    device.versions()
    document = json.loads(repository.publish(2).files["timestamp.json"])
    spoil(document)
    repository.files["timestamp.json"] = json.dumps(document).encode()
    with pytest.raises(ComposeAppsError) as caught:
        device.versions()
    assert "metadata" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"<html>", b"{}", b"[]", b"\xff", b'{"signed": {}, "signed": {}}', b"[" * 50000,
                                  b'{"signed": {"_type": "Timestamp", "version": NaN}, "signatures": []}'])
def test_what_is_no_json_is_refused_by_a_sentence(data, repository, device):
    from composeapps.errors import CorruptError

    device.versions()
    repository.files["timestamp.json"] = data
    with pytest.raises(CorruptError):
        device.versions()
