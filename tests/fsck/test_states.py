# SPDX-License-Identifier: MIT
"""Each state that a power cut leaves: found, repaired, and dockerd works as if nothing had been."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fsck.stores import fingerprint, remove

pytestmark = [pytest.mark.root, pytest.mark.slow]

ONE, TWO, LOCAL = "app-one", "app-two", "app-local"
BASE, MIDDLE, TOP = ("base",), ("base", "middle"), ("base", "middle", "top-one")
OTHER, OTHER_TOP = ("other",), ("other", "other-top")


@dataclass
class Case:
    """A damage: ``hurt`` does it to a Device; ``gone`` are the containers that it costs, ``tags`` the images
    that are still there before anything is loaded again; ``dockerd`` tells to let a real one judge the outcome."""

    name: str
    state: str
    hurt: Callable
    gone: tuple = ()
    tags: tuple = ("one", "two", "local")
    store: bool = True
    dockerd: bool = True


def _empty(path):
    os.truncate(path, 0)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    state = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _link(device, *names):
    return device.root / "overlay2/l" / (device.cache(*names) / "link").read_text()


def _relink(path, target):
    remove(path)
    path.symlink_to(target)


def _leftovers(device):
    overlay = device.root / "overlay2"
    for name in ("a" * 64, "b" * 64):
        (overlay / name / "diff").mkdir(parents=True)
    (overlay / "l" / ("A" * 26)).symlink_to(f"../{'a' * 64}/diff")
    (overlay / "l" / ("Z" * 26)).symlink_to(f"../{'9' * 64}/diff")
    (device.layerdb / "tmp/write-set-123").mkdir(parents=True)
    (device.layerdb / "tmp/write-set-123/size").write_text("1")
    removing = device.layerdb / "sha256" / f"{'c' * 64}-123-removing"
    removing.mkdir()
    (removing / "cache-id").write_text("b" * 64)
    (device.root / "image/overlay2/.tmp-repositories.json123").write_text("{")


def _no_database(name):
    def hurt(device):
        path = device.root / name
        data = path.read_bytes()
        path.write_bytes(bytes(16384) + data[16384:])

    return hurt


def _options(device):
    (device.root / "volumes/data/opts.json").write_text("")


CASES = [
    Case("A-empty-file", "A", lambda d: _empty(d.cache(*MIDDLE) / "diff/opt/full/new")),
    Case("A-flipped-bit", "A", lambda d: _flip(d.cache(*BASE) / "diff/bin/busybox"), dockerd=False),
    Case("A-without-a-store", "A", lambda d: _empty(d.cache(*MIDDLE) / "diff/opt/full/new"), (ONE, TWO), ("local",),
         store=False),
    Case("A-in-what-no-store-has", "A", lambda d: _flip(d.cache(*OTHER_TOP) / "diff/etc/more"), (LOCAL,),
         ("one", "two")),
    *(Case(f"B-{field}-empty", "B", lambda d, field=field: _empty(d.layer(*MIDDLE) / field), dockerd=False)
      for field in ("diff", "size", "cache-id", "parent", "tar-split.json.gz")),
    *(Case(f"B-{field}-missing", "B", lambda d, field=field: (d.layer(*MIDDLE) / field).unlink(), dockerd=False)
      for field in ("parent", "tar-split.json.gz")),
    *(Case(f"B-{field}-of-what-no-store-has", "B", lambda d, field=field: _empty(d.layer(*OTHER_TOP) / field),
            dockerd=field == "diff")
      for field in ("diff", "cache-id")),
    Case("B-descriptor", "B", lambda d: (d.layer(*BASE) / "descriptor.json").write_text(""), dockerd=False),
    Case("C-directory-missing", "C", lambda d: shutil.rmtree(d.cache(*MIDDLE))),
    Case("C-of-what-no-store-has", "C", lambda d: shutil.rmtree(d.cache(*OTHER)), (LOCAL,), ("one", "two"),
         dockerd=False),
    Case("D-link-empty", "D", lambda d: _empty(d.cache(*BASE) / "link"), dockerd=False),
    Case("D-link-missing-on-both-sides", "D", lambda d: (_link(d, *OTHER).unlink(),
                                                         (d.cache(*OTHER) / "link").unlink())),
    Case("E-lower-missing", "E", lambda d: (d.cache(*TOP) / "lower").unlink(), dockerd=False),
    Case("E-lower-empty", "E", lambda d: _empty(d.cache(*OTHER_TOP) / "lower")),
    Case("E-containers-lower-empty", "E", lambda d: _empty(d.writable(LOCAL) / "lower")),
    Case("F-missing", "F", lambda d: _link(d, *MIDDLE).unlink()),
    Case("F-dangling", "F", lambda d: _relink(_link(d, *OTHER), f"../{'0' * 64}/diff"), dockerd=False),
    Case("F-wrong", "F", lambda d: _relink(_link(d, *OTHER), f"../{d.cache(*BASE).name}/diff"), dockerd=False),
    Case("F-a-directory", "F", lambda d: (_link(d, *BASE).unlink(), _link(d, *BASE).mkdir())),
    Case("G-parent-missing", "G", lambda d: shutil.rmtree(d.layer(*BASE))),
    Case("G-of-what-no-store-has", "G", lambda d: shutil.rmtree(d.layer(*OTHER)), (LOCAL,), ("one", "two"),
         dockerd=False),
    Case("H-layers-missing", "H", lambda d: [remove(path) for path in (
        d.writable(LOCAL), d.root / f"overlay2/{d.writable(LOCAL).name}-init", d.mount(LOCAL), d.container(LOCAL),
        d.cache(*OTHER_TOP), d.layer(*OTHER_TOP))], (LOCAL,), ("one", "two")),
    Case("I-config-empty", "I", lambda d: _empty(d.config("one"))),
    Case("I-of-what-no-store-has", "I", lambda d: _flip(d.config("local")), tags=("one", "two"), dockerd=False),
    Case("J-tags-empty", "J", lambda d: _empty(d.root / "image/overlay2/repositories.json")),
    Case("J-tags-cut", "J", lambda d: os.truncate(d.root / "image/overlay2/repositories.json", 40), dockerd=False),
    Case("K-memory", "K", lambda d: ((d.root / "image/overlay2/distribution/diffid-by-digest/sha256").mkdir(
        parents=True, exist_ok=True), (d.root / "image/overlay2/distribution/diffid-by-digest/sha256" / ("1" * 64))
        .write_text(""))),
    *(Case(f"L-{field}-empty", "L", lambda d, field=field: _empty(d.mount(LOCAL) / field), dockerd=False)
      for field in ("mount-id", "init-id", "parent")),
    Case("L-all-empty", "L", lambda d: [_empty(d.mount(ONE) / field) for field in ("mount-id", "init-id", "parent")]),
    Case("L-parent-missing", "L", lambda d: (d.mount(TWO) / "parent").unlink(), dockerd=False),
    Case("M-mount-missing", "M", lambda d: shutil.rmtree(d.mount(LOCAL))),
    Case("M-container-missing", "M", lambda d: shutil.rmtree(d.container(ONE)), (ONE,)),
    Case("M-configuration-empty", "M", lambda d: _empty(d.container(TWO) / "config.v2.json"), (TWO,)),
    Case("M-inner-layer-missing", "C", lambda d: shutil.rmtree(d.root / f"overlay2/{d.writable(LOCAL).name}-init")),
    Case("N-networks", "N", _no_database("network/files/local-kv.db")),
    Case("N-volumes", "N", _no_database("volumes/metadata.db")),
    Case("N-volume-options", "N", _options, dockerd=False),
    Case("N-build-cache", "N", _no_database("buildkit/cache.db")),
    Case("O-leftovers", "O", _leftovers),
]


def test_an_intact_store_is_clean(device):
    status, report = device.fsck()
    assert (status, report["findings"]) == (0, []), report
    assert report["layers"] == 6 and report["images"] == 3 and report["containers"] == 3 and report["verified"] == 6
    status, report = device.fsck()
    assert status == 0 and report["known"] == 6 and report["verified"] == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damage_is_repaired(case, device):
    case.hurt(device)
    volumes = fingerprint(device.root / "volumes/data/_data")
    before = fingerprint(device.root.parent)
    status, planned = device.fsck("--dry-run", store=case.store)
    assert status == 4 and planned["status"] == "damaged"
    assert fingerprint(device.root.parent) == before, "a dry run changed something"

    status, report = device.fsck(store=case.store)
    assert status == 10, report
    assert case.state in {finding["state"] for finding in report["findings"]}, report
    assert case.state in {finding["state"] for finding in planned["findings"]}, planned
    assert all(finding["done"] for finding in report["findings"])
    assert device.kept() == set(device.template.containers) - set(case.gone)
    assert fingerprint(device.root / "volumes/data/_data") == volumes
    again = device.fsck("--full", store=case.store)
    assert (again[0], again[1]["findings"]) == (0, []), "the second run found something"
    if case.dockerd:
        _check_with_dockerd(case, device, report)


def _check_with_dockerd(case, device, report):
    device.start()
    tags = {name for name, tag in device.template.tags.items() if _has(device, tag)}
    assert tags == set(case.tags), report
    for name in set(device.template.tags) - tags:
        device.load(name)
    for name, seen in device.template.dumps.items():
        assert device.dump(name) == seen, (name, report)
    for name in device.kept():
        # What the container wrote before is there, and it can go on.
        assert device.run(device.template.containers[name]).split()[-2:] == [name, name], name
    assert sorted(set(device.volume().split())) == [LOCAL, ONE, TWO]


def _has(device, tag):
    from composeapps.engine.client import Engine

    return Engine(device.daemon.host).image(tag) is not None
