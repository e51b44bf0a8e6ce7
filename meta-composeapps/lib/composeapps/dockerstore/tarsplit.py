# SPDX-License-Identifier: MIT
"""tar-split.json.gz: what dockerd keeps of a layer's tar besides the files themselves.

Format (github.com/vbatts/tar-split, tar/storage/entry.go and tar/asm/disassemble.go, v0.11 and
v0.12): gzip over JSON objects, one a line, numbered by "position" from 0, of two types:

* ``{"type":2,"payload":"<base64>","position":N}``, a segment: bytes of the tar that are no
  file's payload, that is headers, padding, the end of the archive.
* ``{"type":1,"name":"…","size":N,"payload":"<base64>","position":N}``, a file: after the
  segment that ends with its header comes its payload, to be read from the layer's directory.
  "name_raw" (base64) stands in place of "name" when that is no UTF-8, "size" is left out when 0,
  and the payload is null then, else the CRC-64 (ISO, eight bytes, most significant first) of the
  file's content.

The segments and the files' contents in their order are the layer's tar, whose sha256 is the
layer's diff id. Two kinds of layers cannot be put together again, by dockerd neither: those with
sparse files (the size and the checksum are of the expanded file) and those in which
two entries with a payload have the same path.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
import zlib
from array import array
from dataclasses import dataclass

from composeapps.dockerstore import confine
from composeapps.errors import CorruptError
from composeapps.tarheader import Header, HeaderError, read_header

CHUNK = 256 * 1024
_INPUT = 64 * 1024
# The longest segment is a chunk of 1 MiB of trailing padding, or one extended header of at
# most 1 MiB; in base64 and with the rest of the line:
_MAX_LINE = 8 * 1024 * 1024
_SEGMENT = b'{"type":2,"payload":"'


class TarSplitError(CorruptError):
    """The tar-split itself is damaged: it has to be made again."""


class LayerError(CorruptError):
    """A file of the layer is missing or is not what the tar-split says."""


class IrreproducibleError(CorruptError):
    """The layer's tar cannot be put together by its nature; see the module's description."""


@dataclass(slots=True)
class Entry:
    """One file of the tar: its Header, and the CRC-64 (8 bytes) of its content, None when it is empty."""

    header: Header
    crc: bytes | None


@contextlib.contextmanager
def _opened(tar_split):
    if hasattr(tar_split, "read"):
        yield tar_split
        return
    try:
        descriptor = os.dup(tar_split) if isinstance(tar_split, int) else confine.open_regular(tar_split)
    except FileNotFoundError:
        raise TarSplitError(f"{os.fsdecode(tar_split)} is missing") from None
    except CorruptError as err:
        raise TarSplitError(str(err)) from None
    with open(descriptor, "rb", buffering=0) as stream:
        stream.seek(0)
        yield stream


def _inflated(stream):
    """Yield the content of a gzip file in pieces of at most CHUNK bytes."""
    try:
        data = stream.read(_INPUT)
        if not data:
            raise TarSplitError("the tar-split is empty")
        # dockerd writes one member; Go reads several, and nothing else after them.
        while data:
            engine = zlib.decompressobj(31)
            while not engine.eof:
                data = data or stream.read(_INPUT)
                if not data:
                    raise TarSplitError("the tar-split is truncated")
                yield engine.decompress(data, CHUNK)
                data = engine.unconsumed_tail
            data = engine.unused_data or stream.read(_INPUT)
    except zlib.error as err:
        raise TarSplitError(f"the tar-split is no whole gzip file: {err}") from None
    except OSError as err:
        raise TarSplitError(f"the tar-split cannot be read: {err.strerror or err}") from None


def _lines(stream):
    """Yield the lines of a gzip file, without their ends."""
    rest = bytearray()
    for text in _inflated(stream):
        first, *lines = text.split(b"\n")
        rest += first
        if len(rest) > _MAX_LINE:
            raise TarSplitError("the tar-split has a line that is too long")
        if lines:
            yield bytes(rest)
            yield from lines[:-1]
            rest = bytearray(lines[-1])
    if rest:
        raise TarSplitError("the tar-split's last line is cut off")


def _records(stream):
    """Yield (name, size, payload): a file, or with name None a segment."""
    for position, line in enumerate(_lines(stream)):
        try:
            if line.startswith(_SEGMENT) and line.endswith(ending := b'","position":%d}' % position):
                # Half of the lines, just as dockerd writes them.
                yield None, 0, binascii.a2b_base64(line[len(_SEGMENT):-len(ending)], strict_mode=True)
                continue
            record = json.loads(line.decode())
            kind, payload = record["type"], record["payload"]
            payload = None if payload is None else binascii.a2b_base64(payload, strict_mode=True)
            if record["position"] != position:
                raise ValueError("out of order")
            if kind == 2:
                yield None, 0, payload or b""
                continue
            raw = record.get("name_raw")
            name = binascii.a2b_base64(raw, strict_mode=True) if raw else record.get("name", "").encode()
            size = record.get("size", 0)
            if kind != 1 or not isinstance(size, int) or size < 0 or (size and len(payload or b"") != 8):
                raise ValueError("not a file")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            raise TarSplitError(f"line {position + 1} of the tar-split is malformed") from None
        yield name, size, payload


def parts(tar_split):
    """Yield the parts of a layer's tar in order: bytes for a segment, an Entry for a file's payload.

    Arguments:
        tar_split: path, descriptor or binary file of tar-split.json.gz.

    Raises TarSplitError.
    """
    with _opened(tar_split) as stream:
        pending, held, pad, number = [], 0, 0, 0
        for name, size, payload in _records(stream):
            if name is None:
                held += len(payload)
                # No header is that long: what is more follows the end of the archive.
                if held <= _MAX_LINE:
                    pending.append(payload)
                yield payload
                continue
            number += 1
            raw, at = b"".join(pending), 0

            def read(count, raw=raw):
                nonlocal at
                at += count
                return raw[at - count:at]

            try:
                header, pad = read_header(read, [], pad)
            except HeaderError as err:
                raise TarSplitError(f"the tar-split's file {number} has a malformed header: {err}") from None
            if header is None or at != len(raw) or header.name != name or header.size != size:
                raise TarSplitError(f"the tar-split's file {number} is not the one in its header")
            pending, held = [], 0
            yield Entry(header, payload if size else None)


def entries(tar_split):
    """Yield the files of a layer, each as an Entry, in the order of its tar.

    Arguments:
        tar_split: path, descriptor or binary file of tar-split.json.gz.

    Raises TarSplitError.
    """
    return (part for part in parts(tar_split) if isinstance(part, Entry))


def path_key(name):
    """Return a number, the same in this process only, that stands for the path an entry's name means."""
    return hash(b"/".join(confine.components(name)))


