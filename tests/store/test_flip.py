# SPDX-License-Identifier: MIT
"""One wrong byte anywhere in a store: it is found, and mended without touching what is right."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from composeapps.cli.main import main
from composeapps.oci.reference import parse_pinned
from composeapps.records.state import AppState, StateDirectory
from composeapps.store.preload import copy_app
from composeapps.store.restore import from_factory
from composeapps.store.store import Store
from support import apps, stores
from support.images import multi_platform, push_image


@pytest.fixture
def device(memory, registry, factory_name, monkeypatch):
    """A device, and an app in the registry."""
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    options = ["--store", str(memory / "store"), "--state-dir", str(memory / "state"), "--compose-root",
               str(memory / "compose"), "--docker-host", f"unix://{memory}/none.sock"]
    images = {name: multi_platform(f"{name} {factory_name}") for name in ("front", "back")}
    pinned = {name: push_image(registry, f"{registry.host}/{factory_name}/{name}:1", image)
              for name, image in images.items()}
    compose = apps.compose_text(pinned)
    app = apps.make_app(compose, {"site.conf": factory_name}, images.values())
    uri = apps.push_app(registry, f"{registry.host}/{factory_name}/shop:1", app)

    def theirs():
        # The host that a uri names is nowhere else in their store; of an installed app the agent knows it.
        StateDirectory(memory / "state").put("shop", AppState(uri))
        return stores.write(memory / "store", uri.partition("@")[0], app,
                            {pinned[name]: image for name, image in images.items()}, compose=compose)

    return SimpleNamespace(run=lambda *argv: main([*options, *argv]), uri=uri, root=memory / "store", theirs=theirs,
                           store=Store(memory / "store"), factory=Store(memory / "factory"))


def _flips(root, places):
    """Yield (path, place) for every file, each hard-linked one once."""
    seen = set()
    for name, (inode, _time, _content) in stores.files(root).items():
        if inode not in seen:
            seen.add(inode)
            yield from ((root / name, place) for place in places)


def _flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x01
    status = path.stat()
    path.write_bytes(data)
    # As a medium that decays leaves it: nothing tells of it.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _hold(device, capsys, heal, places=(0, 0.5, 1)):
    """Flip a byte of each file at each place, 0 the first and 1 the last, and return how many were flipped.

    Each must be found, named and mended by ``heal``, and no other file touched.
    """
    count = 0
    for path, place in _flips(device.root, places):
        before = stores.files(device.root)
        inode = path.stat().st_ino
        _flip(path, place)
        capsys.readouterr()
        assert device.run("check", "--store-only", "--json") == 4, f"{path} at {place}"
        found = [result for result in json.loads(capsys.readouterr().out) if result["problems"]]
        names = [device.root / name for name, (number, _time, _content) in before.items() if number == inode]
        names = [name.name if name.parent == device.store.blobs else str(name) for name in names]
        assert len(found) == 1 and any(name in json.dumps(found) for name in names), f"{path} at {place}: {found}"
        heal()
        capsys.readouterr()
        assert device.run("check", "--store-only") == 0, capsys.readouterr().out
        after = stores.files(device.root)
        # What composectl wrote in words of its own is written in ours, and two files besides.
        same = {name for name in before if not name.endswith(".json") or "/images/" not in name}
        assert {name: after[name][2] for name in same} == {name: before[name][2] for name in same}, f"{path} at {place}"
        assert {Path(name).name for name in set(after) - set(before)} <= {"oci-layout", "uri.sha256"}
        untouched = {name for name, (number, _t, _c) in before.items() if number != inode}
        assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
        count += 1
    return count


def test_any_wrong_byte_is_found_and_mended_by_pull(device, capsys):
    assert device.run("pull", device.uri) == 0
    # 12 blobs, 7 files that are no links.
    assert _hold(device, capsys, lambda: device.run("pull", device.uri)) >= 50


def test_any_wrong_byte_in_a_store_of_composectl_is_found_and_mended_by_pull(device, capsys):
    assert device.theirs() == device.uri
    assert _hold(device, capsys, lambda: device.run("pull", device.uri), [0.7]) >= 16


def test_any_wrong_byte_is_mended_from_the_factory_store(device, capsys):
    device.theirs()
    copy_app(device.store, device.factory, parse_pinned(device.uri))
    assert _hold(device, capsys, lambda: from_factory(device.store, device.factory.root, device.uri), [0, 0.3]) >= 32


def test_a_wrong_byte_in_a_blob_that_no_app_needs_here_is_found_and_pruned(device, capsys):
    device.run("pull", device.uri)
    stray = device.store.blobs / ("a" * 64)
    stray.write_bytes(b"not that")
    assert device.run("check") == 4
    assert "'composeapps prune' removes it" in capsys.readouterr().out
    # Checking one app says nothing of what it does not need.
    assert device.run("check", "shop") == 0
    device.run("prune", "--keep", device.uri)
    assert not stray.exists() and device.run("check") == 0
