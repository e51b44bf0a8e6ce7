# SPDX-License-Identifier: MIT
"""Healing a layer from its blob, held against what a real dockerd had unpacked."""

import gzip
import hashlib
import io
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composeapps.dockerstore import heal, layercheck, tarsplit
from composeapps.errors import ComposeAppsError
from fsck.layerstore import LayerStore
from fsck.test_tarsplit import ALL, BASE, DAMAGES, ODD, SPARSE_00, TWICE, UPPER
from support import layertars

pytestmark = pytest.mark.root
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


def mend(layer, blob=None, **options):
    """Heal a layer; it must be durable, whole and without leftovers afterwards."""
    healed = heal.heal_layer(blob or layer.blob(), layer.diff_id, layer.tar_split, layer.diff, **options)
    assert layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id) is None
    assert set(os.listdir(layer.cache)) <= {"diff", "link", "lower", "work", "committed"}
    assert not [name for name in os.listdir(layer.metadata) if "tmp" in name]
    return healed


@pytest.mark.parametrize("number", ALL)
def test_what_is_whole_is_left_alone(copied, number):
    layer = copied(number)
    before = {path: (path.lstat().st_ino, path.lstat().st_ctime_ns) for path in layer.diff.rglob("*")}
    written = layer.tar_split.stat().st_ino
    if number == TWICE:
        # Which of two entries of one path counts shows only at the end.
        assert mend(layer).count == 0
        return
    assert mend(layer) == heal.Healed()
    assert {path: (path.lstat().st_ino, path.lstat().st_ctime_ns) for path in layer.diff.rglob("*")} == before
    assert layer.tar_split.stat().st_ino == written


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_healed_and_nothing_else_touched(copied, damage):
    number, name, hurt, _kind = DAMAGES[damage]
    layer = copied(number)
    before = layer.state()
    inodes = {path: path.lstat().st_ino for path in layer.diff.rglob("*")}
    hurt(layer.diff / name)
    assert layer.state() != before
    healed = mend(layer)
    assert layer.state() == before
    touched = {path for path, inode in inodes.items() if path.lstat().st_ino != inode}
    allowed = {layer.diff / name, layer.diff / "bin/same", layer.diff / "deep/hard"}
    assert all(path in allowed or (layer.diff / name) in path.parents for path in touched)
    assert 1 <= healed.count <= 4 and not healed.tar_split
    assert mend(layer).count == 0


