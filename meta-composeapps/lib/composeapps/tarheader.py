# SPDX-License-Identifier: MIT
"""Headers of tar archives, read exactly as dockerd reads them: those of layers, and of bundles.

Formats: POSIX.1-2017 pax (which has ustar in it), GNU tar's long names and base-256 numbers,
star's prefix, GNU's sparse files in pax headers. Where these leave a choice, Go's archive/tar
is followed, because that is what made the layers.

Python's tarfile is no help here: it does not give the raw bytes of a header, skips what it
cannot parse, and resolves names where dockerd does not. With what it imports it takes longer to load than a boot
takes to read a bundle.
"""

from functools import lru_cache

from composeapps.errors import CorruptError

BLOCK = 512
# Go gives up on longer extended headers and names as well.
MAX_SPECIAL = 1024 * 1024
_ZERO = bytes(BLOCK)
# Types without a payload, whatever their size field says.
HEADER_ONLY = b"123456"
XATTR = b"SCHILY.xattr."


class HeaderError(CorruptError):
    """The bytes are no tar header."""


class Header:
    """What one entry of a tar says about a file.

    ``name`` and ``link`` are bytes as in the archive; ``type`` one of b"0" (regular), b"1" (hard
    link), b"2" (symbolic link), b"3" and b"4" (character and block device), b"5" (directory),
    b"6" (FIFO), b"g" (global pax header, names no file), or what the archive has. ``size`` is
    the file's size in bytes, ``stored`` the bytes of payload in the archive (they differ for
    sparse files only). ``mtime`` and ``atime`` are nanoseconds since the epoch; ``xattrs``
    {name: value}, both bytes; ``sparse`` tells a sparse file; ``pax`` its pax records.
    """

    __slots__ = ("name", "type", "size", "stored", "mode", "uid", "gid", "mtime", "link", "major", "minor", "atime",
                 "sparse", "xattrs", "pax")

    def __init__(self, name, kind, size, mode, uid, gid, mtime, link):
        self.name, self.type, self.size, self.stored = name, kind, size, size
        self.mode, self.uid, self.gid, self.mtime, self.link = mode, uid, gid, mtime, link
        self.major = self.minor = self.atime = 0
        self.sparse, self.xattrs, self.pax = False, {}, {}


def padding(size):
    """Return how many bytes follow ``size`` bytes of payload up to the next block."""
    return -size % BLOCK


def read_header(read, raw, pad=0, most=None):
    """Read up to the next file's header.

    Arguments:
        read: a function that returns exactly the number of bytes asked for, or fewer at the end.
        raw: a list; every piece that was read is appended to it.
        pad: bytes of padding that are left from the entry before.
        most: so many bytes of extended headers may come before the file's own; None for any number of them.

    Returns (Header, padding after its payload), or (None, 0) at the archive's end.
    Raises HeaderError for what dockerd would not have accepted.
    """
    pax, long_name, long_link, special_bytes = {}, b"", b"", 0
    while True:
        if pad:
            # An archive may end without the last payload's padding.
            raw.append(read(pad))
        block = read(BLOCK)
        raw.append(block)
        if not block:
            return None, 0
        if block == _ZERO:
            block = read(BLOCK)
            raw.append(block)
            if block and block != _ZERO:
                raise HeaderError("the archive goes on after a block of zeros")
            return None, 0
        if len(block) != BLOCK:
            raise HeaderError("the archive ends in the middle of a header")
        header = _parse(block)
        if header.type in b"xgLK":
            special_bytes += max(header.stored, BLOCK)
            if most is not None and special_bytes > most:
                raise HeaderError(f"it has more than {most} bytes of headers for one member")
            special = _special(read, raw, header.stored)
            pad = padding(header.stored)
            if header.type == b"L":
                long_name = special.partition(b"\0")[0]
            elif header.type == b"K":
                long_link = special.partition(b"\0")[0]
            else:
                pax = parse_pax(special)
                if header.type == b"g":
                    _merge(header, pax)
                    header.size = header.stored = 0
                    return header, pad
            continue
        _merge(header, pax)
        header.name = long_name or header.name
        header.link = long_link or header.link
        if header.type == b"\0":
            header.type = b"5" if header.name.endswith(b"/") else b"0"
        if header.type in HEADER_ONLY:
            header.stored = 0
        if header.type == b"S":
            raise HeaderError("GNU tar's old sparse format is not used in layers")
        _sparse(header)
        return header, padding(header.stored)


