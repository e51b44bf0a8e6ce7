# SPDX-License-Identifier: MIT
"""dockerd's data root read as dockerd reads it, without a dockerd (moby 26 to 29, overlay2).

Two questions: which images would it list, and with what layers; and which of the states that a
power cut can leave are to be seen. The letters are those of the documentation's table of states.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from crash import layers

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_CACHE_ID = re.compile(r"[0-9a-z]{8,64}(-init)?\Z")


@dataclass(frozen=True)
class Layer:
    """A layer that dockerd accepts: ``chain`` and ``parent`` are chain IDs, "sha256:…", parent None for a base."""

    chain: str
    diff_id: str
    cache_id: str
    parent: str | None


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be: the letter of the state, what it is about, and a sentence."""

    state: str
    subject: str
    text: str

    def __str__(self):
        return f"{self.state} {self.subject[:24]}: {self.text}"


class DockerTree:
    """The data root ``root`` at rest.

    ``layers`` maps chain IDs to the Layers that dockerd accepts, ``images`` image IDs to the chain
    IDs of the images that it would list, lowest first; ``problems`` says what else there is.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.overlay = self.root / "overlay2"
        self.layerdb = self.root / "image/overlay2/layerdb"
        self.imagedb = self.root / "image/overlay2/imagedb"
        self.problems, self.layers, self.images = [], {}, {}
        self._checked = {}
        self._read_layers()
        self._read_images()
        self._read_references()
        self._read_mounts()
        self._read_leftovers()

    def _problem(self, state, subject, text):
        self.problems.append(Problem(state, str(subject), text))

    def _names(self, directory):
        try:
            return sorted(os.listdir(directory))
        except OSError:
            return []

    def _read_layers(self):
        found = {}
        for name in self._names(self.layerdb / "sha256"):
            if not re.fullmatch("[0-9a-f]{64}", name):
                continue
            try:
                found[f"sha256:{name}"] = self._layer(self.layerdb / "sha256" / name, f"sha256:{name}")
            except (OSError, ValueError) as err:
                self._problem("B", name, str(err))
        # dockerd accepts a layer only when it accepts those below.
        for chain, layer in found.items():
            below, seen = layer.parent, {chain}
            while below in found and below not in seen:
                seen.add(below)
                below = found[below].parent
            if below is None:
                self.layers[chain] = layer
            else:
                self._problem("G", chain, f"the layer below, {below[:19]}, is not there")
        for layer in self.layers.values():
            self._check_overlay(layer)

    def _layer(self, directory, chain):
        diff_id = _field(directory / "diff", _DIGEST)
        cache_id = _field(directory / "cache-id", _CACHE_ID)
        parent = _field(directory / "parent", _DIGEST) if (directory / "parent").exists() else None
        int(_field(directory / "size", re.compile(r"[0-9]+\Z")))
        text = f"{parent} {diff_id}" if parent else diff_id
        if chain != (diff_id if parent is None else "sha256:" + hashlib.sha256(text.encode()).hexdigest()):
            raise ValueError("its fields do not make its chain ID")
        if not (directory / "tar-split.json.gz").exists():
            raise ValueError("tar-split.json.gz is missing")
        return Layer(chain, diff_id, cache_id, parent)

    def _check_overlay(self, layer):
        home = self.overlay / layer.cache_id
        if not (home / "diff").is_dir():
            self._problem("C", layer.chain, f"overlay2/{layer.cache_id[:12]}/diff is missing")
            return
        self._check_links(home, layer.chain, self._lower(layer))

    def _lower(self, layer):
        links, parent = [], layer.parent
        while parent:
            below = self.layers[parent]
            links.append(f"l/{_text(self.overlay / below.cache_id / 'link')}")
            parent = below.parent
        return ":".join(links)

    def _check_links(self, home, subject, lower):
        link = _text(home / "link")
        if not re.fullmatch("[A-Z0-9]{26}", link):
            self._problem("D", subject, f"link is '{link}'")
        else:
            try:
                leads = os.readlink(self.overlay / "l" / link)
            except OSError as err:
                leads = err.strerror
            if leads != f"../{home.name}/diff":
                self._problem("F", subject, f"l/{link} leads to '{leads}'")
        if lower is not None and _text(home / "lower") != lower:
            self._problem("E", subject, f"lower is '{_text(home / 'lower')}', not '{lower}'")

    def _read_images(self):
        for name in self._names(self.imagedb / "content/sha256"):
            try:
                data = (self.imagedb / "content/sha256" / name).read_bytes()
                if hashlib.sha256(data).hexdigest() != name:
                    raise ValueError("its sha256 is wrong")
                diff_ids = json.loads(data)["rootfs"]["diff_ids"]
            except (OSError, ValueError, KeyError, TypeError) as err:
                self._problem("I", name, str(err))
                continue
            chains = chain_ids(diff_ids)
            if all(chain in self.layers for chain in chains):
                self.images[f"sha256:{name}"] = chains
            else:
                self._problem("H", name, "a layer is missing")

    def _read_references(self):
        path = self.root / "image/overlay2/repositories.json"
        if path.exists():
            try:
                if not isinstance(json.loads(path.read_bytes()), dict):
                    raise ValueError("no object")
            except ValueError as err:
                self._problem("J", "repositories.json", str(err))

    def _read_mounts(self):
        mounts = set(self._names(self.layerdb / "mounts"))
        containers = set(self._names(self.root / "containers"))
        for name in mounts:
            home = self.layerdb / "mounts" / name
            identifier, init = _text(home / "mount-id"), _text(home / "init-id")
            if not identifier or not init or not _DIGEST.match(_text(home / "parent")):
                self._problem("L", name, "mount-id, init-id or parent is missing or empty")
            elif not (self.overlay / identifier / "diff").is_dir() or not (self.overlay / init / "diff").is_dir():
                self._problem("C", name, "the container's own layer is missing")
            else:
                self._check_links(self.overlay / identifier, name, None)
                self._check_links(self.overlay / init, name, None)
        for name in mounts ^ containers:
            self._problem("M", name, "mount without container" if name in mounts else "container without mount")
        for name in containers:
            for file in ("config.v2.json", "hostconfig.json"):
                try:
                    json.loads((self.root / "containers" / name / file).read_bytes())
                except (OSError, ValueError) as err:
                    self._problem("M", name, f"{file}: {err}")

    def _read_leftovers(self):
        used = {layer.cache_id for layer in self.layers.values()}
        for name in self._names(self.layerdb / "mounts"):
            home = self.layerdb / "mounts" / name
            used |= {_text(home / "mount-id"), _text(home / "init-id")}
        for name in self._names(self.overlay):
            if name != "l" and name not in used:
                self._problem("O", name, "an overlay2 directory that nothing uses")
        for name in self._names(self.layerdb / "tmp"):
            self._problem("O", name, "a layer that was not finished")
        for name in self._names(self.layerdb / "sha256"):
            if name.endswith("-removing"):
                self._problem("O", name, "a layer that was not quite removed")

    def damage(self, chain):
        """Return what is wrong with a layer's content, None when its diff ID comes out of its files."""
        if chain not in self._checked:
            self._checked[chain] = self._damage(chain)
        return self._checked[chain]

    def _damage(self, chain):
        layer = self.layers.get(chain)
        if layer is None:
            return "dockerd does not accept it"
        home = self.layerdb / "sha256" / chain.partition(":")[2]
        try:
            found = layers.digest(home / "tar-split.json.gz", self.overlay / layer.cache_id / "diff")
        except layers.Damage as err:
            return str(err)
        return None if found == layer.diff_id else f"its content has the digest {found[:19]}"

    def content_problems(self):
        """Return a Problem (state A) for each layer of each listed image whose content is not what it says."""
        chains = dict.fromkeys(chain for image in self.images.values() for chain in image)
        return [Problem("A", chain, damage) for chain in chains if (damage := self.damage(chain))]


def chain_ids(diff_ids):
    """Return the chain IDs of an image's layers, lowest first (OCI image specification, "Layer ChainID")."""
    chains = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else None
        chains.append("sha256:" + hashlib.sha256(text.encode()).hexdigest() if text else diff_id)
    return chains


def _text(path):
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _field(path, pattern):
    try:
        text = path.read_text(errors="replace").strip()
    except OSError as err:
        raise ValueError(f"{path.name}: {err.strerror}") from None
    if not pattern.match(text):
        raise ValueError(f"{path.name} holds '{text[:40]}'")
    return text
