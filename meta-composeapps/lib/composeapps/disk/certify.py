# SPDX-License-Identifier: MIT
"""A device's own key and what is made of it, by openssl(1): Python's standard library has neither.

A key never is an argument of a program nor a file that others may read: openssl prints it, and what it reads of one
it reads from a file of the agent's.
"""

import functools
import os
import ssl

from composeapps import programs
from composeapps.errors import NotFoundError, StorageError, UsageError

_CURVE = "P-256"


def new_key():
    """Return a new private key (PEM, PKCS #8, on the curve P-256). Raises NotFoundError, StorageError."""
    return _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{_CURVE}")


def request(key, device, unit=""):
    """Return a certificate signing request (PEM), with extensions of a client of TLS.

    Arguments:
        key: the file of the private key.
        device: the subject's common name, checked by area.name.
        unit: its organizational unit, checked likewise, "" for none.

    Raises NotFoundError, StorageError.
    """
    subject = f"/CN={device}" + (f"/OU={unit}" if unit else "")
    return _openssl("req", "-new", "-sha256", "-key", key, "-subj", subject, "-addext",
                    "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=critical,clientAuth")


def certificates(data):
    """Return the certificates (a list of texts in PEM) of a PKCS #7 container (bytes, DER) without signatures.

    That is what EST servers answer (RFC 7030, 4.2.3). Raises UsageError for what is none, NotFoundError, StorageError.
    """
    try:
        text = _openssl("pkcs7", "-inform", "DER", "-print_certs", given=data)
    except StorageError as err:
        raise UsageError(f"the server's answer has no certificates that can be read: {err}") from None
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return [f"{begin}{each.partition(end)[0]}{end}\n" for each in text.split(begin)[1:]]


def check_pair(key, certificate):
    """See that a private key and a certificate (texts in PEM) belong together. Raises UsageError."""
    import tempfile

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # OpenSSL takes files only. This one is the process's own, and in memory.
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as stream:
        stream.write(f"{certificate.rstrip()}\n{key.rstrip()}\n".encode())
        stream.flush()
        try:
            # A function that says no, or OpenSSL would ask for a pass phrase on the terminal.
            context.load_cert_chain(f"/proc/self/fd/{stream.fileno()}", password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as err:
            reason = str(getattr(err, "reason", None) or err).replace("_", " ").lower()
            raise UsageError(f"the key and the certificate cannot be used together ({reason}): both have to be PEM, "
                             "the key without a pass phrase, and the certificate this key's") from None


@functools.lru_cache(maxsize=4)
def check_authority(text):
    """See that a text in PEM has certificates. Raises UsageError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as err:
        raise UsageError(f"the authority's certificates cannot be used ({getattr(err, 'reason', None) or err}): they "
                         "have to be PEM") from None


def _openssl(*words, given=b""):
    import subprocess

    try:
        done = subprocess.run(["openssl", *map(os.fspath, words)], input=given, capture_output=True, check=False,
                              env=programs.ENVIRONMENT)
    except FileNotFoundError:
        raise NotFoundError("this device has no program openssl: add openssl-bin to its image, or give it a key by "
                            "scripts/provision") from None
    except OSError as err:
        raise StorageError(f"openssl cannot be run: {err.strerror}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise StorageError(f"openssl {words[0]} failed: {(lines or ['it gave no reason'])[-1]}")
    return done.stdout.decode()
