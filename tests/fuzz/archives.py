# SPDX-License-Identifier: MIT
"""Random bundles: archives whose members have the names, kinds, links and headers that nobody hopes for."""

import gzip
import io
import tarfile
import zlib

_NAMES = ["a", "b", "a/b", "a/b/c", "./a", "a/", "a//b", "..", "../evil", "a/../../evil", "/evil", "a/..", ".", "",
          "docker-compose.yml",
          "./docker-compose.yml", ".env", "é", "e\u0301", "A", "x" * 99, "x" * 300, "d/" * 120 + "x", "a\nb", "a\0b",
          "con", "-rf",
          "\udcff", ".composeapps-new", "a/b/../c"]
_KINDS = [tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE] * 3 + [tarfile.LNKTYPE] * 2 + [
    tarfile.DIRTYPE, tarfile.DIRTYPE, tarfile.AREGTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
    tarfile.CONTTYPE,
    tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    b"\x80"]
_PAX = ["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major",
        "GNU.sparse.numblocks",
        "GNU.sparse.name", "SCHILY.xattr.security.capability", "comment", "hdrcharset"]
_WORDS = ["", "0", "-1", "1e9", "99999999999999999999", "../evil", "/evil", "a", "0,1,2", "BINARY", "x" * 2000, "nan"]


def bundle(draw):
    """Return a .tgz, or what is nearly one."""
    out = io.BytesIO()
    how = draw.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
    archive = tarfile.TarFile(fileobj=out, mode="w", format=how, encoding="utf-8", errors="surrogateescape")
    members = [_member(draw) for _ in range(draw.choice([0, 1, 2, 3, 5, 8, 40]))]
    if draw.random() < 0.7:
        members.insert(draw.randint(0, len(members)), _compose())
    for info, data in members:
        try:
            archive.addfile(info, io.BytesIO(data))
        except (ValueError, OverflowError, UnicodeError, OSError):
            continue
    if draw.random() < 0.9:
        archive.close()
    raw = out.getvalue()
    if draw.random() < 0.4:
        raw = _spoilt(raw, draw)
    kind = draw.randrange(12)
    if kind == 0:
        return raw
    if kind == 1:
        return gzip.compress(gzip.compress(raw, 1, mtime=0), 1, mtime=0)
    if kind == 2:
        return zlib.compress(raw, 1)
    packed = gzip.compress(raw, 1, mtime=0)
    if kind == 3:
        return packed[:draw.randrange(len(packed))]
    if kind == 4:
        return packed + draw.choice([b"\0" * 600, packed, b"garbage"])
    return packed


def _compose():
    text = b"services:\n  web:\n    image: hub.demo.test/f/web@sha256:" + b"a" * 64 + b"\n"
    info = tarfile.TarInfo("docker-compose.yml")
    info.size = len(text)
    return info, text


def _member(draw):
    info = tarfile.TarInfo(draw.choice(_NAMES))
    info.type = draw.choice(_KINDS)
    info.linkname = draw.choice(_NAMES)
    info.mode = draw.choice([0o644, 0o755, 0o000, 0o4755, 0o7777, 0o100644])
    info.uid, info.gid = draw.choice([0, 1000, 2**31]), draw.choice([0, 65534])
    data = draw.randbytes(draw.choice([0, 1, 511, 512, 513, 3000]))
    info.size = len(data) if draw.random() < 0.8 else draw.choice([0, 1, 2**33 - 1, 10**6])
    if draw.random() < 0.2:
        info.pax_headers = {draw.choice(_PAX): draw.choice(_WORDS) for _ in range(draw.choice([1, 2, 3]))}
    return info, data


def _spoilt(raw, draw):
    """Change fields of headers, with checksums that are right again."""
    data = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        if len(data) < 512:
            break
        at = draw.randrange(len(data) // 512) * 512
        field, length = draw.choice([(0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (257,
                                                                                                                 8),
                                                                                                                 (345,
                                                                                                                  155)])
        new = draw.choice([b"\0" * length, b"7" * length, b"\xff" * length, b"\x80" + draw.randbytes(length),
                           draw.randbytes(length),
                           b" " * length, b"-1", b"../evil"])[:length]
        data[at + field:at + field + len(new)] = new
        if draw.random() < 0.85:
            data[at + 148:at + 156] = b" " * 8
            data[at + 148:at + 156] = b"%06o\0 " % sum(data[at:at + 512])
    return bytes(data)
