# SPDX-License-Identifier: MIT
"""How a device gets its certificate: by a request that its own key signs, from an update server or an EST server.

The update server's way is ``POST /v1/devices`` of its REST API (foundriesio/update-server): the answer is an object of
files. EST's is ``simpleenroll`` (RFC 7030, 4.2): the request as base64 of its DER, the answer PKCS #7.

The key never leaves the device. What was made is kept: a run that was cut off is given once more.
"""

import base64
import json
import os
import ssl
import tomllib
from http import HTTPStatus
from pathlib import Path

from composeapps.delivery.gateway import Refused, Service
from composeapps.disk import certify, provision, x509
from composeapps.errors import NotFoundError, RegistryError, UsageError
from composeapps.oci.parsing import parse_json

PKCS10 = "application/pkcs10"
_LARGEST = 64 * 1024
# Of the file with the LmP's settings that the server makes: where it has what is a setting here.
_SETTINGS = (("tls", "server", "delivery", "server"), ("pacman", "tags", "pacman", "tags"),
             ("provision", "primary_ecu_hardware_id", "delivery", "hardware_id"))


class Registrar(Service):
    """A server that registers devices."""

    kind = "the registration server"


def service(address, authority, plain=False, environ=None):
    """Return the Registrar at an address.

    Arguments:
        address: an https address, or an http one where ``plain`` allows that, as for a server on this machine.
        authority: certificates (PEM) that the server's is signed by; "" for the system's authorities.

    Raises UsageError.
    """
    scheme, _slashes, rest = address.partition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    if scheme != "https" and not (scheme == "http" and (plain or host in ("localhost", "127.0.0.1", "[::1]"))):
        raise UsageError("the registration server has to have an https address: the token would be told to everybody "
                         "on the way; --plain-http allows it")
    if set(address) & set("@?#"):
        raise UsageError("the registration server's address has a login or a query in it, which others see in the list "
                         "of processes: put it into the file of --token")
    if authority:
        certify.check_authority(authority)
    return Registrar(address, "the registration server", lambda: ssl.create_default_context(
        cadata=authority or None), environ)


def prepare(directory, device=""):
    """Have a device's key and its name in place; return its name.

    Arguments:
        directory: of its identity.
        device: its name, "" for the one that it has, or a random one.

    Raises UsageError for a device that has another name and a certificate, NotFoundError, StorageError.
    """
    who = provision.known(directory)
    if device and who.device and device != who.device and provision.has(directory, provision.CERTIFICATE):
        raise UsageError(f"this device is enrolled as {who.device}: 'composeapps identity --new-key --replace --device "
                         f"{device}' begins anew")
    name = device or who.device or _random_name()
    if name != who.device:
        provision.remember(directory, who._replace(device=name))
    if not provision.has(directory, provision.KEY):
        provision.put(directory, provision.KEY, certify.new_key())
    return name


def _random_name():
    text = Path("/proc/sys/kernel/random/uuid").read_text().strip()
    return text if len(text) == 36 else os.urandom(16).hex()


def register(server, directory, token, unit, **more):
    """Register at an update server, and put what it answers in place.

    Arguments:
        server: a Registrar at the REST API.
        directory: of the identity, with a key and a name.
        token: the operator's, a text.
        unit: the factory's name.
        more: what the request says besides, {name: value}; what is empty is left out.

    Returns the settings (TOML) of the device that the server knows, "" for none. Raises RegistryError, UsageError,
    StorageError.
    """
    name = provision.known(directory).device
    request = certify.request(Path(directory, provision.KEY), name, unit)
    asked = {"uuid": name, "csr": request, **{key.replace("_", "-"): value for key, value in more.items() if value}}
    what = f"the registration of {name}"
    try:
        answer = server.send("POST", "v1/devices", what, json.dumps(asked).encode(), good=(200, 201),
                             headers=_bearer(token))
    except RegistryError as err:
        if "UNIQUE" in str(err) or "exists" in str(err):
            raise RegistryError(f"{err}; the server knows a device of this name: delete it there, or give this one "
                                "another name by --device") from None
        raise
    found = parse_json(answer.body, "the registration server's answer")
    files = {name: found.get(name) for name in (provision.AUTHORITY, provision.CERTIFICATE, "sota.toml")}
    if not all(isinstance(files[name], str) for name in (provision.AUTHORITY, provision.CERTIFICATE)):
        raise RegistryError("the registration server's answer has not the files root.crt and client.pem")
    take(directory, files[provision.CERTIFICATE], files[provision.AUTHORITY])
    return _settings(files["sota.toml"])


