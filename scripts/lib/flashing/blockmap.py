# SPDX-License-Identifier: MIT
"""bmaptool's map of an image's used blocks, and whether a disk has them.

An XML file of bmap-tools, version 2: ImageSize and BlockSize in bytes, MappedBlocksCount, and in BlockMap one Range
"FIRST-LAST" or "NUMBER" of blocks each, with the SHA-256 of its bytes as "chksum".
"""

import hashlib
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from composeapps import beneath
from composeapps.errors import CorruptError, StorageError, UsageError

_LARGEST = 64 << 20
_PIECE = 1 << 20


class BlockMap(NamedTuple):
    """``size`` of the image in bytes, and ``ranges`` of (first byte, bytes, SHA-256 in hexadecimal)."""

    size: int
    ranges: tuple

    @property
    def used(self):
        return sum(length for _start, length, _digest in self.ranges)


def read(path):
    """Return the BlockMap of a file. Raises UsageError, CorruptError."""
    try:
        with beneath.open_regular(path) as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None
    try:
        # A document type could make it endless; a map has none.
        if len(data) > _LARGEST or b"<!DOCTYPE" in data:
            raise ValueError
        tree = ElementTree.fromstring(data)
        size, block = (int(tree.findtext(name)) for name in ("ImageSize", "BlockSize"))
        kind = (tree.findtext("ChecksumType") or "").strip()
        ranges = tuple(_range(each, block, size) for each in tree.iterfind("BlockMap/Range"))
        if kind != "sha256" or size <= 0 or block <= 0 or not ranges:
            raise ValueError
    except (ElementTree.ParseError, ValueError, TypeError, AttributeError):
        raise CorruptError(f"{path} is no map of blocks with SHA-256 sums: make it anew by 'bmaptool create'") from None
    return BlockMap(size, ranges)


def _range(element, block, size):
    first, last = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", element.text).groups()
    start, end = int(first) * block, min((int(last or first) + 1) * block, size)
    if not re.fullmatch("[0-9a-f]{64}", element.get("chksum")) or end <= start:
        raise ValueError
    return start, end - start, element.get("chksum")


def verify(found, path):
    """See that a disk has the blocks of a BlockMap. Raises CorruptError naming the first that differ, StorageError."""
    try:
        with open(path, "rb", buffering=0) as stream:
            for start, length, expected in found.ranges:
                digest, at = hashlib.sha256(), start
                while at < start + length:
                    data = os.pread(stream.fileno(), min(_PIECE, start + length - at), at)
                    if not data:
                        raise CorruptError(f"{path} ends at byte {at}")
                    digest.update(data)
                    at += len(data)
                if digest.hexdigest() != expected:
                    raise CorruptError(f"{path} does not have what was written to it, in bytes {start} to "
                                       f"{start + length - 1}: the disk, its reader or the cable is faulty")
    except OSError as err:
        raise StorageError(f"{path} cannot be read back: {err.strerror}") from None


def beside(image):
    """Return the map that belongs to an image by its name, or by that of what it is a link to; None for none."""
    if os.path.islink(image) and (found := beside(os.path.realpath(image))):
        return found
    name = re.sub(r"\.(zst|gz|xz|bz2|lz4)$", "", os.path.basename(image))
    for stem in (os.path.basename(image), name, os.path.splitext(name)[0]):
        path = Path(image).with_name(f"{stem}.bmap")
        if path.is_file():
            return path
    return None
