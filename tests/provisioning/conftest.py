# SPDX-License-Identifier: MIT
"""An image with the partitions of the class composeapps-disk, and certificates of devices."""

import os
import subprocess

import pytest

MEBIBYTE = 1 << 20


@pytest.fixture
def make_image(tmp_path):
    """A function that makes a sparse disk of a size in MiB, with some data in each of its partitions."""
    def make(size=64, name="shop.wic", partitions=("boot", "root", "provision", "data")):
        path = tmp_path / name
        with open(path, "wb") as stream:
            stream.truncate(size * MEBIBYTE)
        lines = [f'start={MEBIBYTE // 512 * (1 + 8 * number)}, size={16384 if part != "provision" else 2048}, '
                 f'name="{part}"' for number, part in enumerate(partitions)]
        subprocess.run(["sfdisk", "-q", path], input="label: gpt\n" + "\n".join(lines), text=True, check=True,
                       env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        with open(path, "r+b") as stream:
            for number in range(len(partitions)):
                stream.seek((1 + 8 * number) * MEBIBYTE + 3 * MEBIBYTE)
                stream.write(b"data of a partition" * 100)
        return path

    return make


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A function that makes a device's key and certificate, of one authority: (certificate, key, authority)."""
    directory = tmp_path_factory.mktemp("devices")

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=directory)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=devices",
            "-keyout", "ca.key", "-out", "ca.pem", "-days", "365")

    def make(name):
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        if not certificate.exists():
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    f"/CN={name}/OU=shop", "-keyout", key, "-out", f"{name}.csr")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", certificate,
                    "-days", "365")
        return certificate, key, directory / "ca.pem"

    return make
