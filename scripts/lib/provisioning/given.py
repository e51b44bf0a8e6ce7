# SPDX-License-Identifier: MIT
"""What one device is given, from options or a line of a list: read, and seen to belong together."""

import json
import tomllib

from composeapps.cli import config
from composeapps.disk import area, certify, x509
from composeapps.errors import UsageError


def settings(words):
    """Return TOML out of texts NAME=VALUE.

    NAME is a key of the agent's configuration, with its section ("composeapps.bandwidth") or, where only one has it,
    alone. VALUE is TOML; what is no TOML is a text. Raises UsageError naming what is wrong.
    """
    lines = []
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"'{word}' is no setting: give NAME=VALUE")
        if "." not in name:
            sections = [key.section for key in config.KEYS if key.name == name]
            if not sections:
                raise UsageError(f"there is no setting '{name}'; of a registry they are written as "
                                 'registry."HOST".KEY=VALUE')
            name = f"{sections[0]}.{name}"
        lines.append(f"{name} = {_value(value)}")
    text = "".join(f"{line}\n" for line in sorted(lines))
    if text:
        config.check_own(text)
    return text


def _value(text):
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        found = {}
    # A line that says more than one thing is a text, too.
    return text.strip() if found.keys() == {"value"} else json.dumps(text)


def gather(device, serial="", certificate=None, key=None, authority=None, words=(), new_key=False, any_subject=False):
    """Return the area.Provision of a device.

    Arguments:
        device: its name; or "" for a device that has only a serial number and settings.
        serial: its serial number, "" for none.
        certificate, key, authority: files in PEM, None for none.
        words: settings, as ``settings`` takes them.
        new_key: the device is to make its key by itself.
        any_subject: take a certificate that is not in the device's name.

    Raises UsageError for what does not belong together, and for files that cannot be read.
    """
    given = area.Provision(
        device=area.name(device, "the device's name") if device else "",
        serial=area.name(serial, "the serial number") if serial else "",
        settings=settings(words), key=_pem(key, "PRIVATE KEY"), certificate=_pem(certificate, "CERTIFICATE"),
        authority=_pem(authority, "CERTIFICATE"), new_key=new_key)
    if given == area.Provision():
        raise UsageError("there is nothing to give to the device: name it")
    if new_key and (given.key or given.certificate):
        raise UsageError("a device that makes its key by itself is given neither a key nor a certificate")
    if new_key and not given.device:
        raise UsageError("a device that makes its key by itself needs a name, for which it asks for a certificate")
    if given.certificate and not given.key:
        raise UsageError(f"{certificate} needs its key")
    if given.key and given.certificate:
        certify.check_pair(given.key, given.certificate)
        if not any_subject:
            _check_subject(given.device, given.certificate, certificate)
    if given.authority:
        certify.check_authority(given.authority)
    return given


def _pem(path, kind):
    if path is None:
        return ""
    try:
        # It may be a pipe out of which a key comes that is in no file; and what has no end is not read to it.
        with open(path, "rb") as stream:
            data = stream.read(area.SIZE + 1)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None
    if kind.encode() not in data or b"-----BEGIN " not in data:
        raise UsageError(f"{path} holds no {kind.lower()} in PEM")
    if b"ENCRYPTED" in data:
        raise UsageError(f"{path} has a pass phrase, which the device would not know: take it off "
                         "('openssl pkey -in FILE -out NEW')")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not PEM: it has characters that are not ASCII") from None


def _check_subject(device, text, path):
    names = x509.read(text).names
    if names != (device,):
        raise UsageError(f"the certificate {path} is for '{', '.join(names)}' and not for {device or 'this device'}: "
                         "give the device's own, or --any-subject where names differ on purpose")
