# SPDX-License-Identifier: MIT
"""Random damage: fsck neither crashes nor hangs, stays below its root, and what was intact stays intact.

FSCK_FUZZ=5000 (and FSCK_SEED=1000 to begin there) runs more than the usual eighty:

    FSCK_FUZZ=5000 scripts/test tests/fsck/test_fuzz.py

A failure names its seed; FSCK_FUZZ=1 FSCK_SEED=<it> repeats that one.
"""

import os
import random
import shutil
import socket
import subprocess

import pytest

from fsck import trials
from fsck.stores import IMAGES, fingerprint, remove

pytestmark = pytest.mark.root

COUNT = int(os.environ.get("FSCK_FUZZ", "80"))
FIRST = int(os.environ.get("FSCK_SEED", "1"))
OWN = ("composeapps-fsck", "lost+fsck")


class Vandal:
    """Damages a data root at random; ``touched`` are the paths that it damaged, relative to the data root."""

    def __init__(self, root, outside, seed):
        self.root, self.outside, self.random = root, outside, random.Random(seed)
        self.touched = set()
        self._paths = sorted(path for path in root.rglob("*"))
        # The interesting ones are small and few; the files in layers are many.
        self._metadata = [path for path in self._paths if "diff/" not in str(path) and "_data/" not in str(path)]

    def strike(self):
        """Do one to five kinds of damage."""
        for _ in range(self.random.randint(1, 5)):
            path = self.random.choice(self._metadata if self.random.random() < 0.8 else self._paths)
            if not os.path.lexists(path) or path.parent.resolve() != path.parent:
                continue
            kind = self.random.choice([self._cut, self._flip, self._zero, self._delete, self._retype, self._swap,
                                       self._invent, self._forbid, self._copy])
            self.touched.add(str(path.relative_to(self.root)))
            kind(path)

    def _cut(self, path):
        if path.is_file() and not path.is_symlink():
            size = path.stat().st_size
            os.truncate(path, self.random.choice([0, size // 2, max(size - 1, 0), size + 1, 1 << 36]))

    def _flip(self, path):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            data = bytearray(path.read_bytes())
            for _ in range(self.random.randint(1, 20)):
                data[self.random.randrange(len(data))] = self.random.randrange(256)
            path.write_bytes(data)

    def _zero(self, path):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(bytes(path.stat().st_size))

    def _delete(self, path):
        remove(path)

    def _retype(self, path):
        remove(path)
        kind = self.random.randrange(7)
        if kind == 0:
            path.mkdir()
        elif kind == 1:
            path.symlink_to(self.outside)
        elif kind == 2:
            path.symlink_to(path.name)
        elif kind == 3:
            os.mkfifo(path)
        elif kind == 4:
            os.link(self.outside / "file", path) if os.stat(self.outside).st_dev == os.stat(
                path.parent).st_dev else path.write_bytes(b"[" * 100_000)
        elif kind == 5:
            deep = path
            for _ in range(60):
                deep.mkdir()
                deep = deep / "d"
            deep.symlink_to(self.outside)
        else:
            os.mknod(path, 0o20666, os.makedev(1, 9))

    def _swap(self, path):
        other = self.random.choice(self._metadata)
        if os.path.lexists(other) and other.parent == path.parent and other != path:
            self.touched.add(str(other.relative_to(self.root)))
            spare = path.with_name("spare")
            path.rename(spare)
            other.rename(path)
            spare.rename(other)

    def _invent(self, path):
        place = path if path.is_dir() and not path.is_symlink() else path.parent
        name = self.random.choice([b"\xff\n\x1b[31m", b"a" * 255, b"0" * 64, b"sha256", b".tmp-1", b"-init",
                                   b"f" * 64 + b"-init", b"e" * 64 + b"-1-removing", b"l"])
        new = os.path.join(os.fsencode(place), name)
        if not os.path.lexists(new):
            self.touched.add(os.path.relpath(os.fsdecode(new), self.root))
            self.touched.discard(str(path.relative_to(self.root)))
            if self.random.random() < 0.5:
                os.mkdir(new)
            else:
                os.symlink(self.outside, new)

    def _forbid(self, path):
        if not path.is_symlink():
            path.chmod(0)

    def _copy(self, path):
        """Give a file the content of another one of the same name: two layers with one cache id, for example."""
        others = [other for other in self._metadata if other.name == path.name and other != path and other.is_file()]
        if others and path.is_file() and not path.is_symlink():
            shutil.copyfile(self.random.choice(others), path)


def _things(device):
    """Return {name: paths relative to the data root of which all that lies there makes the thing up}."""
    base = "image/overlay2/layerdb"
    found = {}
    for names in IMAGES.values():
        paths = []
        for count in range(1, len(names) + 1):
            cache, chain = device.cache(*names[:count]), device.chain(*names[:count])
            link = (cache / "link").read_text()
            paths = [*paths, f"{base}/sha256/{chain}", f"overlay2/{cache.name}", f"overlay2/l/{link}"]
            found["layer", names[:count]] = paths
    for name, names in IMAGES.items():
        config = device.config(name)
        found["image", name] = [*found["layer", names], str(config.relative_to(device.root)),
                                str(config.relative_to(device.root)).replace("/content/", "/metadata/")]
    for name, image in (("app-one", "one"), ("app-two", "two"), ("app-local", "local")):
        writable = device.writable(name).name
        links = [(device.root / "overlay2" / each / "link").read_text() for each in (writable, f"{writable}-init")]
        found["container", name] = [
            *found["layer", IMAGES[image]], f"overlay2/{writable}", f"overlay2/{writable}-init",
            *(f"overlay2/l/{link}" for link in links), f"containers/{device.template.containers[name]}",
            f"{base}/mounts/{device.template.containers[name]}"]
    return found


def _hurt(paths, touched):
    return any(one == other or one.startswith(other + "/") or other.startswith(one + "/")
               for one in paths for other in touched)


def _state(root, paths):
    found = {}
    for path in paths:
        whole = root / path
        if whole.is_dir() and not whole.is_symlink():
            found[path] = fingerprint(whole)
        elif os.path.lexists(whole):
            found[path] = os.readlink(whole) if whole.is_symlink() else whole.read_bytes()
    return found


def test_random_damage(device):
    outside = device.root.parent / "outside"
    (outside / "sub").mkdir(parents=True)
    for name in ("file", "sub/other"):
        (outside / name).write_text("not dockerd's\n")
    things = _things(device)
    whole = {name: _state(device.root, paths) for name, paths in things.items()}
    intact = device.root.parent / "intact"
    os.rename(device.root, intact)
    sentinel = fingerprint(outside)
    ends = []
    for seed in range(FIRST, FIRST + COUNT):
        shutil.rmtree(device.root, ignore_errors=True)
        subprocess.run(["cp", "-a", intact, device.root], check=True)
        vandal = Vandal(device.root, outside, seed)
        vandal.strike()
        unhurt = {name for name, paths in things.items() if not _hurt(paths, vandal.touched)}
        volume = _state(device.root, ["volumes/data/_data"])
        home = device.store if seed % 2 else None
        told = f"seed {seed}, damaged {sorted(vandal.touched)}"

        status, report, _ = trials.run(device.root, home)
        ends.append(status)
        assert status in (0, 4, 7, 10), (told, status, report)
        assert fingerprint(outside) == sentinel, told
        if "volumes" not in vandal.touched:
            assert _state(device.root, ["volumes/data/_data"]) == volume, told
        for name in unhurt:
            assert _state(device.root, things[name]) == whole[name], (told, name, report)
        if status == 10:
            again, second, _ = trials.run(device.root, home, full=True)
            assert (again, second["findings"]) == (0, []), (told, report, second)
    assert 10 in ends or COUNT < 50


def test_other_kinds_of_files_are_not_opened(device):
    """A FIFO would block for ever, a device may do anything when it is opened."""
    layer = device.layer("base")
    for name in ("diff", "tar-split.json.gz"):
        (layer / name).unlink()
    os.mkfifo(layer / "diff")
    os.mknod(layer / "tar-split.json.gz", 0o20600, os.makedev(10, 130))
    repositories = device.root / "image/overlay2/repositories.json"
    repositories.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(repositories))
    os.truncate(device.config("one"), 1 << 40)
    status, report, _ = trials.run(device.root, device.store)
    assert status == 10, report


def test_a_store_behind_a_symbolic_link_is_refused(device):
    elsewhere = device.root.parent / "elsewhere"
    os.rename(device.root / "overlay2", elsewhere)
    (device.root / "overlay2").symlink_to(elsewhere)
    before = fingerprint(device.root.parent)
    status, text, _ = trials.run(device.root, device.store)
    assert status == 7 and "overlay2 is a symbolic link" in text
    assert fingerprint(device.root.parent) == before
