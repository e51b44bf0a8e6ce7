# SPDX-License-Identifier: MIT
"""A bundle costs the agent at most 64 MiB and 5 seconds of CPU, however it is packed."""

import io
import struct
import tarfile
import zlib

import pytest

from support.apps import App, compose_text, make_app, push_app
from support.images import descriptor, dump, multi_platform, push_image

# Commands that read what is in the store, and need no dockerd.
READERS = (("ls",), ("show", "shop"), ("check", "--store-only", "shop"))


def services(registry, image, count):
    """Return {name: pinned reference}."""
    return {f"s{number}": f"{registry.host}/f/web@{image.digest}" for number in range(count)}


def with_bundle(app, bundle):
    """Return an App with other bytes for its bundle."""
    document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.fio+compose-app",
                "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
                "layers": [descriptor("application/octet-stream", bundle)], "annotations": {"compose-app": "v1"}}
    return App(dump(document), bundle, app.bundle_index, app.layers_meta)


def deflated(parts):
    """Return the gzip file of (bytes, how often) parts, as quickly as one that repeats itself can be made."""
    out, checksum, size = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03"], 0, 0
    for data, times in parts:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)
        out += [packed] * times
        for _ in range(times):
            checksum = zlib.crc32(data, checksum)
        size += len(data) * times
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join((*out, packer.flush(), struct.pack("<LL", checksum, size & 0xFFFFFFFF)))


def extended_header(size, kind, text):
    """Return the gzip file of a tar that begins with an extended header of ``size`` bytes, then a compose file."""
    block = b"a" * (1 << 20)
    # "LENGTH key=value\n", of which the whole is LENGTH bytes.
    head = f"{size} comment=".encode() if kind == tarfile.XHDTYPE else b""
    times, rest = divmod(size - len(head) - 1, len(block))
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = kind, size
    own = tarfile.TarInfo("docker-compose.yml")
    own.size = len(text)
    padding = bytes(-size % 512)
    tail = own.tobuf() + text + bytes(-len(text) % 512) + bytes(1024)
    return deflated([(info.tobuf() + head, 1), (block, times),
                     (block[:rest] + b"\n" + padding + tail, 1)])


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME], ids=["x", "g", "L"])
def test_a_bundle_with_a_huge_extended_header(device, kind):
    image = multi_platform("web")
    text = compose_text(services(device.registry, image, 1)).encode()
    app = with_bundle(make_app(text.decode(), images=[image]), extended_header(600 << 20, kind, text))
    assert len(app.bundle) < 4 << 20
    uri = push_app(device.registry, f"{device.registry.host}/f/shop:big{kind.decode()}", app)
    push_image(device.registry, f"{device.registry.host}/f/web:1", image)
    done = device.run("pull", uri).within()
    assert done.status == 4 and "bundle" in done.err
    device.keep(app, image, text.decode())
    for words in READERS:
        device.run(*words).within()


def _links(kind, count):
    """Return an uncompressed tar's members: links of which each leads to the one before."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(count):
            info = tarfile.TarInfo(f"l{number}")
            if number:
                info.type, info.linkname = kind, f"l{number - 1}"
            archive.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_ten_thousand_links(device, kind):
    image = multi_platform("web")
    text = compose_text(services(device.registry, image, 1)).encode()
    own = tarfile.TarInfo("docker-compose.yml")
    own.size = len(text)
    packed = deflated([(own.tobuf() + text + bytes(-len(text) % 512) + _links(kind, 10000), 1)])
    app = with_bundle(make_app(text.decode(), images=[image]), packed)
    uri = push_app(device.registry, f"{device.registry.host}/f/shop:links{kind.decode()}", app)
    push_image(device.registry, f"{device.registry.host}/f/web:1", image)
    device.run("pull", uri).within()
    device.keep(app, image, text.decode())
    for words in READERS:
        device.run(*words).within()


@pytest.mark.parametrize("size", [2**40, 2**62, 8 * 2**30 - 1])
def test_a_member_of_a_size_without_end(device, size):
    image = multi_platform("web")
    text = compose_text(services(device.registry, image, 1)).encode()
    own, odd = tarfile.TarInfo("docker-compose.yml"), tarfile.TarInfo("large")
    own.size, odd.size = len(text), size
    packed = deflated([(own.tobuf() + text + bytes(-len(text) % 512) + odd.tobuf(tarfile.GNU_FORMAT) + bytes(4096), 1)])
    app = with_bundle(make_app(text.decode(), images=[image]), packed)
    done = device.run("pull", push_app(device.registry, f"{device.registry.host}/f/shop:size", app)).within()
    assert done.status == 4 and "bundle" in done.err
