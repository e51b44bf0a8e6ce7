# SPDX-License-Identifier: MIT
"""Layers are measured as they are unpacked: by any compression, with any header, and never by much memory."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composeapps.app import layers
from composeapps.app.layers import Unmeasurable, measure
from composeapps.errors import CorruptError
from support.images import tar


def by_tarfile(data):
    """What the standard library says, whose reading of archives is the reference."""
    size = usage = 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            size += info.size if info.isreg() else 0
            usage += -(-info.size // 4096) * 4096 if info.isreg() and info.size else 4096
    return size, usage


def in_pieces(data, size=1000):
    return (data[start:start + size] for start in range(0, len(data), size))


FILES = {"a": b"", "b": b"x", "c": b"y" * 4096, "d/" + "e" * 200: b"z" * 4097, "f": b"w" * 300_000}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress,
                                  lambda data: gzip.compress(data[:777]) + gzip.compress(data[777:]) + b"\0" * 700])
def test_by_any_compression(pack):
    data = tar(FILES)
    assert measure(in_pieces(pack(data)), "it") == by_tarfile(data)
    assert measure(in_pieces(pack(data), 1), "it") == by_tarfile(data) if len(pack(data)) < 9000 else True


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_of_all_kinds(form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for number, kind in enumerate((tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
                                       tarfile.CHRTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)):
            info = tarfile.TarInfo(f"{'n' * 80}{number}" if form == tarfile.USTAR_FORMAT else f"{'n' * 150}{number}")
            info.type, info.linkname = kind, "n" * 90
            info.size = 5000 if kind in (tarfile.AREGTYPE, tarfile.CONTTYPE) else 0
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    assert measure([out.getvalue()], "it") == by_tarfile(out.getvalue())


def test_the_size_in_an_extended_header_goes_before_that_of_the_entry():
    data = tar({"big": b"b" * 700}, pax_headers={"size": "700", "comment": "ü" * 300})
    broken = bytearray(data)
    at = data.index(b"big\0")
    broken[at + 124:at + 136] = b"00000000000\0"
    total = sum(broken[at:at + 512]) - sum(broken[at + 148:at + 156]) + 256
    broken[at + 148:at + 156] = b"%06o\0 " % total
    assert measure([bytes(broken)], "it") == (700, 4096)


def test_a_sparse_file_counts_as_long_as_it_is():
    for form in ("GNU.sparse.realsize", "GNU.sparse.size"):
        data = tar({"s": b"d" * 512}, pax_headers={form: "1000000", "GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
        assert measure([data], "it")[0] == 1_000_000


@pytest.mark.parametrize("data", [b"", gzip.compress(b""), bytes(1024), gzip.compress(bytes(9999)), lzma.compress(b"")])
def test_layers_that_are_empty(data):
    assert measure([data], "it") == (0, 0)
    assert measure([], "it") == (0, 0)


def test_a_layer_of_zstd(monkeypatch):
    frame = bytes.fromhex("28b52ffd2000010000")
    try:
        assert measure([frame], "it") == (0, 0)
    except Unmeasurable as err:
        assert "zstd" in str(err)


@pytest.mark.parametrize(("data", "says"), [
    (b"<html>a captive portal</html>" * 50, "no tar archive"),
    (b"short", "in the middle of an entry"),
    (tar(FILES)[:-12000], "in the middle of an entry"),
    (gzip.compress(tar(FILES))[:-300], "in the middle of its compressed data"),
    (gzip.compress(b"x")[:12] + b"\xff" * 99, "decompressing"),
    (tar({"a": b"1"}, pax_headers={"comment": "c" * 1_200_000}), "no extended header like that"),
    (tar({"a": b"1"}, pax_headers={"size": "9" * 30}), "a size that is none"),
])
def test_what_is_no_layer(data, says):
    with pytest.raises(CorruptError, match=f"the layer is not a readable layer: .*{says}"):
        measure([data], "the layer")


def test_an_archive_that_unpacks_to_much_takes_little_memory():
    import tracemalloc

    data = gzip.compress(tar({"zeros": bytes(50_000_000)}), 1)
    tracemalloc.start()
    assert measure([data], "it")[0] == 50_000_000
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_brings_it_down(data):
    good = tar({"a": b"x" * 700, "b" * 150: b"y"}, pax_headers={"mtime": "1.5"})
    packed = data.draw(st.sampled_from([good, gzip.compress(good, mtime=0)]))
    damaged = bytearray(packed[:data.draw(st.integers(0, len(packed)))])
    for at in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=6)) if damaged else ():
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        size, usage = measure(in_pieces(bytes(damaged), data.draw(st.sampled_from([1, 100, 5000]))), "it")
    except (CorruptError, layers.Unmeasurable) as err:
        assert str(err).isprintable()
    else:
        assert size >= 0 and usage % 4096 == 0
