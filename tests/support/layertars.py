# SPDX-License-Identifier: MIT
"""Tars of layers with every kind of entry that dockerd unpacks, in every format of header that it reads."""

import io
import random
import tarfile

# cap_net_raw=ep, as setcap writes it (revision 2, little endian).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
_KINDS = {
    "file": tarfile.REGTYPE, "hard": tarfile.LNKTYPE, "symlink": tarfile.SYMTYPE, "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE, "dir": tarfile.DIRTYPE, "fifo": tarfile.FIFOTYPE,
}
LONG = "long/" + "x" * 120 + "/" + "y" * 200


def noise(size, seed=1):
    """Return ``size`` bytes that no compression makes smaller, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def entry(name, kind="file", data=b"", link="", mode=None, owner=(0, 0), device=(0, 0), mtime=1_700_000_000, **pax):
    """Return (TarInfo, data) of one entry; ``pax`` are records of its pax header, "__" for a dot."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mtime = _KINDS[kind], len(data), link, mtime
    info.mode = (0o755 if kind == "dir" else 0o644) if mode is None else mode
    info.uid, info.gid = owner
    info.devmajor, info.devminor = device
    # tarfile writes pax records as UTF-8 with escapes for what is none.
    info.pax_headers = {
        key.replace("__", "."): value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        for key, value in pax.items()
    }
    return info, data


def archive(entries, style=tarfile.PAX_FORMAT, **options):
    """Return the tar (bytes) of entries; ``style`` is one of tarfile's formats."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style, errors="surrogateescape", **options) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def base_layer():
    """The lowest layer: files, directories, links, devices, attributes; pax headers."""
    return archive([
        entry("./", "dir"),
        entry("bin/", "dir"),
        entry("bin/tool", data=noise(300_000), mode=0o4755),
        entry("bin/raw", data=noise(5_000, 2), mode=0o755, SCHILY__xattr__security__capability=CAPABILITY),
        entry("bin/same", "hard", link="bin/tool", mode=0o4755),
        entry("bin/alias", "symlink", link="../bin/tool", mode=0o777),
        entry("etc/", "dir", mode=0o750, owner=(7, 8)),
        entry("etc/empty"),
        entry("etc/text", data=b"hello\n", owner=(1000, 1001), mode=0o600, SCHILY__xattr__user__note=b"a note"),
        entry("etc/old", data=b"goes away\n"),
        entry("etc/opaque/", "dir"),
        entry("etc/opaque/old", data=b"hidden\n"),
        entry("dev/null", "char", device=(1, 3), mode=0o666),
        entry("dev/disk", "block", device=(254, 300), mode=0o660, owner=(0, 6)),
        entry("run/pipe", "fifo", mode=0o600),
        entry(LONG, data=b"long name\n"),
        entry("umlaut/\udcfc\udcff", data=b"not UTF-8\n"),
        entry("umlaut/<ü&>\u2028", data=b"escaped in JSON\n"),
        entry("far", data=b"large numbers", owner=(3_000_000, 4_000_000), mtime=1_600_000_000.25),
        entry("tmp/", "dir", mode=0o1777),
    ])


def upper_layer():
    """A layer over it: whiteouts, an opaque directory, a replaced directory; GNU headers."""
    return archive([
        entry("etc/", "dir", mode=0o750, owner=(7, 8)),
        entry("etc/.wh.old"),
        entry("etc/opaque/", "dir"),
        entry("etc/opaque/.wh..wh..opq"),
        entry("etc/opaque/new", data=noise(70_000, 3)),
        # No entry of its own names these directories.
        entry("deep/er/" + "z" * 140, data=b"x" * 1024),
        entry("deep/link", "symlink", link="q" * 150),
        entry("deep/hard", "hard", link="deep/er/" + "z" * 140),
        entry("usr/", "dir"),
        entry("usr/lib/", "dir"),
        entry("lib", "symlink", link="usr/lib"),
        entry("lib/through", data=b"beneath a symbolic link\n"),
        entry("big-id", data=b"b", owner=(5_000_000, 6_000_000)),
    ], tarfile.GNU_FORMAT)


def unsavable_layer():
    """A layer that dockerd unpacks but cannot put together again: two entries of one path, an absolute link."""
    return archive([
        entry("one", data=b"first"),
        entry("/one", data=b"second"),
        entry("usr/lib/", "dir"),
        entry("opt/lib64", "symlink", link="/usr/../../usr/lib"),
        entry("opt/lib64/through", data=b"beneath an absolute link\n"),
    ])


def odd_layer():
    """A layer with a global pax header, ustar's prefix, one file only of zeros, and padding at its end."""
    made = archive([
        entry("p" * 90 + "/" + "n" * 90, data=b"prefix"),
        entry("zeros", data=bytes(40_000)),
    ], tarfile.USTAR_FORMAT)
    # The end of an archive is two blocks of zeros and padding: cut it off the first.
    first = archive([], pax_headers={"comment": "global"}).rstrip(b"\0")
    return first + bytes(-len(first) % 512) + made + bytes(30_000)
