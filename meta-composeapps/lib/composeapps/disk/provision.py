# SPDX-License-Identifier: MIT
"""Taking over what the provisioning area holds, and what the device has of its identity since.

In the directory that the setting ``identity_dir`` names, with the names that clients of the Linux microPlatform know:
``pkey.pem``, ``client.pem``, ``root.crt``; besides ``composeapps.toml``, settings of this device, and ``device.json``:
{"device", "serial", "area", "began"}, "area" being the checksum of the area that was taken over last, "began" that of
the one for which a key was to be made last.

Each step can be repeated. What is given is durable here before it is wiped there, and "area" tells a start that finds
the area half wiped that nothing is missing.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from composeapps import beneath, durable
from composeapps.disk import area
from composeapps.errors import CorruptError, NotFoundError

KEY, CERTIFICATE, AUTHORITY = "pkey.pem", "client.pem", "root.crt"
SETTINGS, DEVICE = "composeapps.toml", "device.json"
NAMES = (KEY, CERTIFICATE, AUTHORITY, SETTINGS, DEVICE)
_FILES = {"key": KEY, "certificate": CERTIFICATE, "authority": AUTHORITY, "settings": SETTINGS}


class Known(NamedTuple):
    """Who the device is: its name and serial number, "" for none; the rest is the file's."""

    device: str = ""
    serial: str = ""
    area: str = ""
    began: str = ""


def known(directory):
    """Return the Known of the identity's directory; an empty one where there is none, or none that can be read."""
    try:
        value = json.loads(beneath.read_regular(Path(directory, DEVICE)))
        return Known(*(str(value.get(field, "")) for field in Known._fields))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return Known()


def remember(directory, who):
    """Write the Known down, durably. Raises StorageError."""
    put(directory, DEVICE, json.dumps(who._asdict(), sort_keys=True) + "\n")


def put(directory, name, text):
    """Write one file of the identity, durably and for nobody else's eyes. Raises StorageError."""
    with durable.storage_errors("writing the device's identity"):
        durable.make_directories(directory)
        durable.make_way(Path(directory, name), directory)
        durable.write_file(Path(directory, name), text.encode(), mode=0o600)


def text(directory, name):
    """Return a file of the identity, which is PEM. Raises CorruptError, and NotFoundError where there is none."""
    path = Path(directory, name)
    try:
        with beneath.open_regular(path) as stream:
            return stream.read(area.SIZE).decode("ascii")
    except FileNotFoundError:
        raise NotFoundError(f"there is no {path}") from None
    except OSError as err:
        raise CorruptError(f"{path} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise CorruptError(f"{path} is damaged: it is not PEM") from None


def has(directory, name):
    """Tell whether the identity has a file."""
    return Path(directory, name).is_file()


def take_over(device, directory, check, notify, hand_out):
    """Take over what a device was given, and wipe it from the area but for the serial number.

    Arguments:
        device: the path of the partition with the area.
        directory: where the identity belongs.
        check: called with settings (TOML); raises UsageError for what the agent would not take.
        notify: called with a sentence for each step.
        hand_out: called with (name, certificate signing request) for a key that was made here.

    Returns whether there was anything to do. Raises CorruptError for a damaged area, of which nothing is taken over,
    UsageError, StorageError and OSError.
    """
    with open(device, "rb") as stream:
        data = area.read(stream)
    found, before = area.checksum(data), known(directory)
    if not found:
        return False
    try:
        given = area.parse(data)
    except CorruptError:
        if before.area != found:
            raise
        given = area.Provision(serial=before.serial)
        _wipe(device, given)
        notify("the provisioning area is wiped, which a power cut had ended")
        return True
    if not given.waits and before.serial == given.serial:
        return False
    if before.area != found or not all(has(directory, _FILES[field]) for field in _FILES if getattr(given, field)):
        if given.settings:
            check(given.settings)
        before = _place(given, found, before, directory, notify, hand_out)
        # The serial number is the hardware's and outlives a reset; who the device was does not.
        remember(directory, before._replace(
            device=given.device or before.device, serial=given.serial or before.serial,
            **({"area": found} if given.waits else {})))
    if given.waits:
        _wipe(device, given)
        notify("the identity is taken over, and wiped from the provisioning area")
    return True


def _place(given, checksum, before, directory, notify, hand_out):
    """Put what was given in its place; return the Known of meanwhile."""
    # Of the boots that know the names of these files, all but one make no key: OpenSSL is loaded for that alone.
    from composeapps.disk import certify

    if given.new_key and before.began != checksum:
        forget(directory, KEY, CERTIFICATE)
        before = before._replace(began=checksum)
        remember(directory, before)
    if given.key and not given.certificate:
        # Another key's.
        forget(directory, CERTIFICATE)
    for field, name in _FILES.items():
        if getattr(given, field):
            put(directory, name, getattr(given, field))
            notify(f"took over {name}")
    if given.new_key and not has(directory, KEY):
        put(directory, KEY, certify.new_key())
        notify("made a key of this device's own")
    if given.new_key and not has(directory, CERTIFICATE):
        hand_out(given.device, certify.request(Path(directory, KEY), given.device))
    return before


def forget(directory, *names):
    """Remove files of the identity, durably; what is not there needs nothing. Raises OSError."""
    for name in names:
        durable.remove_file(Path(directory, name))


def _wipe(device, given):
    """Overwrite the area: first what follows its head, by which alone it counts as damaged, then the head."""
    descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for offset, data in ((area.SECTOR, bytes(area.SIZE - area.SECTOR)), (0, area.wiped(given))):
            while data:
                count = os.pwrite(descriptor, data, offset)
                data, offset = data[count:], offset + count
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