def test_a_changed_byte_is_healed(copied):
    layer = copied(BASE)
    before = layer.state()
    for name, at in (("bin/tool", 290_000), ("etc/text", 0)):
        found = (layer.diff / name).stat()
        with open(layer.diff / name, "r+b") as stream:
            stream.seek(at)
            stream.write(b"\xff")
        os.utime(layer.diff / name, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert layercheck.stat_problems(layer.tar_split, layer.diff) == []
    assert set(mend(layer).names) == {b"bin/tool", b"bin/same", b"etc/text"}
    assert layer.state() == before


@pytest.mark.parametrize("number", ALL)
def test_an_empty_directory_is_filled(copied, number):
    layer = copied(number)
    before = layer.state()
    shutil.rmtree(layer.diff)
    layer.diff.mkdir(0o755)
    healed = mend(layer)
    # All but a directory's time, where no entry gives it.
    assert layer.state() == before
    assert healed.count >= 1 and not healed.tar_split


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("left", [None, b"", b"\0" * 5000])
def test_a_tar_split_is_made_as_dockerd_makes_it(copied, number, left):
    layer = copied(number)
    before, mode = gzip.decompress(layer.tar_split.read_bytes()), layer.tar_split.stat().st_mode
    layer.tar_split.unlink()
    if left is not None:
        layer.tar_split.write_bytes(left)
    assert mend(layer).tar_split
    assert layer.tar_split.stat().st_mode == mode
    made = gzip.decompress(layer.tar_split.read_bytes())
    if number == ODD:
        # The padding at the end comes in other pieces.
        assert made.split(b"\n")[:-3] == before.split(b"\n")[:len(made.split(b"\n")) - 3]
    else:
        assert made == before
    layer.tar_split.write_bytes(b"")
    heal.rebuild_tar_split(layer.blob(), layer.diff_id, layer.tar_split)
    assert gzip.decompress(layer.tar_split.read_bytes()) == made


def test_the_tar_split_of_another_layer_is_replaced(copied):
    layer, other = copied(BASE), copied(UPPER)
    shutil.copyfile(other.tar_split, layer.tar_split)
    assert mend(layer).tar_split


def test_wrong_things_in_the_way(copied):
    layer = copied(BASE)
    before = layer.state(times=False)
    diff = layer.diff
    (diff / "bin/tool").unlink()
    deep = diff / "bin/tool"
    for _level in range(300):
        deep.mkdir()
        (deep / "file").write_bytes(b"in the way")
        deep = deep / "d"
    shutil.rmtree(diff / "etc")
    (diff / "etc").write_bytes(b"a file where a directory belongs")
    (diff / "bin/alias").unlink()
    (diff / "bin/alias").mkdir()
    shutil.rmtree(diff / "long")
    os.mkfifo(diff / "long")
    mend(layer)
    assert layer.state(times=False) == before


def test_nothing_outside_the_layer_is_written(copied, tmp_path):
    layer = copied(BASE)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "text").write_bytes(b"mine")
    before = outside.stat().st_mtime_ns, os.listdir(outside)
    shutil.rmtree(layer.diff / "etc")
    (layer.diff / "etc").symlink_to(outside)
    shutil.rmtree(layer.diff / "dev")
    (layer.diff / "dev").symlink_to("../../../outside")
    (layer.diff / "bin/tool").unlink()
    (layer.diff / "bin/tool").symlink_to(outside / "text")
    (layer.diff / "umlaut").rename(layer.diff / "not-umlaut")
    (layer.diff / "umlaut").symlink_to("umlaut")
    mend(layer)
    assert (outside.stat().st_mtime_ns, os.listdir(outside)) == before
    assert (outside / "text").read_bytes() == b"mine"
    assert not [path for path in layer.diff.iterdir() if path.is_symlink()]


def unchanged(layer, blob, message):
    """Healing with ``blob`` must fail with ``message`` and change nothing."""
    os.truncate(layer.diff / "bin/tool", 0)
    before, inode = layer.state(), layer.tar_split.stat().st_ino
    with pytest.raises(heal.NotHealableError, match=message):
        heal.heal_layer(blob, layer.diff_id, layer.tar_split, layer.diff)
    assert layer.state() == before and layer.tar_split.stat().st_ino == inode
    with pytest.raises(heal.NotHealableError, match=message):
        heal.rebuild_tar_split(blob, layer.diff_id, layer.tar_split)
    assert layer.tar_split.stat().st_ino == inode


def test_the_blob_of_another_layer_changes_nothing(copied):
    unchanged(copied(BASE), io.BytesIO(gzip.compress(layertars.upper_layer())), "has the diff id")


