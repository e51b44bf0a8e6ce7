# SPDX-License-Identifier: MIT
"""Whose a certificate is and how long it is good, read from its DER: Python's standard library has no function for it.

The structure is that of RFC 5280, 4.1, the encoding that of ITU-T X.690: each value has a tag, a length and its bytes.
"""

import datetime
import ssl
from typing import NamedTuple

from composeapps.errors import UsageError

_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
# Object identifiers 2.5.4.3, commonName, and 2.5.4.11, organizationalUnitName.
_COMMON_NAME, _UNIT = bytes.fromhex("550403"), bytes.fromhex("55040b")


class Certificate(NamedTuple):
    """``names``: the common names of the subject, ``units``: its organizational units; from when and until when it is
    good, UTC.
    """

    names: tuple
    not_before: datetime.datetime
    not_after: datetime.datetime
    units: tuple = ()


def read(pem):
    """Return the Certificate of a text, the first one in it. Raises UsageError for what is none."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        inner = pem[pem.index(begin):pem.index(end, pem.index(begin)) + len(end)]
        _tag, whole, _rest = _value(ssl.PEM_cert_to_DER_cert(inner))
        fields = list(_values(_value(whole)[1]))
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        # serial number, signature, issuer, validity, subject
        before, after = (_time(*each) for each in _values(fields[3][1]))
        subject = fields[4][1]
        return Certificate(tuple(_named(subject, _COMMON_NAME)), before, after, tuple(_named(subject, _UNIT)))
    except (ValueError, IndexError):
        raise UsageError("the certificate cannot be read: it has to be X.509, in PEM") from None


def _value(data):
    """Return (tag, content, what follows) of the first value."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    if at + length > len(data):
        raise ValueError
    return tag, data[at:at + length], data[at + length:]


def _values(data):
    while data:
        tag, content, data = _value(data)
        yield tag, content


def _named(subject, wanted):
    for _tag, group in _values(subject):
        for _tag, pair in _values(group):
            (_tag, kind), (_tag, text) = _values(pair)
            if kind == wanted:
                yield text.decode("utf-8", "replace")


def _time(tag, content):
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # RFC 5280, 4.1.2.5.1
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