class Duplicates:
    """Finds paths that more than one entry has, in eight bytes an entry."""

    def __init__(self):
        self._seen = array("q")

    def add(self, name):
        """Note the next entry's name."""
        self._seen.append(path_key(name))

    def last(self):
        """Return {path_key: index of the last entry with it} of the paths that come more than once."""
        ordered = array("q", sorted(self._seen))
        double = {one for one, next_one in zip(ordered, ordered[1:], strict=False) if one == next_one}
        del ordered
        return {key: index for index, key in enumerate(self._seen) if key in double} if double else {}


def diff_id(tar_split, diff, tick=None):
    """Return the diff id ("sha256:<hex>") of a layer as it is on the disk now.

    Arguments:
        tar_split: path, descriptor or binary file of tar-split.json.gz.
        diff: path or descriptor of the layer's directory of files.
        tick: called with the number of bytes after each piece; what it raises ends the work.

    Raises TarSplitError; LayerError at the first file that is missing or has another size;
    IrreproducibleError.
    """
    hasher = hashlib.sha256()
    with confine.directory(diff) as root, confine.Tree(root) as tree:
        for part in parts(tar_split):
            if not isinstance(part, Entry):
                hasher.update(part)
            elif part.header.sparse:
                raise IrreproducibleError(f"{printable(part.header.name)} is a sparse file, of which dockerd keeps "
                                          "too little to put the layer's tar together")
            elif part.header.stored:
                for chunk in file_chunks(tree, part.header):
                    hasher.update(chunk)
                    if tick:
                        tick(len(chunk))
    return "sha256:" + hasher.hexdigest()


def file_chunks(tree, header, chunk=CHUNK):
    """Yield the content of the regular file of an entry; raises LayerError when it is not there in its size."""
    name = printable(header.name)
    try:
        parent, base = tree.locate(header.name)
        found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise LayerError(f"{name} is not a regular file")
        if found.st_size != header.size:
            raise LayerError(f"{name} has {found.st_size} bytes, not {header.size}")
        with open(confine.open_regular(base, parent), "rb", buffering=0) as stream:
            left = header.size
            while left:
                data = stream.read(min(left, chunk))
                if not data:
                    raise LayerError(f"{name} ended early")
                left -= len(data)
                yield data
    except (FileNotFoundError, NotADirectoryError):
        raise LayerError(f"{name} is missing") from None
    except OSError as err:
        raise LayerError(f"{name} cannot be read: {err.strerror or err}") from None


def printable(name):
    """Return an entry's name (bytes) for a message."""
    return name.decode("utf-8", "backslashreplace")


class Writer:
    """Writes a tar-split as dockerd does; give it the parts of the tar in order.

    Arguments:
        stream: a binary file; it gets the gzip member, and stays open.
    """

    def __init__(self, stream):
        self._stream, self._position = stream, 0
        self._engine = zlib.compressobj(wbits=31)

    def segment(self, data):
        """Add bytes of the tar that are no payload."""
        if data:
            self._line(f'{{"type":2,"payload":"{base64.b64encode(data).decode()}"')

    def file(self, name, size, crc):
        """Add a file: its name (bytes), its size in bytes, the CRC-64 (8 bytes) of its content or None."""
        try:
            text = json.dumps(name.decode(), ensure_ascii=False)
            for character in "<>&\u2028\u2029":
                text = text.replace(character, f"\\u{ord(character):04x}")
            named = f'"name":{text},' if name else ""
        except UnicodeDecodeError:
            named = f'"name_raw":"{base64.b64encode(name).decode()}",'
        payload = f'"{base64.b64encode(crc).decode()}"' if size else "null"
        self._line(f'{{"type":1,{named}{f"{chr(34)}size{chr(34)}:{size}," if size else ""}"payload":{payload}')

    def _line(self, start):
        self._stream.write(self._engine.compress(f'{start},"position":{self._position}}}\n'.encode()))
        self._position += 1

    def close(self):
        """Write what is left."""
        self._stream.write(self._engine.flush())
