# SPDX-License-Identifier: MIT
"""Layers with every kind of entry, unpacked by a real dockerd, and copies of them to damage."""

import gzip
import hashlib
import http.client
import io
import json
import os
import re
import socket
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from composeapps.engine.client import Engine
from support import layertars
from support.engine import DockerDaemon
from support.images import make_image

TAG = "hub.demo.test/layers:1"


@dataclass
class Layer:
    """One layer: its tar, where its metadata are (``tar_split``) and its files (``diff``)."""

    tar: bytes
    metadata: Path
    cache: Path

    @property
    def diff_id(self):
        return "sha256:" + hashlib.sha256(self.tar).hexdigest()

    @property
    def tar_split(self):
        return self.metadata / "tar-split.json.gz"

    @property
    def diff(self):
        return self.cache / "diff"

    def copy(self, place):
        """Return a copy of it in the directory ``place``, to be changed at will."""
        subprocess.run(["cp", "-a", self.cache, place / "cache"], check=True)
        subprocess.run(["cp", "-a", self.metadata, place / "metadata"], check=True)
        return Layer(self.tar, place / "metadata", place / "cache")

    def named(self):
        """Return the paths that have an entry, relative to the layer's directory."""
        with tarfile.open(fileobj=io.BytesIO(self.tar), errors="surrogateescape") as tar:
            return {member.name.strip("/") for member in tar}

    def blob(self):
        """Return the layer's blob as a file."""
        return io.BytesIO(gzip.compress(self.tar, 1))

    def records(self):
        """Return tar-split's lines, parsed."""
        return [json.loads(line) for line in gzip.decompress(self.tar_split.read_bytes()).splitlines()]

    def state(self, times=True):
        """Return what find, sha256sum and getfattr see of the layer's files, link counts included.

        ``times``: with the times of all files but those directories that no entry names.
        """
        named = {f"./{name}" for name in self.named()} - {"./."}
        script = ('cd "$1" && find . -printf "%p %y %m %U %G %n %l %T@ %s\\0" && find . -type f -print0 | '
                  "sort -z | xargs -0r sha256sum -z")
        seen = subprocess.run(["sh", "-c", script, "sh", self.diff], capture_output=True, check=True).stdout
        found = set()
        for line in seen.decode("utf-8", "surrogateescape").split("\0"):
            match = re.fullmatch(r"(\S+) (\w) (.*) (\S+) (\d+)", line, re.DOTALL)
            if match:
                path, kind, rest, time, size = match.groups()
                whiteout = kind == "c" and rest.startswith("0 ")
                time = time if times and not whiteout and (kind != "d" or path in named) else ""
                line = f"{path} {kind} {rest} {time} {'' if kind == 'd' else size}"
            found.add(line)
        return found | self._attributes()

    def _attributes(self):
        found = set()
        for path in [self.diff, *self.diff.rglob("*")]:
            for name in os.listxattr(path, follow_symlinks=False):
                value = os.getxattr(path, name, follow_symlinks=False)
                found.add(f"{os.path.relpath(path, self.diff)} {name} {value.hex()}")
            if path.is_char_device() or path.is_block_device():
                found.add(f"{os.path.relpath(path, self.diff)} {path.lstat().st_rdev}")
        return found


class LayerStore:
    """A data root in which a dockerd has unpacked an image of these layers."""

    def __init__(self, base, directory, tars):
        self.daemon = DockerDaemon(base, directory)
        self.image = make_image(layers=tars)
        with self.daemon:
            self._load()
        self.layers = self._find(tars)

    def _load(self):
        document = self.image.document
        config, *layers = [each["digest"] for each in (document["config"], *document["layers"])]
        manifest = [{"Config": config[7:], "RepoTags": [TAG], "Layers": [each[7:] for each in layers]}]
        Engine(self.daemon.host).load(manifest, [
            (each[7:], len(self.image.blobs[each]), [self.image.blobs[each]]) for each in (config, *layers)])

    def _find(self, tars):
        home = self.daemon.data_root / "image/overlay2/layerdb/sha256"
        known = {(place / "diff").read_text(): place for place in home.iterdir()}
        places = [known["sha256:" + hashlib.sha256(tar).hexdigest()] for tar in tars]
        return [Layer(tar, place, self.daemon.data_root / "overlay2" / (place / "cache-id").read_text())
                for tar, place in zip(tars, places, strict=True)]

    def saved(self):
        """Let dockerd put its layers together again: return the diff ids of what ``docker save`` gives."""
        with self.daemon:
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.daemon.socket))
            connection.request("GET", f"/v1.41/images/{TAG}/get")
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status == 200, data
            connection.close()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            manifest = json.load(tar.extractfile("manifest.json"))
            return ["sha256:" + hashlib.sha256(tar.extractfile(name).read()).hexdigest()
                    for name in manifest[0]["Layers"]]


def sparse_tar(version, place):
    """Return the tar that GNU tar makes of a sparse file and another one, with its format's ``version``."""
    place.mkdir(exist_ok=True)
    with open(place / "hole", "wb") as stream:
        for offset, data in ((0, layertars.noise(5000)), (3_000_000, b"in the middle"), (4_999_999, b"\0")):
            stream.seek(offset)
            stream.write(data)
    (place / "plain").write_bytes(b"plain")
    return subprocess.run(
        ["tar", "--format=posix", "--sparse", f"--sparse-version={version}", "--owner=0", "--group=0", "-C", place,
         "-cf", "-", "hole", "plain"], capture_output=True, check=True).stdout
