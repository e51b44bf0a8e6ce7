# SPDX-License-Identifier: MIT
"""Measured layers, kept in the user's cache: a layer's digest tells for ever what it takes on a disk.

One small file for each layer, ``$XDG_CACHE_HOME/composeapps/layers/<hex>``, that appears whole or not at all and
carries a checksum; what cannot be read is measured again. Any number of writers may be at work.
"""

import os
from pathlib import Path

from composeapps import durable
from composeapps.errors import StorageError
from composeapps.oci.digests import sha256
from composeapps.oci.parsing import parse_size

# Some 40 MB of disk; the oldest half goes when there are more.
MOST = 10_000
_VERSION = "composeapps-layer-1"


def directory(environ=None):
    """Return where measured layers are kept (Path), None for a user without a home."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME", "")
        if not os.path.isabs(home) or not os.path.isdir(home):
            return None
        base = os.path.join(home, ".cache")
    return Path(base, "composeapps", "layers")


class Measured:
    """The cache.

    Arguments:
        place: its directory, or None for a cache that keeps nothing.
    """

    def __init__(self, place):
        self._place, self._looked = place, False

    def get(self, layer):
        """Return (size, usage) of a layer's Descriptor, None when it is to be measured."""
        if self._place is None:
            return None
        try:
            with open(self._file(layer), "rb") as stream:
                words = stream.read(1024).decode().split()
        except (OSError, ValueError):
            return None
        numbers = [parse_size(word) for word in words[2:4]]
        if len(words) != 5 or None in numbers or words != _words(layer, *numbers):
            return None
        return tuple(numbers)

    def put(self, layer, size, usage):
        """Keep what was measured. A cache that cannot be written to keeps nothing, and that is no error."""
        if self._place is None:
            return
        try:
            if not self._looked:
                durable.make_directories(self._place, 0o700)
                self._looked = True
                self._bound()
            durable.write_file(self._file(layer), (" ".join(_words(layer, size, usage)) + "\n").encode())
        except (OSError, StorageError):
            self._place = None

    def _file(self, layer):
        return self._place / layer.digest.partition(":")[2]

    def _bound(self):
        with os.scandir(self._place) as entries:
            found = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        if len(found) > MOST:
            found.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)
            for entry in found[:len(found) // 2]:
                Path(entry.path).unlink(missing_ok=True)


def _words(layer, size, usage):
    words = [_VERSION, layer.digest, str(size), str(usage)]
    return [*words, sha256(" ".join([*words, str(layer.size)]).encode())]
