# SPDX-License-Identifier: MIT
"""A throw-away certificate authority and a server certificate for loopback, made by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class ServerCertificate(NamedTuple):
    """Paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path


def _openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def make_server_certificate(directory, names=()):
    """Make a CA and a certificate for 127.0.0.1, localhost and ``names`` in ``directory``."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    cert, key, request = directory / "server.pem", directory / "server.key", directory / "server.csr"
    extensions = directory / "extensions"
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth\n"
        f"subjectAltName={','.join(['IP:127.0.0.1', *(f'DNS:{name}' for name in ('localhost', *names))])}\n"
        "authorityKeyIdentifier=keyid\n"
    )
    _openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=composeapps test CA",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", ca_key, "-out", ca,
    )
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", request,
    )
    _openssl(
        "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "7",
        "-extfile", extensions, "-out", cert,
    )
    return ServerCertificate(ca, cert, key)


def make_client_certificate(directory, server):
    """Make a client's certificate, signed by the CA of ``server`` (a ServerCertificate); return (certificate, key)."""
    directory = Path(directory)
    cert, key, request = directory / "client.pem", directory / "client.key", directory / "client.csr"
    extensions = directory / "client-extensions"
    extensions.write_text("basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n")
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=composeapps test device", "-keyout", key, "-out", request,
    )
    _openssl(
        "x509", "-req", "-in", request, "-CA", server.ca, "-CAkey", server.ca.with_suffix(".key"), "-CAcreateserial",
        "-days", "7", "-extfile", extensions, "-out", cert,
    )
    return cert, key
