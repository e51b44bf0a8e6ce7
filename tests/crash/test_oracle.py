# SPDX-License-Identifier: MIT
"""The harness's eyes: a data root made by hand, damaged in each way that a power cut can, and what is seen of it."""

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile

import pytest

from crash import layers, trees, verdicts
from crash.dockertree import DockerTree, chain_ids
from crash.verdicts import Outcome


def _sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _tar_split(data):
    """The lines of tar-split: each file's header and padding as pieces, the content left out."""
    entries, end = [], 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            entries.append({"type": 2, "payload": base64.b64encode(data[end:member.offset_data]).decode()})
            end = member.offset_data
            name = {"name": member.name} if member.name.isascii() else {
                "name_raw": base64.b64encode(os.fsencode(member.name)).decode()}
            entries.append({"type": 1, "size": member.size, "payload": "AAAAAAAAAAA=", **name})
            end += member.size
    entries.append({"type": 2, "payload": base64.b64encode(data[end:]).decode()})
    lines = [json.dumps({**entry, "position": number}) for number, entry in enumerate(entries)]
    return gzip.compress("\n".join(lines).encode() + b"\n")


FILES = [{"bin/sh": b"shell" * 900, "etc/empty": b""}, {"srv/large": b"x" * 70000, "srv/grün": b"green"}]


@pytest.fixture
def store(tmp_path):
    """A data root with one image of two layers, and a container; returns (root, chains, ID of the image)."""
    root, links = tmp_path / "docker", []
    archives = [_tar(files) for files in FILES]
    chains = chain_ids([_sha(data) for data in archives])
    (root / "overlay2/l").mkdir(parents=True)
    for number, (files, data, chain) in enumerate(zip(FILES, archives, chains, strict=True)):
        cache, link = f"cache{number}" + "0" * 58, f"LINK{number}".ljust(26, "A")
        home = root / "overlay2" / cache
        for name, content in files.items():
            (home / "diff" / name).parent.mkdir(parents=True, exist_ok=True)
            (home / "diff" / name).write_bytes(content)
        (home / "link").write_text(link)
        (root / "overlay2/l" / link).symlink_to(f"../{cache}/diff")
        if links:
            (home / "lower").write_text(":".join(f"l/{each}" for each in reversed(links)))
        links.append(link)
        layer = root / "image/overlay2/layerdb/sha256" / chain.partition(":")[2]
        layer.mkdir(parents=True)
        for name, text in {"diff": _sha(data), "cache-id": cache, "size": "1"}.items():
            (layer / name).write_text(text)
        if number:
            (layer / "parent").write_text(chains[number - 1])
        (layer / "tar-split.json.gz").write_bytes(_tar_split(data))
    config = json.dumps({"rootfs": {"diff_ids": [_sha(data) for data in archives]}}).encode()
    content = root / "image/overlay2/imagedb/content/sha256"
    content.mkdir(parents=True)
    (content / _sha(config).partition(":")[2]).write_bytes(config)
    (root / "image/overlay2/repositories.json").write_text("{}")
    return root, chains, _sha(config)


def _seen(root):
    tree = DockerTree(root)
    return {problem.state for problem in (*tree.problems, *tree.content_problems())}, tree


def test_whole_store_has_no_problems(store):
    root, chains, image = store
    states, tree = _seen(root)
    assert states == set()
    assert tree.images == {image: chains}


def _layerdb(root, chain):
    return root / "image/overlay2/layerdb/sha256" / chain.partition(":")[2]


def _mount(root, **fields):
    home = root / "image/overlay2/layerdb/mounts/container"
    home.mkdir(parents=True)
    for name, text in fields.items():
        (home / name.replace("_", "-")).write_text(text)
    container = root / "containers/container"
    container.mkdir(parents=True)
    for name in ("config.v2.json", "hostconfig.json"):
        (container / name).write_text("{}")


