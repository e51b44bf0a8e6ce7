# SPDX-License-Identifier: MIT
"""CRC-64/GO-ISO, as Go's hash/crc64 computes it with its ISO table, without a loop over bytes.

The polynomial is x^64 + x^4 + x^3 + x + 1 (ISO 3309), least significant bit first, with all
bits set at the start and flipped at the end. Squaring is linear over GF(2), so that
x^(64*q) is congruent to x^(4*q) + x^(3*q) + x^q + 1 for every power of two q: a block of any
length is halved with four shifts of one long integer, which costs Python about as
much as reading the block.
"""

_ONES = (1 << 64) - 1


class Crc64:
    """A running checksum; feed it with ``update``, read it with ``digest``."""

    def __init__(self):
        self._state = _ONES

    def update(self, data):
        """Add ``data`` (bytes-like). Blocks of some 100 KiB are fastest."""
        if data:
            self._state = _reduce(int.from_bytes(data, "little") ^ self._state, 8 * len(data) + 64)

    def digest(self):
        """Return the checksum so far: 8 bytes, most significant first, as Go's Sum."""
        return (self._state ^ _ONES).to_bytes(8, "big")


def _reduce(value, width):
    """Return the 64-bit remainder of the polynomial whose term x^d is bit ``width - 1 - d`` of ``value``."""
    q = 1 << max(0, (width - 1).bit_length() - 7)
    while width > 64:
        low = 64 * q
        while width > low:
            # The terms from x^low upwards are the low bits: take them off and add them in times
            # x^(4*q) + x^(3*q) + x^q + 1, which is (x^(3*q) + 1) * (x^q + 1).
            excess = width - low
            upper = value & ((1 << excess) - 1)
            upper = (upper << q) ^ upper
            upper = (upper << 3 * q) ^ upper
            width = max(low, excess + 4 * q)
            value = (value >> excess << (width - low)) ^ (upper << (width - excess - 4 * q))
        q >>= 1
    return value