def _settings(text):
    """Return the agent's settings (TOML) that the LmP's ones mean, "" for what cannot be read."""
    try:
        found = tomllib.loads(text) if isinstance(text, str) and len(text) <= _LARGEST else {}
    except (ValueError, RecursionError):
        return ""
    sections = {}
    for section, name, ours, key in _SETTINGS:
        value = found.get(section)
        value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str) and value:
            sections.setdefault(ours, []).append(f"{key} = {json.dumps(value)}")
    return "\n".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())


def enroll(server, directory, token, unit):
    """Enroll at an EST server, whose base has the path before /simpleenroll; put the certificate in place.

    Arguments and errors as of ``register``; ``token`` is "USER:PASSWORD", or one for a header "Authorization: Bearer".
    """
    name = provision.known(directory).device
    key = Path(directory, provision.KEY)
    login = {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()} if ":" in token else _bearer(token)
    take(directory, ask_est(server, "simpleenroll", certify.request(key, name, unit), login))


def ask_est(server, operation, request, headers=None):
    """Have an EST server sign a request (PEM); return the certificate (PEM), with those after it.

    Raises RegistryError, UsageError for what are no certificates.
    """
    der = base64.encodebytes(ssl.PEM_cert_to_DER_cert(
        request.strip().replace("CERTIFICATE REQUEST", "CERTIFICATE").replace("NEW CERTIFICATE", "CERTIFICATE")))
    answer = server.send("POST", operation, "the certificate", der, PKCS10, good=(200, 201, 202),
                         headers={"Content-Transfer-Encoding": "base64", **(headers or {})})
    if answer.status == HTTPStatus.ACCEPTED:
        raise Refused(f"{server.kind} {server.base.origin.url} has to be told first that this device may have a "
                      "certificate: ask again later", answer.status)
    found = pkcs7(answer.body)
    if not found:
        raise UsageError("the server's answer has no certificate")
    return "".join(found)


def pkcs7(body):
    """Return the certificates (PEM texts) of an EST server's answer. Raises UsageError."""
    try:
        data = base64.b64decode(bytes(char for char in body if char not in b"\r\n\t "), validate=True)
    except ValueError:
        raise UsageError("the server's answer is no base64 of certificates") from None
    return certify.certificates(data)


def take(directory, certificate, authority=""):
    """Put a certificate in place, and the authorities before it, after seeing that they are this device's.

    Raises UsageError, StorageError.
    """
    check(certificate, provision.known(directory).device, Path(directory, provision.KEY))
    if authority:
        certify.check_authority(authority)
        provision.put(directory, provision.AUTHORITY, authority)
    elif not provision.has(directory, provision.AUTHORITY):
        raise NotFoundError("this device has no authority that it could trust: give --authority FILE")
    provision.put(directory, provision.CERTIFICATE, certificate)


def check(certificate, name, key):
    """See that a certificate (PEM) is for a device's name and for a key (a file). Raises UsageError."""
    if len(certificate) > _LARGEST:
        raise UsageError("the certificate is too long to be one")
    if x509.read(certificate).names != (name,):
        raise UsageError(f"the certificate is not for this device, {name}")
    certify.check_pair(key.read_text(), certificate)


def _bearer(token):
    return {"Authorization": f"Bearer {token}", "OSF-TOKEN": token} if token else {}
