# SPDX-License-Identifier: MIT
"""Heals a layer of dockerd's store in place, from the layer's blob in a restorable store.

The blob is read twice: first to see that its tar is the layer's (nothing is touched before
that is known), then to compare it with what is on the disk and to replace what differs. At last the
layer is put together from the disk and held against its diff id. A run that was killed is
simply repeated: what is right already is left alone.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from composeapps import durable
from composeapps.dockerstore import confine, layercheck, tarsplit
from composeapps.dockerstore.blobtar import NotHealableError, TarStream
from composeapps.dockerstore.crc64 import Crc64
from composeapps.dockerstore.placer import Placer, remove_leftovers
from composeapps.dockerstore.tarsplit import TarSplitError
from composeapps.tarheader import HeaderError, read_header, sparse_regions

__all__ = ["Healed", "NotHealableError", "heal_layer", "rebuild_tar_split", "remove_leftovers"]

_CHUNK = 256 * 1024
_ZEROS = bytes(_CHUNK)


@dataclass
class Healed:
    """What was healed: ``count`` files, the names (bytes) of the first hundred, and whether tar-split was made anew."""

    count: int = 0
    names: list = field(default_factory=list)
    tar_split: bool = False


def heal_layer(blob, diff_id, tar_split, diff, id_offset=(0, 0), tick=None):
    """Make a layer's directory and tar-split what its blob says.

    Arguments:
        blob: binary file of the layer's blob, rewindable; gzip, zstd where Python reads it, or plain.
        diff_id: "sha256:<hex>" of the blob's tar.
        tar_split: path of tar-split.json.gz; made anew when it is missing, damaged or another layer's.
        diff: path or descriptor of the layer's directory ``<cache id>/diff``; may be empty.
        id_offset: (user, group) that userns-remap adds to the ids.
        tick: called with numbers of bytes now and then; what it raises ends the work, which can be repeated.

    Returns Healed. Durable when it returns. Raises NotHealableError when the blob is not the
    layer's (nothing was changed then) or the layer is not right afterwards; StorageError.
    """
    with durable.storage_errors(f"healing layer {diff_id}"), confine.directory(diff) as root:
        last, fingerprint = _verify(blob, diff_id, tick)
        healed = Healed(tar_split=_fingerprint(tar_split) != fingerprint)
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(_replaced_tar_split(tar_split)) if healed.tar_split else None
            placer = stack.enter_context(Placer(root, id_offset))
            stream = TarStream(blob, tick)
            for index, (header, content) in enumerate(_files(stream, writer)):
                if last and header.type != b"5" and last.get(_key(header), index) != index:
                    # The layer's own later entry takes its place.
                    continue
                placer.place(header, content)
            if stream.diff_id() != diff_id:
                raise NotHealableError(f"the blob of layer {diff_id} changed while it was read")
        healed.count, healed.names = placer.count, placer.changed
        durable.sync_filesystem(f"/proc/self/fd/{root}")
        problem = layercheck.content_problem(tar_split, root, diff_id, tick)
        if problem is None:
            left = layercheck.stat_problems(tar_split, root, 1, id_offset)
            problem = str(left[0]) if left else None
        if problem:
            raise NotHealableError(f"layer {diff_id} is still damaged: {problem}")
    return healed


def rebuild_tar_split(blob, diff_id, tar_split, tick=None):
    """Write a layer's tar-split.json.gz from its blob, durably, whatever is there now.

    Arguments and errors as ``heal_layer``; the layer's files are not looked at.
    """
    with durable.storage_errors(f"writing the tar-split of layer {diff_id}"):
        _verify(blob, diff_id, tick)
        with _replaced_tar_split(tar_split) as writer:
            stream = TarStream(blob, tick)
            for _file in _files(stream, writer):
                pass
            if stream.diff_id() != diff_id:
                raise NotHealableError(f"the blob of layer {diff_id} changed while it was read")


def _key(header):
    return tarsplit.path_key(layercheck.target(header)[0] or header.name)


def _verify(blob, diff_id, tick):
    """Read the blob once; return (last entries of paths that come twice, fingerprint of its tar-split)."""
    stream, seen, digest = TarStream(blob, tick), tarsplit.Duplicates(), hashlib.sha256()
    for header, _content in _files(stream, _Fingerprint(digest)):
        seen.add(layercheck.target(header)[0] or header.name)
    found = stream.diff_id()
    if found != diff_id:
        raise NotHealableError(f"the blob's tar has the diff id {found}, not {diff_id}")
    return seen.last(), digest.hexdigest()


class _Fingerprint:
    """Takes what a tarsplit.Writer takes; its digest stands for a tar-split but for the files' checksums."""

    needs_crc = False

    def __init__(self, digest):
        self._digest = digest

    def segment(self, data):
        self._digest.update(data)

    def file(self, name, size, _crc):
        self._digest.update(b"\0%d %d\0%b" % (len(name), size, name))


def _fingerprint(tar_split):
    """Return the same for the tar-split on the disk; None when it is damaged or missing."""
    digest = hashlib.sha256()
    taker = _Fingerprint(digest)
    try:
        for part in tarsplit.parts(tar_split):
            if isinstance(part, tarsplit.Entry):
                taker.file(part.header.name, part.header.size, None)
            else:
                taker.segment(part)
    except TarSplitError:
        return None
    return digest.hexdigest()


def _files(stream, taker):
    """Yield (Header, iterable of its content) for each file of a tar; what is not taken of the content is passed over.

    ``taker`` gets what the tar-split is made of: a tarsplit.Writer, a _Fingerprint, or None.
    """
    pad = 0
    while True:
        raw = []
        try:
            header, pad = read_header(stream.read, raw, pad)
        except HeaderError as err:
            raise NotHealableError(f"the blob's tar cannot be read: {err}") from None
        if taker:
            taker.segment(b"".join(raw))
        if header is None:
            break
        checksum = Crc64() if taker and getattr(taker, "needs_crc", True) and header.size else None
        content = _contents(stream, header, checksum)
        yield header, content
        for _piece in content:
            pass
        if taker:
            taker.file(header.name, header.size, checksum and checksum.digest())
    for piece in stream.drain():
        if taker:
            taker.segment(piece)


def _contents(stream, header, checksum):
    pieces = _expanded(stream, header) if header.sparse else stream.payload(header.stored)
    for piece in pieces:
        if checksum:
            for at in range(0, len(piece), 64 * 1024):
                checksum.update(piece[at:at + 64 * 1024])
        yield piece


def _expanded(stream, header):
    try:
        regions, _taken = sparse_regions(header, stream.read)
    except HeaderError as err:
        raise NotHealableError(f"the blob's tar cannot be read: {err}") from None
    at = 0
    for offset, length in [*regions, (header.size, 0)]:
        while at < offset:
            yield _ZEROS[:min(offset - at, _CHUNK)]
            at += min(offset - at, _CHUNK)
        yield from stream.payload(length)
        at = offset + length


@contextlib.contextmanager
def _replaced_tar_split(tar_split):
    """Give a Writer whose file takes the place of ``tar_split`` when all went well."""
    tar_split = Path(tar_split)
    temporary = tar_split.with_name(f".tmp-{tar_split.name}")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as stream:
            writer = tarsplit.Writer(stream)
            yield writer
            writer.close()
            stream.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        durable.replace(temporary, tar_split)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
