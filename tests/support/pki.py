# SPDX-License-Identifier: MIT
"""A factory's public key infrastructure, made for a test run: its root, the server's certificate, a CA for devices."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def now():
    """Return the time, UTC, in whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def pem(key):
    """Return a private key as PEM (text)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public(key):
    """Return the DER of a key's public half, by which a server knows a device."""
    half = key.public_key() if hasattr(key, "public_key") else key
    return half.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Authority:
    """A CA.

    Arguments:
        name: its common name.
        unit: the organizational unit, the factory's name.
    """

    def __init__(self, name, unit="testfactory"):
        self.unit, self.key = unit, ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name, unit)
        self.certificate = self._sign(self.name, self.key.public_key(), -DAY, 3650 * DAY, [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)])

    @property
    def pem(self):
        """Its certificate, PEM (text)."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def _sign(self, subject, key, before, after, extensions):
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key)
                   .serial_number(x509.random_serial_number()).not_valid_before(now() + before)
                   .not_valid_after(now() + after))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        return builder.sign(self.key, hashes.SHA256())

    def server(self, names=("localhost",), before=-DAY, after=30 * DAY):
        """Return (certificate, key), PEM, of a server at loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name) for name in names] + [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        found = self._sign(_name("localhost", self.unit), key.public_key(), before, after, [
            (x509.SubjectAlternativeName(names), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)])
        return found.public_bytes(Encoding.PEM).decode(), pem(key)

    def device(self, name, key, before=-DAY, after=3650 * DAY):
        """Return a device's certificate, PEM, for its public key."""
        return self._sign(_name(name, self.unit), key, before, after, [
            (x509.KeyUsage(True, False, False, False, False, False, False, False, False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True)]).public_bytes(Encoding.PEM).decode()

    def answer(self, request, after=3650 * DAY):
        """Return the certificate, PEM, for a certificate signing request (PEM or DER, bytes)."""
        load = x509.load_pem_x509_csr if request.lstrip().startswith(b"-----") else x509.load_der_x509_csr
        found = load(request)
        assert found.is_signature_valid
        name, = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return self.device(name.value, found.public_key(), after=after)


def _name(name, unit):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                      x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Factory:
    """The root that signs the server's certificate, and the CA of devices."""

    def __init__(self):
        self.root, self.devices = Authority("test-root"), Authority("test-device-ca")

    def identity(self, directory, name, authority=None, key=None, **validity):
        """Write a device's identity into ``directory``; return its private key."""
        from composeapps.disk import provision

        key = key or ec.generate_private_key(ec.SECP256R1())
        provision.put(directory, provision.KEY, pem(key))
        provision.put(directory, provision.CERTIFICATE,
                      (authority or self.devices).device(name, key.public_key(), **validity))
        provision.put(directory, provision.AUTHORITY, self.root.pem)
        provision.remember(directory, provision.known(directory)._replace(device=name))
        return key


def key_of(directory):
    """Return the private key of an identity's directory."""
    from composeapps.disk import provision

    return load_pem_private_key(Path(directory, provision.KEY).read_bytes(), None)
