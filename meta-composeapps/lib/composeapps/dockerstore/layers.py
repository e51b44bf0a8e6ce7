# SPDX-License-Identifier: MIT
"""Reading layerdb: one directory of small files a layer, named by its chain id."""

import json
import os
import re
import stat

from composeapps.beneath import DIRECTORY, read_at
from composeapps.dockerstore import layout
from composeapps.dockerstore.report import reason

_SIZE = re.compile(rb"[+-]?\d{1,19}\Z")


class Layer:
    """A layer as its metadata tells.

    ``chain``, ``diff``, ``parent`` are 64 hex digits (``parent`` None for a base); ``cache`` names
    its directory in overlay2; ``faults`` maps a field's file to what is wrong with it, and such a
    field is None. ``lost`` says why the layer cannot be kept, None for one that can. ``cached`` is
    its overlay.Cache once that was read; ``inode`` of its files' directory; ``time`` of its commit.
    """

    __slots__ = ("chain", "diff", "parent", "cache", "faults", "lost", "state", "cached", "inode", "time", "suspect",
                 "stray")

    def __init__(self, chain):
        self.chain = chain
        self.diff = self.parent = self.cache = self.lost = self.state = self.cached = self.inode = None
        self.time = 0
        self.faults = {}
        # Something else was wrong with it: what the ledger says does not count.
        self.suspect = False
        # Temporary files in its directory.
        self.stray = ()

    def __str__(self):
        return f"layer {self.chain[:12]}"


def read_all(root):
    """Return {chain id: Layer} of all directories in layerdb that are named like a chain id."""
    found = {}
    try:
        home = root.keep(layout.LAYERS)
    except OSError:
        return found
    for name in os.listdir(home):
        if layout.HEX.match(name):
            found[name] = _read(home, name)
    return found


def _read(home, chain):
    layer = Layer(chain)
    try:
        directory = os.open(chain, DIRECTORY, dir_fd=home)
    except OSError as err:
        layer.faults["."] = reason(err)
        return layer
    try:
        layer.time = os.fstat(directory).st_mtime_ns
        layer.stray = [name for name in os.listdir(directory) if name.startswith(".tmp-")]
        layer.diff = _digest(layer, directory, "diff")
        layer.cache = _cache_id(layer, directory)
        try:
            layer.parent = _digest(layer, directory, "parent", missing_is_fine=True)
        finally:
            _check_size(layer, directory)
            _check_descriptor(layer, directory)
            _check_tar_split(layer, directory)
    finally:
        os.close(directory)
    if "diff" not in layer.faults and "parent" not in layer.faults:
        wanted = layout.chain_id(layer.parent, layer.diff)
        if wanted != chain:
            layer.faults["diff"] = "does not give the layer's chain id with the parent"
            layer.diff = layer.parent = None
    return layer


def _digest(layer, directory, name, missing_is_fine=False):
    try:
        text = read_at(directory, name, layout.MAX_FIELD).strip().decode("ascii", "replace")
    except FileNotFoundError:
        if missing_is_fine:
            return None
        layer.faults[name] = "is missing"
        return None
    except OSError as err:
        layer.faults[name] = reason(err)
        return None
    if not layout.DIGEST.match(text):
        layer.faults[name] = "is empty" if not text else "is no digest"
        return None
    return text[7:]


def _cache_id(layer, directory):
    try:
        text = read_at(directory, "cache-id", layout.MAX_FIELD).strip().decode("ascii", "replace")
    except OSError as err:
        layer.faults["cache-id"] = "is missing" if isinstance(err, FileNotFoundError) else reason(err)
        return None
    if not layout.CACHE_ID.match(text):
        layer.faults["cache-id"] = "is empty" if not text else "is no cache id"
        return None
    return text


def _check_size(layer, directory):
    try:
        data = read_at(directory, "size", layout.MAX_FIELD)
    except OSError as err:
        layer.faults["size"] = "is missing" if isinstance(err, FileNotFoundError) else reason(err)
        return
    if not _SIZE.match(data) or not -2**63 <= int(data) < 2**63:
        layer.faults["size"] = "is empty" if not data else "is no number"


def _check_descriptor(layer, directory):
    try:
        data = read_at(directory, "descriptor.json", 1024 * 1024)
    except FileNotFoundError:
        return
    except OSError as err:
        layer.faults["descriptor.json"] = reason(err)
        return
    try:
        document = json.loads(data)
        good = document is None or (
            isinstance(document, dict) and isinstance(document.get("mediaType", ""), str)
            and isinstance(document.get("size", 0), int) and isinstance(document.get("digest", ""), str))
    except (ValueError, RecursionError):
        good = False
    if not good:
        layer.faults["descriptor.json"] = "is empty" if not data else "is malformed"


def _check_tar_split(layer, directory):
    try:
        found = os.stat("tar-split.json.gz", dir_fd=directory, follow_symlinks=False)
    except OSError as err:
        layer.faults["tar-split.json.gz"] = "is missing" if isinstance(err, FileNotFoundError) else reason(err)
        return
    if not stat.S_ISREG(found.st_mode):
        layer.faults["tar-split.json.gz"] = "is not a regular file"
    elif not found.st_size:
        layer.faults["tar-split.json.gz"] = "is empty"


def in_order(layers):
    """Return the Layers of a mapping, every parent before its children.

    What has a fault in diff or parent counts as a base; chain ids are hashes, so there is no cycle
    among the others.
    """
    ordered, done = [], set()
    for chain in sorted(layers):
        branch = []
        while chain is not None and chain in layers and chain not in done:
            branch.append(layers[chain])
            done.add(chain)
            chain = layers[chain].parent
        ordered += reversed(branch)
    return ordered


def proven(configurations):
    """Return {chain id: (diff id, parent's chain id)} of all layers of images.

    Arguments:
        configurations: lists of diff ids.
    """
    return {chain: (diff, parent) for diffs in configurations for chain, diff, parent in layout.chain(diffs)}
