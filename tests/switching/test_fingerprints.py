# SPDX-License-Identifier: MIT
"""What identifies a service: the same text as ever, made once of what several services mount."""

import hashlib
import json

import pytest

from composeapps.app.compose import load
from composeapps.installed.install import load_from_store
from composeapps.switching import definition
from support.device import Device


def described(shelf, services, files):
    app = shelf.version(services, files)
    assert load(app.compose, "it")
    return definition.from_store(load_from_store(shelf.store, app.ref), shelf.store, shelf.config)


def by_hand(found, service):
    """What containers of installed apps are labelled with: another text would make all of them anew."""
    parts = [
        service.image, service.config_hash, service.text, sorted(found.files(service).items()),
        [(name, found.environment.get(name)) for name in sorted(service.variables)],
        [(key, found.networks.get(key)) for key in sorted(service.networks)],
        [(kind, key, found.resources.get((kind, key))) for kind, key in sorted(service.resources)],
        *([key, found.volume_names[key]] for key in sorted(service.volumes & found.volume_names.keys()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


FILES = {"d/one": "1", "d/two": "2", "conf/\u00e4": "3", ".env": "A=1\n", "top": "x"}


@pytest.mark.parametrize("service", [
    {}, {"volumes": ["./d:/d"]}, {"volumes": [".:/all:ro"]}, {"volumes": ["${A}:/x"]},
    {"volumes": ["./conf:/c", "./top:/t"], "environment": {"A": "${A}", "B": None}, "networks": ["one", "two"]},
], ids=["nothing", "directory", "all", "variable", "much"])
def test_it_is_the_text_that_it_always_was(tmp_path, service):
    found = described(Device(tmp_path), {"web": {"image": "base", **service}}, FILES)
    assert found.fingerprint(found.services["web"]) == by_hand(found, found.services["web"])


def test_what_many_services_mount_is_gone_through_once(tmp_path, monkeypatch):
    services = {f"s{number}": {"image": "base", "volumes": ["./d:/d:ro"]} for number in range(20)}
    services["other"] = {"image": "base", "volumes": ["./conf:/d:ro"]}
    found = described(Device(tmp_path), services, FILES)
    calls, real = [], definition.Definition.files
    monkeypatch.setattr(definition.Definition, "files",
                        lambda self, service: (calls.append(service.name), real(self, service))[1])
    marks = {name: found.fingerprint(service) for name, service in found.services.items()}
    assert len(calls) == 2 and len(set(marks.values())) == 2
    # Nor is all of it kept, where services mount much that is not the same.
    monkeypatch.setattr(definition, "_LISTED", 0)
    found.members.listed.clear()
    assert {name: found.fingerprint(service) for name, service in found.services.items()} == marks
    assert len(found.members.listed) == 1
