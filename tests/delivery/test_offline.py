# SPDX-License-Identifier: MIT
"""Which Target a device takes from a stick."""

import json
from types import SimpleNamespace

import pytest

from composeapps.cli import checkins
from composeapps.cli.config import Config
from composeapps.delivery import bundles, offline, record
from composeapps.delivery.memory import Memory
from composeapps.delivery.stored import of_device
from composeapps.delivery.trust import TrustError
from composeapps.errors import LockedError
from composeapps.records import lock
from composeapps.update.parts import Parts
from support import pki
from support.metadata import Repository, text


@pytest.fixture
def device(tmp_path):
    """The Parts of a device, and the directory of a bundle with Targets 3 and 4."""
    repository = Repository(now=pki.now())
    for version in (3, 4):
        repository.add(version, hardware=("board",))
    repository.publish()
    for place in ("stick/tuf", "stick/apps/blobs/sha256", "seeds"):
        (tmp_path / place).mkdir(parents=True)
    for name, data in repository.files.items():
        (tmp_path / "stick/tuf" / name).write_bytes(data)
    (tmp_path / "seeds/1.root.json").write_bytes(repository.files["1.root.json"])
    said = {**repository.targets, "targets": {}, "expires": text(pki.now() + 30 * pki.DAY), bundles.FIELD: {
        "tag": "main", "targets": ["device-3", "device-4"]}}
    (tmp_path / "stick/tuf" / bundles.NAME).write_bytes(repository.document(said, repository.keys["targets"]))
    return Parts(Config(tags=("main",), hardware_id="board", state_dir=tmp_path / "state", store=tmp_path / "store",
                        root_dir=tmp_path / "seeds", factory_file=tmp_path / "factory.json",
                        factory_store=tmp_path / "factory")), tmp_path / "stick"


def choose(parts, stick, wanted=""):
    return offline.choose(parts, bundles.Bundle(stick), of_device(parts.config, parts.states), wanted)


def test_a_stick_with_an_older_target_than_the_preloaded_one_is_not_taken_by_itself(device):
    parts, stick = device
    found, sentence = choose(parts, stick)
    assert found.name == "device-4" and sentence == ""
    parts.config.factory_file.write_text(json.dumps({
        "apps": found.apps, "target": {"name": "device-5", "version": 5}}))
    found, sentence = choose(parts, stick)
    assert found is None and "is older: it is not installed by itself" in sentence
    assert choose(parts, stick, "device-3")[0].name == "device-3"


def test_a_target_that_says_something_else_than_before_is_news(device):
    """A factory that begins anew has the old names, and other apps."""
    parts, stick = device
    found, _sentence = choose(parts, stick)
    now = record.Installed(found.name, found.version, "main", found.apps)
    record.write(parts, record.Record(now))
    assert choose(parts, stick) == (None, "nothing new: Target device-4 is installed")
    record.write(parts, record.Record(now._replace(apps={"shop": f"hub.example.com/factory/shop@sha256:{'b' * 64}"})))
    assert choose(parts, stick)[0] == found


@pytest.mark.parametrize("year", ["0001", "1970", "9999"])
def test_a_timestamp_of_any_year_that_nobody_signed_is_refused_in_a_sentence(device, year):
    parts, stick = device
    path = stick / "tuf/timestamp.json"
    value = json.loads(path.read_bytes())
    value["signed"]["expires"] = f"{year}-01-01T00:00:00Z"
    path.write_text(json.dumps(value))
    with pytest.raises(TrustError, match="timestamp metadata is not believed"):
        choose(parts, stick)


def test_a_stick_waits_for_a_check_in_that_is_under_way(device, tmp_path, monkeypatch):
    """Both write down what was believed: the one that is later must not undo what the other has seen."""
    parts, stick = device
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    with parts.locked(), Memory(parts.states.root).alone():
        (_app, ended), = checkins.from_bundle(SimpleNamespace(bundle=stick, target=""), parts, lambda text: None)
    assert isinstance(ended, LockedError)
    assert of_device(parts.config, parts.states).seen("timestamp") is None
