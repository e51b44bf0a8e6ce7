# SPDX-License-Identifier: MIT
"""Checks a bbolt database without opening it for writing and without trusting a byte of it.

dockerd has several (``network/files/local-kv.db``, ``volumes/metadata.db``, ``buildkit/*.db``) and
hangs or does not start on a damaged one. Format (go.etcd.io/bbolt, page.go, db.go, bucket.go,
freelist.go, v1.3; numbers in the machine's own byte order): pages of one size, each with a
header (id u64, flags u16, count u16, overflow u32); pages 0 and 1 are meta pages
(magic, version, page size, flags u32; root page, sequence, freelist page, high-water mark,
transaction u64; FNV-64a of these 56 bytes), of which the valid one with the higher transaction
counts; a B+tree of branch and leaf pages, whose buckets are trees of their own or lie in
a leaf's value; a page that lists the free pages, or none. A file of zero length is one
that bbolt fills when it opens it.

What bbolt would not notice and never read is no problem: pages that are neither used nor free.
"""

import os
import struct

from composeapps.dockerstore import confine
from composeapps.errors import CorruptError

MAGIC = 0xED0CDAED
VERSION = 2
_BRANCH, _LEAF, _META, _FREELIST = 1, 2, 4, 16
_NO_FREELIST = (1 << 64) - 1
_HEADER = struct.Struct("=QHHI")
_FIELDS = struct.Struct("=IIIIQQQQQ")
_CHECKSUM = struct.Struct("=Q")
_BRANCH_ELEMENT = struct.Struct("=IIQ")
_LEAF_ELEMENT = struct.Struct("=IIII")
_BUCKET = struct.Struct("=QQ")
_IN_BUCKET = 1
_MAX_KEY = 32768
_WINDOW = 64 * 1024
_SMALLEST, _LARGEST = 512, 16 * 1024 * 1024


class _Bad(Exception):
    """Ends the check; its text is the answer."""


