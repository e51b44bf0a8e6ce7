# SPDX-License-Identifier: MIT
"""The provisioning area: what one device was given by its manufacturer, on a partition of its own.

The partition "provision" holds no file system. Its first 64 KiB are, numbers with the least byte first:

    0   16 bytes   "composeapps-prov"
    16  4          version of this format, 1
    20  4          length of the content
    24  32         SHA-256 of the content
    56  8          zero
    64             the content, then zeros

The content is one JSON object with sorted keys, of which each may be missing: "device" (the device's name in its
fleet), "serial" (its serial number), "settings" (TOML, keys of the agent's configuration), "key", "certificate" and
"authority" (PEM), "new_key" (true: the device makes its key by itself). The same content always gives the same bytes.
What a device has taken over leaves only the serial number, in the first 512 bytes, which a disk writes as a whole.
"""

import hashlib
import json
import re
import struct
from typing import NamedTuple

from composeapps.errors import CorruptError, UsageError

PARTITION = "provision"
SIZE = 64 * 1024
SECTOR = 512
_MAGIC, _VERSION = b"composeapps-prov", 1
_HEADER = struct.Struct("<16sII32s8x")
# As names in certificates, headers and files may be; an OSTree or TUF server takes them in its paths.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class OtherFormatError(CorruptError):
    """The area is of another version of the format: whole, perhaps, and somebody's."""


class Provision(NamedTuple):
    """What a device is given; empty is what it is not given.

    ``key``, ``certificate`` and ``authority`` are texts in PEM, ``settings`` is TOML.
    """

    device: str = ""
    serial: str = ""
    settings: str = ""
    key: str = ""
    certificate: str = ""
    authority: str = ""
    new_key: bool = False

    @property
    def waits(self):
        """Tell whether there is more than what a device leaves that has taken it over."""
        return self != Provision(serial=self.serial)


def name(text, what):
    """Return a device's name or serial number. Raises UsageError for one that is none."""
    if not NAME.fullmatch(text):
        raise UsageError(f"{what} '{text}' is none: 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter "
                         "or digit")
    return text


def pack(given):
    """Return the bytes of the area that holds a Provision, always SIZE of them. Raises UsageError for too much."""
    content = _content(given)
    if _HEADER.size + len(content) > SIZE:
        raise UsageError(f"identity and settings have {len(content)} bytes, but the provisioning area has room for "
                         f"{SIZE - _HEADER.size}: leave certificates out of the authorities that the device does not "
                         "need")
    return (_header(content) + content).ljust(SIZE, b"\0")


def _content(given):
    value = {key: each for key, each in given._asdict().items() if each}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _header(content):
    return _HEADER.pack(_MAGIC, _VERSION, len(content), hashlib.sha256(content).digest())


def checksum(data):
    """Return the SHA-256 (hexadecimal) that the area's head tells of its content, also of one that is being wiped.

    For an area that was never written it is "".
    """
    if len(data) < _HEADER.size or data[:len(_MAGIC)] != _MAGIC:
        return ""
    return _HEADER.unpack_from(data)[3].hex()


def parse(data):
    """Return the Provision of an area's bytes; None for one that was never written.

    Raises CorruptError for one that is torn or damaged, and its subclass OtherFormatError for one of another version.
    """
    if not checksum(data):
        return None
    _magic, version, length, expected = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise OtherFormatError(f"the provisioning area has format {version}, and this program knows format {_VERSION}: "
                               "provision the device by a program of the same release")
    content = data[_HEADER.size:_HEADER.size + length]
    if len(content) < length or hashlib.sha256(content).digest() != expected:
        raise CorruptError("the provisioning area is damaged, or was not written to its end: provision the device anew")
    try:
        return _checked(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        raise CorruptError("the provisioning area holds something else than what a device is given: provision the "
                           "device anew") from None


def _checked(value):
    given = Provision(**value)
    for field, each in value.items():
        if not isinstance(each, bool if field == "new_key" else str):
            raise ValueError(field)
    if any(each and not NAME.fullmatch(each) for each in (given.device, given.serial)):
        raise ValueError("name")
    return given


def read(stream):
    """Return the area's bytes from an open disk or partition, positioned at its begin. Raises OSError."""
    return stream.read(SIZE)


def wiped(given):
    """Return the first sector of an area after its Provision was taken over, of which the rest is zeros."""
    content = _content(Provision(serial=given.serial))
    return (_header(content) + content).ljust(SECTOR, b"\0")
