# SPDX-License-Identifier: MIT
"""One odd app, or what only looks like one, stops nothing for the others."""

import json
import os

import pytest

from composeapps.oci.reference import parse_pinned
from support.updating import service

pytestmark = pytest.mark.root

HEX = "5" * 64


def _state(device):
    apps = device.states.root / "apps"
    (apps / "odd.json").write_bytes(b"\xff\x00")
    (apps / "a b.json").write_text("{}")
    (apps / "%2e%2e%2f.json").write_text("{}")
    (apps / "dir.json").mkdir()
    (apps / "loop.json").symlink_to("loop.json")
    os.mkfifo(apps / "pipe.json")


def _journals(device):
    updates = device.states.root / "updates"
    updates.mkdir(exist_ok=True)
    (updates / "odd.json").write_bytes(b"[" * 10000)
    (updates / "dir.json").mkdir()
    (updates / "A B.json").write_text("{}")
    (updates / "other.json").write_text(json.dumps({"app": "else", "source": "", "target": "x", "step": "switching"}))


def _removals(device):
    removed = device.states.root / "removed"
    removed.mkdir(exist_ok=True)
    (removed / "gone.json").write_bytes(b"")
    (removed / "dir.json").mkdir()
    (removed / "..json").write_text("{}")


def _store(device):
    apps = device.store.apps
    (apps / "file").write_text("")
    (apps / os.fsdecode(b"\xff\xfe")).mkdir()
    for name, uri in (("binary", b"\xff"), ("empty", b""), ("liar", b"hub.demo.test/x/else@sha256:" + b"1" * 64)):
        place = apps / name / HEX
        place.mkdir(parents=True)
        (place / "uri").write_bytes(uri)
    (apps / "dir" / HEX / "uri").mkdir(parents=True)
    (apps / "link").symlink_to(apps)
    (apps / "deep").mkdir()
    (apps / "deep" / "er").symlink_to("er")
    (device.store.blobs / ("6" * 64)).mkdir()
    (device.store.blobs / os.fsdecode(b"\xff")).write_text("")
    (device.store.ingest / "dir.part").mkdir(parents=True)


def _bundles(device):
    device.compose_root.mkdir(exist_ok=True)
    (device.compose_root / "file").write_text("")
    (device.compose_root / os.fsdecode(b"\xff")).mkdir()
    (device.compose_root / "odd").mkdir()
    (device.compose_root / "odd" / "docker-compose.yml").write_text("a: [")


def _damaged(device, ref):
    """An installed app of which nothing can be read."""
    for path in device.store.app_dir(ref).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    device.store.blob_path(ref.digest).write_bytes(b"")


@pytest.mark.parametrize("kind", [_state, _journals, _removals, _store, _bundles, _damaged])
def test_commands_for_the_others_do_their_work(device, run, name, publisher, registry, kind, monkeypatch, free_port):
    one, two, odd = (publisher.version(f"{name}{number}", {"web": service(number)}) for number in "123")
    for uri in (one, two, odd):
        assert run("update", uri)[0] == 0
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")
    monkeypatch.setattr("composeapps.pull.pull.TRIES", 1)
    kind(device, *((parse_pinned(odd),) if kind is _damaged else ()))
    for number in "12":
        for found in device.containers(name + number).values():
            device.engine.stop(found[0]["Id"])
    for words in (("run", "--factory", "--installed"), ("status",), ("ps",), ("check",), ("ls",), ("history",),
                  ("prune", "--dry-run"), ("prune",), ("update",)):
        status, out, err = run(*words)
        assert "Traceback" not in err and status in (0, 3, 4, 8), (words, err)
        for number, uri in (("1", one), ("2", two)):
            assert words[0] in ("history", "prune", "update", "run") or name + number in out, (words, out, err)
            assert device.problems(name + number, uri) == [], words
    status, _, err = run("rm", name + "1")
    assert status in (0, 4), err
    assert not device.containers(name + "1") and device.installed(name + "1") is None
    assert device.problems(name + "2", two) == []