def _special(read, raw, size):
    if size > MAX_SPECIAL:
        raise HeaderError(f"an extended header claims {size} bytes")
    data = read(size)
    raw.append(data)
    if len(data) != size:
        raise HeaderError("the archive ends in the middle of an extended header")
    return data


def _parse(block):
    claimed = _number(block[148:156])
    summed = block[:148] + b"        " + block[156:]
    # Some old writers summed signed bytes.
    if claimed != (unsigned := sum(summed)) and claimed != unsigned - 256 * sum(byte > 127 for byte in summed):
        raise HeaderError("a header's checksum is wrong")
    name = _text(block[:100])
    header = Header(
        name, block[156:157], _number(block[124:136]), _number(block[100:108]), _number(block[108:116]),
        _number(block[116:124]), _number(block[136:148]) * 1_000_000_000, _text(block[157:257]))
    if header.size < 0:
        raise HeaderError("a header's size is negative")
    prefix = b""
    if block[257:263] == b"ustar\0":
        _devices(header, block)
        if block[508:512] == b"tar\0":
            prefix = _text(block[345:476])
            header.atime = _number(block[476:488]) * 1_000_000_000
        else:
            prefix = _text(block[345:500])
    elif block[257:265] == b"ustar  \0":
        _devices(header, block)
        try:
            header.atime = _number(block[345:357]) * 1_000_000_000 if block[345] else 0
            if block[357]:
                _number(block[357:369])
        except HeaderError:
            # Go before 1.8 wrote a prefix there, and Go still reads it.
            header.atime = 0
            if (text := _text(block[345:500])).isascii():
                prefix = text
    if prefix:
        header.name = prefix + b"/" + name
    return header


def _devices(header, block):
    header.major, header.minor = _number(block[329:337]), _number(block[337:345])


def _text(data):
    return data.partition(b"\0")[0]


@lru_cache(maxsize=512)
def _number(data):
    # Most numbers of a layer are the same few: owners, modes, one time.
    if data[0] & 0x80:
        number = int.from_bytes(data, "big", signed=False) & ((1 << 8 * len(data) - 1) - 1)
        if data[0] & 0x40:
            number -= 1 << 8 * len(data) - 1
        if not -1 << 63 <= number < 1 << 63:
            raise HeaderError("a number in a header is too large")
        return number
    text = _text(data.strip(b" \0"))
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise HeaderError("a number in a header is not octal")
    return int(text, 8)


def parse_pax(data):
    """Return the records {keyword: value}, both bytes, of a pax extended header.

    Raises HeaderError when it is malformed.
    """
    records, at, regions = {}, 0, []
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        if not digits.isdigit():
            raise HeaderError("a pax record has no length")
        end = at + int(digits)
        if end > len(data) or end < space + 3 or data[end - 1:end] != b"\n":
            raise HeaderError("a pax record has a wrong length")
        keyword, equals, value = data[space + 1:end - 1].partition(b"=")
        named = keyword in (b"path", b"linkpath", b"uname", b"gname")
        if not keyword or not equals or b"\0" in (value if named else keyword):
            raise HeaderError("a pax record is malformed")
        if keyword in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            # The first version repeated two keywords instead of giving a map.
            if (keyword == b"GNU.sparse.offset") == len(regions) % 2 or b"," in value:
                raise HeaderError("a sparse file's map is malformed")
            regions.append(value)
        else:
            records[keyword] = value
        at = end
    if regions:
        records[b"GNU.sparse.map"] = b",".join(regions)
    return records


