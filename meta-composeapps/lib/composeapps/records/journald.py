# SPDX-License-Identifier: MIT
"""Entries with fields in systemd's journal, by its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).

What is told so can be found by its fields: ``journalctl COMPOSEAPPS_TARGET=shop-7``.
"""

import contextlib
import socket

SOCKET = "/run/systemd/journal/socket"
# As syslog(3) has it.
INFO, WARNING = 6, 4
# A datagram takes more, but nobody reads more of a field.
_LONGEST = 4000


def send(message, priority=INFO, **fields):
    """Send an entry; where there is no journal, nothing is done.

    Arguments:
        message: one line.
        priority: INFO or WARNING.
        fields: by their names in the journal, in capitals; what is empty is left out.
    """
    given = {"MESSAGE": message, "PRIORITY": priority, "SYSLOG_IDENTIFIER": "composeapps",
             **{name: value for name, value in fields.items() if value not in ("", None)}}
    # A value with a line end would need the protocol's other form, and could be taken for fields in this one.
    data = "".join(f"{name}={' '.join(str(value).split())[:_LONGEST]}\n" for name, value in given.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.sendto(data.encode(errors="replace"), SOCKET)