def test_a_damaged_blob_changes_nothing(copied):
    layer = copied(BASE)
    data = bytearray(layer.blob().getvalue())
    unchanged(layer, io.BytesIO(data[:len(data) // 2]), "truncated")
    data[len(data) // 2] ^= 1
    unchanged(layer, io.BytesIO(data), "cannot be decompressed|cannot be read|diff id")
    unchanged(layer, io.BytesIO(b""), "diff id")
    changed = bytearray(layer.tar)
    changed[2000] ^= 1
    unchanged(layer, io.BytesIO(changed), "cannot be read|diff id")
    unchanged(layer, io.BytesIO(layer.tar[:-1024]), "diff id")
    unchanged(layer, io.BytesIO(b"BZh91AY"), "bzip2")


def test_blobs_that_are_not_compressed_or_in_pieces(copied):
    layer = copied(BASE)
    for blob in (layer.tar, gzip.compress(layer.tar[:7000]) + gzip.compress(layer.tar[7000:])):
        os.truncate(layer.diff / "bin/tool", 0)
        assert mend(layer, io.BytesIO(blob)).count == 2


def test_zstd(copied):
    layer = copied(BASE)
    os.truncate(layer.diff / "bin/tool", 0)
    # Frames of raw blocks, of at most 128 KiB each, after a frame to be skipped (RFC 8878).
    blob = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    for start in range(0, len(layer.tar), 200_000):
        part = layer.tar[start:start + 200_000]
        blob += b"\x28\xb5\x2f\xfd\xa0" + len(part).to_bytes(4, "little")
        for at in range(0, len(part), 100_000):
            piece = part[at:at + 100_000]
            blob += (len(piece) << 3 | (at + 100_000 >= len(part))).to_bytes(3, "little") + piece
    try:
        import compression.zstd  # noqa: F401
    except ImportError:
        unchanged(layer, io.BytesIO(blob), "zstd, which this Python cannot read")
    else:
        assert mend(layer, io.BytesIO(blob)).count == 2


def test_a_remapped_layer(copied):
    layer = copied(BASE)
    shutil.rmtree(layer.diff)
    layer.diff.mkdir()
    mend(layer, id_offset=(100_000, 200_000))
    found = (layer.diff / "etc/text").stat()
    assert (found.st_uid, found.st_gid) == (101_000, 201_001)
    assert layercheck.stat_problems(layer.tar_split, layer.diff, id_offset=(100_000, 200_000)) == []


def test_a_tick_that_raises_ends_it(copied):
    layer = copied(BASE)

    class EnoughError(Exception):
        pass

    def tick(_amount):
        raise EnoughError

    for check in (lambda: tarsplit.diff_id(layer.tar_split, layer.diff, tick),
                  lambda: layercheck.stat_problems(layer.tar_split, layer.diff, tick=tick),
                  lambda: layercheck.bad_files(layer.tar_split, layer.diff, tick=tick),
                  lambda: mend(layer, tick=tick)):
        with pytest.raises(EnoughError):
            check()
    (layer.diff / "bin/tool").write_bytes(b"")
    assert mend(layer).count == 2


KILLED = """
import os, signal, sys
from composeapps.dockerstore import heal

blob, diff_id, tar_split, diff, left = sys.argv[1:]
left = int(left)
CHANGES = ("os.rename", "os.link", "os.mkdir", "os.chmod", "os.chown", "os.setxattr", "os.utime", "os.symlink",
           "os.remove", "os.rmdir", "open")

def hook(event, arguments):
    global left
    if event in CHANGES and (event != "open" or arguments[2] & (os.O_CREAT | os.O_WRONLY)):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

with open(blob, "rb") as stream:
    sys.addaudithook(hook)
    heal.heal_layer(stream, diff_id, tar_split, diff)
"""


def wreck(layer):
    """Damage a layer in many ways at once; return the paths that stay whole."""
    diff = layer.diff
    os.truncate(diff / "bin/tool", 0)
    (diff / "etc/text").unlink()
    shutil.rmtree(diff / "dev")
    (diff / "tmp").chmod(0o700)
    (diff / "bin/alias").unlink()
    (diff / "bin/alias").mkdir()
    layer.tar_split.write_bytes(b"")
    return [diff / "bin/raw", diff / "etc/old", diff / "far", diff / layertars.LONG]


@pytest.mark.parametrize("after", [0, 1, 2, 4, 7, 12, 18, 25, 33, 42])
def test_killed_at_any_step_and_run_again(copied, tmp_path, after):
    layer = copied(BASE)
    before = layer.state(times=False)
    whole = {path: (path.lstat().st_ino, path.read_bytes()) for path in wreck(layer)}
    blob = tmp_path / "blob"
    blob.write_bytes(layer.blob().getvalue())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, blob, layer.diff_id, layer.tar_split, layer.diff, str(after)], check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path: (path.lstat().st_ino, path.read_bytes()) for path in whole} == whole
    assert not [path for path in layer.diff.rglob("*") if "composeapps" in path.name]
    mend(layer)
    assert layer.state(times=False) == before
    assert not heal.remove_leftovers(layer.diff)


def test_leftovers_go_even_when_nothing_is_to_be_healed(copied):
    layer = copied(BASE)
    left = layer.cache / "composeapps-heal"
    (left / "7/deep").mkdir(parents=True)
    (left / "7/deep/file").write_bytes(b"x")
    assert layercheck.extra_files(layer.tar_split, layer.diff) == []
    assert heal.remove_leftovers(layer.diff) and not left.exists()
    assert not heal.remove_leftovers(layer.diff)


def _random_damage(choose, layer):
    files = sorted(path for path in layer.diff.rglob("*") if path.exists() or path.is_symlink())
    if not files:
        return
    path = choose.choice(files)
    kind = choose.choice(["remove", "truncate", "byte", "mode", "owner", "replace", "attributes", "zeros"])
    regular = path.is_file() and not path.is_symlink()
    if kind == "remove":
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif kind == "truncate" and regular:
        os.truncate(path, choose.randint(0, path.stat().st_size))
    elif kind == "zeros" and regular:
        path.write_bytes(bytes(path.stat().st_size))
    elif kind == "byte" and regular and path.stat().st_size:
        with open(path, "r+b") as stream:
            stream.seek(choose.randrange(path.stat().st_size))
            stream.write(b"\xa5")
    elif kind in ("mode", "owner") and str(path.relative_to(layer.diff)) not in layer.named():
        # Nothing tells the mode and the owner of a directory without an entry.
        return
    elif kind == "mode" and not path.is_symlink():
        path.chmod(choose.randrange(0o10000))
    elif kind == "owner":
        os.chown(path, 1, 2, follow_symlinks=False)
    elif kind == "replace" and not path.is_dir():
        path.unlink()
        choose.choice([lambda: path.symlink_to("/etc"), lambda: os.mkfifo(path), path.mkdir,
                       lambda: os.mknod(path, stat.S_IFCHR, 0), lambda: path.write_bytes(b"other")])()
    elif kind == "attributes" and not path.is_symlink():
        for name in os.listxattr(path):
            os.removexattr(path, name)


@settings(SLOW, max_examples=20)
@given(number=st.sampled_from([BASE, UPPER, SPARSE_00]), seed=st.integers(0, 1 << 32), times=st.integers(1, 6))
def test_any_damage_is_healed_and_nothing_made_worse(layerstore, memory_disk, number, seed, times):
    kept = layerstore.layers[number]
    place = Path(tempfile.mkdtemp(dir=memory_disk))
    layer = kept.copy(place)
    choose = random.Random(seed)
    for _time in range(times):
        _random_damage(choose, layer)
    mend(layer)
    assert layercheck.stat_problems(layer.tar_split, layer.diff) == []
    assert layer.state(times=False) == kept.state(times=False)
    shutil.rmtree(place)


@settings(SLOW, max_examples=60)
@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_in_place_of_a_blob(layerstore, data, packed):
    layer = layerstore.layers[BASE]
    with pytest.raises(ComposeAppsError):
        heal.heal_layer(io.BytesIO(gzip.compress(data) if packed else data), layer.diff_id, layer.tar_split, layer.diff)


def test_dockerd_itself_puts_a_healed_layer_together(device_root, tmp_path):
    tars = [layertars.base_layer(), layertars.upper_layer(), layertars.odd_layer()]
    store = LayerStore(device_root, tmp_path / "root", tars)
    wanted = [layer.diff_id for layer in store.layers]
    for layer in store.layers:
        shutil.rmtree(layer.diff)
        layer.diff.mkdir()
        layer.tar_split.unlink()
        mend(layer)
    assert store.saved() == wanted


def test_memory_is_bounded(memory_disk):
    """A layer with one file of 48 MB, whose tar-split is made as well, in less memory than that."""
    place = Path(tempfile.mkdtemp(dir=memory_disk))
    data = layertars.noise(1 << 20) * 48
    made = layertars.archive([layertars.entry("large", data=data)])
    blob = place / "blob"
    blob.write_bytes(made)
    (place / "cache/diff").mkdir(parents=True)
    # The high-water mark of this program alone, and not of the one that started it.
    script = ("import sys\n"
              "from pathlib import Path\n"
              "from composeapps.dockerstore import heal\n"
              "with open(sys.argv[1], 'rb') as stream:\n"
              "    heal.heal_layer(stream, *sys.argv[2:])\n"
              "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n")
    done = subprocess.run(
        [sys.executable, "-c", script, blob, "sha256:" + hashlib.sha256(made).hexdigest(),
         place / "tar-split.json.gz", place / "cache/diff"], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert int(done.stdout) < 40 * 1024
    assert (place / "cache/diff/large").stat().st_size == len(data)

