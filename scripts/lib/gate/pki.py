# SPDX-License-Identifier: MIT
"""The certificates of a factory on this machine: a root for its server, an authority for its devices.

They are two, so that what signs devices can never sign a server that devices believe.
"""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from composeapps import durable
from composeapps.errors import CorruptError, NotFoundError, UsageError

# The second address is this machine's, as a guest of QEMU sees it.
ADDRESSES = ("127.0.0.1", "10.0.2.2")
SERVER_DAYS, AUTHORITY_DAYS, DEVICE_DAYS = 365, 3650, 3650
_DAY = datetime.timedelta(days=1)
_LARGEST = 64 * 1024


class Pki:
    """The files below ``directory``; ``make`` makes those that are missing."""

    def __init__(self, directory):
        self.directory = directory
        self.root, self.devices = directory / "root.crt", directory / "devices.crt"
        self.server, self.server_key = directory / "server.crt", directory / "server.key"

    def make(self, names, now=None):
        """Make what is missing; the server's certificate also when it ends soon or lacks a name.

        Arguments:
            names: the server's DNS names.
            now: the time.
        """
        now = now or datetime.datetime.now(datetime.UTC)
        durable.make_directories(self.directory, mode=0o700)
        for certificate, name in ((self.root, "composeapps factory root"), (self.devices, "composeapps devices")):
            if not certificate.exists() or not certificate.with_suffix(".key").exists():
                self._authority(certificate, name, now)
        if not self._is_good(names, now):
            key = ec.generate_private_key(ec.SECP256R1())
            extensions = [(x509.SubjectAlternativeName([*map(x509.DNSName, names), *(
                x509.IPAddress(ipaddress.ip_address(each)) for each in ADDRESSES)]), False),
                (x509.BasicConstraints(False, None), True),
                (_usage(digital_signature=True, key_encipherment=True), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
            made = self._sign(self.root, _name(names[0]), key.public_key(), now, SERVER_DAYS, extensions)
            durable.write_file(self.server_key, _pem(key), 0o600)
            durable.write_file(self.server, made.public_bytes(Encoding.PEM))

    def _is_good(self, names, now):
        try:
            found = x509.load_pem_x509_certificate(self.server.read_bytes())
            key = load_pem_private_key(self.server_key.read_bytes(), None)
            there = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            root = x509.load_pem_x509_certificate(self.root.read_bytes())
            found.verify_directly_issued_by(root)
        except Exception:
            # Whatever is wrong with it: another one is made.
            return False
        return (set(names) <= set(there.get_values_for_type(x509.DNSName)) and found.public_key() == key.public_key()
                and found.not_valid_after_utc - now > 30 * _DAY and found.not_valid_before_utc <= now)

    def _authority(self, path, name, now):
        key = ec.generate_private_key(ec.SECP256R1())
        durable.write_file(path.with_suffix(".key"), _pem(key), 0o600)
        made = _certificate(_name(name), _name(name), key.public_key(), now, AUTHORITY_DAYS, [
            (x509.BasicConstraints(True, 0), True), (_usage(key_cert_sign=True, crl_sign=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)]).sign(key, hashes.SHA256())
        durable.write_file(path, made.public_bytes(Encoding.PEM))

    def _sign(self, authority, subject, key, now, days, extensions):
        try:
            issuer = x509.load_pem_x509_certificate(authority.read_bytes())
            private = load_pem_private_key(authority.with_suffix(".key").read_bytes(), None)
        except FileNotFoundError as err:
            raise NotFoundError(f"{err.filename} does not exist: 'scripts/factory up' makes it") from None
        except ValueError:
            raise CorruptError(f"{authority} or its key is damaged: remove {self.directory} while the factory is down, "
                               "and give all devices new certificates") from None
        extensions = [*extensions, (x509.SubjectKeyIdentifier.from_public_key(key), False),
                      (x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), False)]
        return _certificate(subject, issuer.subject, key, now, days, extensions).sign(private, hashes.SHA256())

    def answer(self, request, what, days=DEVICE_DAYS):
        """Return a device's certificate (PEM, bytes) for a certificate signing request.

        Arguments:
            request: the request, PEM or DER.
            what: how the error names it.
            days: for how long.

        Its name and its organizational unit go into it, nothing else does. Raises UsageError, NotFoundError.
        """
        if len(request) > _LARGEST:
            raise UsageError(f"{what} is too large for a certificate signing request")
        load = x509.load_pem_x509_csr if request.lstrip().startswith(b"-----") else x509.load_der_x509_csr
        try:
            found = load(request)
            good = found.is_signature_valid
            names = {oid: [str(each.value) for each in found.subject.get_attributes_for_oid(oid)]
                     for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)}
        except Exception as err:
            # It is somebody else's, and the library has many words for that.
            raise UsageError(f"{what} is no certificate signing request: {str(err).splitlines()[0]}; "
                             "'composeapps identity --csr' prints one") from None
        device = names[NameOID.COMMON_NAME]
        if not good:
            raise UsageError(f"{what} is not signed by the key that it names: ask for it again")
        if len(device) != 1 or not device[0].isprintable() or not device[0].strip() or len(device[0]) > 64:
            raise UsageError(f"{what} does not have one common name, the device's, of 64 characters at most")
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) or (
                isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048):
            raise UsageError(f"{what} is for a key of a kind that devices do not have: take an EC key (P-256)")
        units = [unit for unit in names[NameOID.ORGANIZATIONAL_UNIT_NAME] if unit.isprintable()][:1]
        made = self._sign(self.devices, _name(device[0], *units), key, datetime.datetime.now(datetime.UTC), days, [
            (x509.BasicConstraints(False, None), True), (_usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True)])
        return made.public_bytes(Encoding.PEM)


def _certificate(subject, issuer, key, now, days, extensions):
    # A device whose clock is a little behind takes it as well.
    made = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - _DAY)
            .not_valid_after(now + days * _DAY))
    for extension, critical in extensions:
        made = made.add_extension(extension, critical)
    return made


def _name(common, *units):
    return x509.Name([*(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units),
                      x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(**given):
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
