# SPDX-License-Identifier: MIT
"""What restorable stores can give back: layers by diff id, image configurations, tags.

Nothing is read before it is asked for. A store names a layer's blob by the digest of its packed
form; which diff id it has is known from an image manifest, whose layers are in the order of the
``rootfs.diff_ids`` of its configuration. Both documents are believed only with the right digest.
"""

import hashlib
import json
import os
import stat

from composeapps.dockerstore import layout

MAX_DOCUMENT = 4 * 1024 * 1024


class Blobs:
    """The blobs of restorable stores.

    Arguments:
        stores: the stores' directories, the preferred one first; a missing one has nothing. Iterated
            over when something is first asked for.
    """

    def __init__(self, stores):
        self._given, self._found = stores, None
        self._layers = self._configs = self._images = None

    @property
    def _stores(self):
        if self._found is None:
            self._found = [os.fspath(store) for store in self._given if store]
        return self._found

    @property
    def _homes(self):
        return [os.path.join(store, "blobs", "sha256") for store in self._stores]

    def config(self, digest):
        """Return the content of the blob ``digest`` (64 hex digits) when it is a whole, small one, else None."""
        for home in self._homes:
            data = _read(os.path.join(home, digest), MAX_DOCUMENT)
            if data is not None and hashlib.sha256(data).hexdigest() == digest:
                return data
        return None

    def has_layer(self, diff):
        """Tell whether a store has a blob of the layer with this diff id (64 hex digits)."""
        return diff in self._index()[0]

    def open_layer(self, diff):
        """Return a binary file over the packed layer with this diff id, or None. Its content is not verified."""
        for path in self._index()[0].get(diff, ()):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            stream = open(descriptor, "rb")  # noqa: SIM115 - the caller closes it
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return stream
            stream.close()
        return None

    def diff_ids(self):
        """Return {image id: list of diff ids}, all 64 hex digits, of the images in the stores."""
        return self._index()[1]

    def tags(self):
        """Return {tag: image id} of the images of the stores' apps, tagged as the agent tags them."""
        self._index()
        found = {}
        for store in self._stores:
            apps = os.path.join(store, "apps")
            for directory, names, files in os.walk(apps):
                names.sort()
                repository, manifest = _image_of(os.path.relpath(directory, apps))
                if repository is None or "index.json" not in files:
                    continue
                document = _json(_read(os.path.join(directory, "index.json"), MAX_DOCUMENT))
                entries = document.get("manifests") if isinstance(document, dict) else None
                for entry in entries if isinstance(entries, list) else ():
                    digest = entry.get("digest") if isinstance(entry, dict) else None
                    image = self._images.get(digest.partition(":")[2]) if isinstance(digest, str) else None
                    if image:
                        found.setdefault(f"{repository}:{manifest[:7]}", image)
        return found

    def _index(self):
        if self._layers is None:
            self._layers, self._configs, self._images = {}, {}, {}
            for home in self._homes:
                self._read_home(home)
        return self._layers, self._configs

    def _read_home(self, home):
        try:
            entries = list(os.scandir(home))
        except OSError:
            return
        for entry in entries:
            if not layout.HEX.match(entry.name):
                continue
            data = _read(entry.path, MAX_DOCUMENT, b"{")
            if data is None or hashlib.sha256(data).hexdigest() != entry.name:
                continue
            image, layers = _manifest(_json(data))
            config = self.config(image) if image else None
            diffs = diff_ids_of(config) if config else None
            if diffs is None or len(diffs) != len(layers):
                continue
            self._configs[image] = diffs
            self._images[entry.name] = image
            for diff, layer in zip(diffs, layers, strict=True):
                path = os.path.join(home, layer)
                known = self._layers.setdefault(diff, [])
                if path not in known and os.path.isfile(path):
                    known.append(path)
            for diff in diffs:
                if not self._layers[diff]:
                    del self._layers[diff]


def diff_ids_of(config):
    """Return the diff ids (64 hex digits each) in an image's configuration (bytes), or None when it has none."""
    document = _json(config)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    diffs = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diffs is None and isinstance(rootfs, dict):
        return []
    if not isinstance(diffs, list) or not all(isinstance(diff, str) and layout.DIGEST.match(diff) for diff in diffs):
        return None
    return [diff[7:] for diff in diffs]


def _manifest(document):
    """Return (image id, layers' digests) of an image manifest, else (None, [])."""
    try:
        image = document["config"]["digest"]
        layers = [layer["digest"] for layer in document["layers"]]
        if all(isinstance(each, str) and layout.DIGEST.match(each) for each in (image, *layers)):
            return image[7:], [layer[7:] for layer in layers]
    except (KeyError, TypeError):
        pass
    return None, []


def _image_of(path):
    """Return (repository, manifest) of "<app>/<version>/images/<host>/<path>/<manifest>", else (None, None)."""
    parts = path.split(os.sep)
    for position, part in enumerate(parts):
        if part == "images" and position >= 2 and layout.HEX.match(parts[position - 1]):
            inner = parts[position + 1:]
            if len(inner) >= 3 and layout.HEX.match(inner[-1]):
                return "/".join(inner[:-1]), inner[-1]
    return None, None


def _json(data):
    try:
        return json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None


def _read(path, limit, start=b""):
    """Return a regular file's content, or None: missing, too large, or beginning otherwise."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            return None
        with open(path, "rb", buffering=0) as stream:
            if start and stream.read(len(start)) != start:
                return None
            return start + stream.read(limit)
    except (OSError, ValueError):
        return None