DAMAGE = {
    "an empty file": ("A", lambda root, chains: os.truncate(next(root.glob("overlay2/*/diff/bin/sh")), 0)),
    "other content": ("A", lambda root, chains: next(root.glob("overlay2/*/diff/srv/large")).write_bytes(b"y" * 70000)),
    "a missing file": ("A", lambda root, chains: next(root.glob("overlay2/*/diff/srv/gr*")).unlink()),
    "a link in place of a directory": ("A", lambda root, chains: _divert(next(root.glob("overlay2/*/diff/srv")))),
    "tar-split cut short": ("A", lambda root, chains: os.truncate(_layerdb(root, chains[0]) / "tar-split.json.gz", 60)),
    "no cache-id": ("B", lambda root, chains: os.truncate(_layerdb(root, chains[1]) / "cache-id", 0)),
    "no overlay2 directory": ("C", lambda root, chains: shutil.rmtree(next(root.glob("overlay2/cache0*")))),
    "an empty link": ("D", lambda root, chains: os.truncate(next(root.glob("overlay2/cache0*/link")), 0)),
    "no lower": ("E", lambda root, chains: next(root.glob("overlay2/cache1*/lower")).unlink()),
    "no name in l": ("F", lambda root, chains: next(root.glob("overlay2/l/LINK1*")).unlink()),
    "no parent": ("G", lambda root, chains: shutil.rmtree(_layerdb(root, chains[0]))),
    "no layer": ("H", lambda root, chains: shutil.rmtree(_layerdb(root, chains[1]))),
    "a wrong config": ("I", lambda root, chains: os.truncate(
        next(root.glob("image/overlay2/imagedb/content/sha256/*")), 5)),
    "empty repositories": ("J", lambda root, chains: os.truncate(root / "image/overlay2/repositories.json", 0)),
    "an empty mount": ("L", lambda root, chains: _mount(root, mount_id="", init_id="i", parent="p")),
    "no mount": ("M", lambda root, chains: (root / "containers/lost").mkdir(parents=True)),
    "an orphan": ("O", lambda root, chains: (root / "overlay2/orphan").mkdir()),
}


def _divert(directory):
    directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to("elsewhere")


@pytest.mark.parametrize("what", DAMAGE)
def test_each_state_is_seen(store, what):
    root, chains, _ = store
    letter, do = DAMAGE[what]
    do(root, chains)
    assert letter in _seen(root)[0]


def test_digest_is_that_of_the_tar(store, tmp_path):
    root, chains, _ = store
    found = layers.digest(_layerdb(root, chains[1]) / "tar-split.json.gz", next(root.glob("overlay2/cache1*/diff")))
    assert found == _sha(_tar(FILES[1]))


@pytest.mark.parametrize("change", [
    lambda file: file.write_bytes(b"other"), lambda file: file.chmod(0o600), lambda file: os.chown(file, 0, 5),
    lambda file: file.rename(file.with_name("new")), lambda file: os.setxattr(file, "user.crash", b"1"),
    lambda file: file.with_name("more").touch(),
])
@pytest.mark.root
def test_tree_digest_sees_each_change(tmp_path, change):
    file = tmp_path / "tree" / "file"
    file.parent.mkdir()
    file.write_bytes(b"some content")
    before = trees.digest(file.parent)
    os.utime(file, (1, 1))
    assert trees.digest(file.parent) == before
    change(file)
    assert trees.digest(file.parent) != before


@pytest.mark.parametrize("cut, loud, quiet, verdict", [
    ("", [], [], "ok"), ("HO", [], [], "ok"), ("AO", [], [], "healed"), ("A", ["no start"], [], "unhealed"),
    ("", ["no start"], [], "unhealed"), ("A", ["no start"], ["wrong contents"], "silent"),
])
def test_verdicts(cut, loud, quiet, verdict):
    assert verdicts.judge(list(cut), loud, quiet) == verdict


def test_last_line_counts_distinct_states_and_silent_ones_as_unhealed():
    outcomes = [Outcome("load.stock.0.0:flush=1", "work", "a"), Outcome("load.stock.0.0:entry=3", "work", "a"),
                Outcome("load.stock.0.0:flush=2", "work", "b", verdict=verdicts.SILENT),
                Outcome("pull.stock.0.0:flush=2", "work", "c", verdict=verdicts.UNHEALED)]
    assert verdicts.last_line(outcomes) == "states=3 unhealed=2 silent=1"
    rows = {line.split()[0]: line.split()[1:6] for line in verdicts.table(outcomes)[1:]}
    assert rows == {"load": ["2", "2", "0", "1", "1"], "pull": ["1", "0", "0", "1", "0"],
                    "all": ["3", "2", "0", "2", "1"]}