def problem(file):
    """Return None for a sound bbolt file, else the sentence that says what is wrong with it.

    Arguments:
        file: its path, or a descriptor of it. A file that is missing is sound: it will be made.
    """
    try:
        if isinstance(file, int):
            _check(file)
            return None
        descriptor = confine.open_regular(file)
        try:
            _check(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except (_Bad, CorruptError) as err:
        return str(err)
    except OSError as err:
        return f"it cannot be read: {err.strerror or err}"
    return None


def _check(descriptor):
    size = os.fstat(descriptor).st_size
    if size == 0:
        return
    database = _Database(descriptor, size)
    database.check_freelist()
    database.check_trees()


def _fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _meta(data):
    """Return (fields, None) of a meta page, or (None, what is wrong)."""
    fields = data[_HEADER.size:_HEADER.size + _FIELDS.size]
    checksum = data[_HEADER.size + _FIELDS.size:_HEADER.size + _FIELDS.size + _CHECKSUM.size]
    if len(checksum) < _CHECKSUM.size:
        return None, "is cut off"
    values = _FIELDS.unpack(fields)
    if values[0] != MAGIC:
        return None, "has no magic number"
    if values[1] != VERSION:
        return None, f"has version {values[1]}"
    if _CHECKSUM.unpack(checksum)[0] != _fnv(fields):
        return None, "has a wrong checksum"
    return values, None


class _Bits:
    """A set of page numbers."""

    def __init__(self, count):
        self._bits = bytearray(count // 8 + 1)

    def __contains__(self, number):
        return bool(self._bits[number >> 3] & 1 << (number & 7))

    def add(self, number):
        self._bits[number >> 3] |= 1 << (number & 7)


class _Page:
    """One page with its overflow; its first 64 KiB are in memory."""

    def __init__(self, database, number):
        self._database, self.number = database, number
        self._start = number * database.page_size
        header = database.read(self._start, _HEADER.size)
        own, self.flags, self.count, self.overflow = _HEADER.unpack(header)
        if own != number:
            raise _Bad(f"page {number} calls itself page {own}")
        if number + self.overflow >= database.pages:
            raise _Bad(f"page {number} goes on above the high-water mark")
        self.length = (self.overflow + 1) * database.page_size
        self._window = database.read(self._start, min(self.length, _WINDOW))

    def bytes(self, at, length):
        """Return a piece of the page; the caller has seen to it that it is within."""
        if at + length <= len(self._window):
            return self._window[at:at + length]
        return self._database.read(self._start + at, length)


class _Inline:
    """A bucket that lies in a leaf's value; looks like a page."""

    def __init__(self, page, at, length):
        self._page, self._at, self.length = page, at, length
        self.number = page.number
        _, self.flags, self.count, _ = _HEADER.unpack(page.bytes(at, _HEADER.size))

    def bytes(self, at, length):
        return self._page.bytes(self._at + at, length)


class _Database:
    def __init__(self, descriptor, size):
        self._descriptor, self._size = descriptor, size
        self.page_size = self._find_page_size()
        if size < 2 * self.page_size:
            raise _Bad(f"it has {size} bytes, fewer than two pages")
        found = [_meta(self.read(number * self.page_size, 80)) for number in (0, 1)]
        valid = [meta for meta, _why in found if meta]
        if not valid:
            raise _Bad(f"neither meta page is valid: the first {found[0][1]}, the second {found[1][1]}")
        meta = max(valid, key=lambda fields: fields[8])
        self._root, self._freelist, self.pages = meta[4], meta[6], meta[7]
        if meta[2] != self.page_size:
            raise _Bad("its meta pages disagree on the size of a page")
        if self.pages * self.page_size > size:
            raise _Bad(f"it has {size} bytes, but uses {self.pages} pages of {self.page_size}")
        self._used, self._free = _Bits(self.pages), _Bits(self.pages)

    def read(self, at, length):
        """Return bytes of the file; raises _Bad when it is shorter."""
        data = os.pread(self._descriptor, length, at)
        if len(data) != length:
            raise _Bad("the file is cut off")
        return data

    def _find_page_size(self):
        # As bbolt: the first meta page is at 0, the second after one page of unknown size.
        first, why = _meta(os.pread(self._descriptor, 80, 0))
        for shift in range(16):
            at = _SMALLEST << shift
            if first or at >= self._size:
                break
            first, _ = _meta(os.pread(self._descriptor, 80, at))
        if not first:
            raise _Bad(f"neither meta page is valid: the first {why}")
        size = first[2]
        if not _SMALLEST <= size <= _LARGEST or size & (size - 1):
            raise _Bad(f"its pages have {size} bytes each")
        return size

    def check_freelist(self):
        if self._freelist == _NO_FREELIST:
            return
        page = self._take(self._freelist, "the list of free pages")
        if page.flags != _FREELIST:
            raise _Bad(f"page {page.number} is not the list of free pages")
        at, count = _HEADER.size, page.count
        if count == 0xFFFF:
            count = _CHECKSUM.unpack(page.bytes(at, 8))[0]
            at += 8
        if at + 8 * count > page.length:
            raise _Bad("the list of free pages is longer than its page")
        before = 1
        while count:
            some = min(count, _WINDOW // 8)
            for number in struct.unpack(f"={some}Q", page.bytes(at, 8 * some)):
                if not before < number < self.pages:
                    raise _Bad(f"the list of free pages has page {number} after page {before}")
                if number in self._used:
                    raise _Bad(f"page {number} is free and in use")
                self._free.add(number)
                before = number
            at, count = at + 8 * some, count - some

    def _take(self, number, what):
        """Return a page that nothing else may refer to."""
        if not 2 <= number < self.pages:
            raise _Bad(f"{what} is said to be page {number} of {self.pages}")
        page = _Page(self, number)
        for each in range(number, number + page.overflow + 1):
            if each in self._used:
                raise _Bad(f"page {each} is referred to twice")
            if each in self._free:
                raise _Bad(f"page {each} is free and in use")
            self._used.add(each)
        return page

    def check_trees(self):
        # Every page is taken once, so this ends however the pages refer to each other.
        todo = [(self._root, None, None)]
        while todo:
            number, low, high = todo.pop()
            page = self._take(number, "the root" if number == self._root else "part of a tree")
            if page.flags == _BRANCH:
                todo.extend(self._branch(page, low, high))
            elif page.flags == _LEAF:
                todo.extend((root, None, None) for root in self._leaf(page, low, high))
            else:
                raise _Bad(f"page {number} is neither a branch nor a leaf")

    def _branch(self, page, low, high):
        if not page.count:
            raise _Bad(f"branch page {page.number} is empty")
        children = []
        for index, (offset, length, child) in enumerate(_elements(page, _BRANCH_ELEMENT)):
            key = _key(page, index, offset, length)
            _in_order(page, key, low, index == 0, high)
            if children:
                children[-1] = (*children[-1][:2], key)
            children.append((child, key, high))
            low = key
        return children

    def _leaf(self, page, low, high, inline=False):
        for index, (flags, offset, length, size) in enumerate(_elements(page, _LEAF_ELEMENT)):
            key = _key(page, index, offset, length, size)
            _in_order(page, key, low, index == 0, high)
            low = key
            if not flags & _IN_BUCKET:
                continue
            at = _HEADER.size + _LEAF_ELEMENT.size * index + offset + length
            if inline or size < _BUCKET.size:
                raise _Bad(f"page {page.number} has a malformed bucket")
            root, _sequence = _BUCKET.unpack(page.bytes(at, _BUCKET.size))
            if root:
                yield root
                continue
            if size < _BUCKET.size + _HEADER.size:
                raise _Bad(f"page {page.number} has a malformed bucket")
            inner = _Inline(page, at + _BUCKET.size, size - _BUCKET.size)
            if inner.flags != _LEAF:
                raise _Bad(f"page {page.number} has a malformed bucket")
            for _root in self._leaf(inner, None, None, inline=True):
                pass


def _elements(page, kind):
    if _HEADER.size + kind.size * page.count > page.length:
        raise _Bad(f"page {page.number} has more elements than it can hold")
    return kind.iter_unpack(page.bytes(_HEADER.size, kind.size * page.count))


def _key(page, index, offset, length, size=0):
    """Return an element's key; raises _Bad unless key and value are within the page, behind the elements."""
    at = _HEADER.size + 16 * index + offset
    if length > _MAX_KEY or at < _HEADER.size + 16 * page.count or at + length + size > page.length:
        raise _Bad(f"page {page.number} has an element that is not within it")
    return page.bytes(at, length)


def _in_order(page, key, low, first, high):
    if (low is not None and (key < low if first else key <= low)) or (high is not None and key >= high):
        raise _Bad(f"page {page.number} has its keys out of order")