def _merge(header, pax):
    header.pax = pax
    for keyword, value in pax.items():
        if keyword.startswith(XATTR):
            header.xattrs[keyword[len(XATTR):]] = value
        elif not value:
            continue
        elif keyword == b"path":
            header.name = value
        elif keyword == b"linkpath":
            header.link = value
        elif keyword == b"uid":
            header.uid = _decimal(value)
        elif keyword == b"gid":
            header.gid = _decimal(value)
        elif keyword == b"size":
            header.size = header.stored = _decimal(value)
            if header.size < 0:
                raise HeaderError("a pax record gives a negative size")
        elif keyword == b"mtime":
            header.mtime = _time(value)
        elif keyword == b"atime":
            header.atime = _time(value)


def _decimal(value):
    text = value[1:] if value[:1] in (b"+", b"-") else value
    if not text.isdigit() or len(text) > 19 or (number := int(text)) >= 1 << 63:
        raise HeaderError("a number in a pax record is malformed")
    return -number if value.startswith(b"-") else number


def _time(value):
    seconds, _, fraction = value.partition(b".")
    if fraction and not fraction.isdigit():
        raise HeaderError("a time in a pax record is malformed")
    nanoseconds = int((fraction[:9] + b"000000000")[:9])
    whole = _decimal(seconds) * 1_000_000_000
    return whole - nanoseconds if seconds.startswith(b"-") else whole + nanoseconds


def _sparse(header):
    version = header.pax.get(b"GNU.sparse.major", b""), header.pax.get(b"GNU.sparse.minor", b"")
    if version not in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")) and (
            any(version) or not header.pax.get(b"GNU.sparse.map")):
        return
    if header.type in HEADER_ONLY:
        raise HeaderError("a sparse file is not a regular file")
    header.sparse = True
    header.name = header.pax.get(b"GNU.sparse.name") or header.name
    size = header.pax.get(b"GNU.sparse.size") or header.pax.get(b"GNU.sparse.realsize")
    if size:
        header.size = _decimal(size)
        if header.size < 0:
            raise HeaderError("a sparse file's size is negative")


def sparse_regions(header, read):
    """Return the data regions [(offset, length)] of a sparse file, whose payload comes next.

    Arguments:
        header: its Header.
        read: as in ``read_header``; version 1.0 of the format has its map before the data.

    Returns (regions, bytes of payload that the map took). Raises HeaderError.
    """
    taken = 0
    if header.pax.get(b"GNU.sparse.major") == b"1":
        text, found, wanted = bytearray(), 0, 1
        while found < wanted:
            block = read(BLOCK)
            taken += BLOCK
            if len(block) != BLOCK or taken > min(MAX_SPECIAL, header.stored):
                raise HeaderError("a sparse file's map is malformed")
            text += block
            found += block.count(b"\n")
            if wanted == 1 and found:
                wanted = 1 + 2 * _decimal(bytes(text.partition(b"\n")[0]))
                if wanted < 1:
                    raise HeaderError("a sparse file's map is malformed")
        text = bytes(text)
        numbers = text.split(b"\n")[1:wanted]
    else:
        listed = header.pax.get(b"GNU.sparse.map")
        numbers = listed.split(b",") if listed else []
        if _decimal(header.pax.get(b"GNU.sparse.numblocks", b"")) * 2 != len(numbers):
            raise HeaderError("a sparse file's map is malformed")
    numbers = [_decimal(number) for number in numbers]
    if len(numbers) % 2:
        raise HeaderError("a sparse file's map is malformed")
    # BitBake imports this on a Python whose zip() has no "strict".
    regions = list(zip(numbers[::2], numbers[1::2]))  # noqa: B905
    at = 0
    for offset, length in regions:
        if offset < at or length < 0 or offset + length > header.size:
            raise HeaderError("a sparse file's map is malformed")
        at = offset + length
    if sum(length for _, length in regions) != header.stored - taken:
        raise HeaderError("a sparse file's map does not match its data")
    return regions, taken
