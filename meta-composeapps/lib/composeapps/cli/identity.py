# SPDX-License-Identifier: MIT
"""composeapps identity: who this device is, its own key, and the certificate that answers it."""

import sys
from pathlib import Path

from composeapps.cli import output
from composeapps.errors import ComposeAppsError, UsageError

HELP = {
    "examples": (
        ("composeapps identity", "name, serial number, key, certificate and until when it is good"),
        ("composeapps identity --new-key --device shop-0001", "make a key on this device"),
        ("composeapps identity --csr > shop-0001.csr", "a certificate signing request for it"),
        ("composeapps identity --certificate shop-0001.pem --authority ca.pem", "put in place what came back"),
    ),
    "details": (
        "The files are pkey.pem, client.pem and root.crt in the directory that the setting identity_dir names. A key "
        "that is made here never leaves the device. A factory reset that keeps nothing takes all of it away, but for "
        "the serial number where the disk has a provisioning area.",
    ),
    "exits": {3: "there is no key, no name, or no program openssl"},
}
_LARGEST = 64 * 1024


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("--new-key", action="store_true", help="make a key (EC, P-256)")
    parser.add_argument("--device", metavar="ID", default="", help="with --new-key: the device's name in its fleet")
    parser.add_argument("--replace", action="store_true",
                        help="with --new-key: also where there is one, whose certificate goes")
    parser.add_argument("--csr", action="store_true", help="print a certificate signing request (PEM)")
    parser.add_argument("--unit", metavar="NAME", default="",
                        help="with --csr: the organizational unit, as a rule the factory's name")
    parser.add_argument("--certificate", metavar="FILE", help="the certificate of the key (PEM), - for standard input")
    parser.add_argument("--authority", metavar="FILE", help="the authorities that the device trusts (PEM)")
    parser.set_defaults(run=_identity)


def _identity(args):
    from composeapps.disk import provision

    if (args.device or args.replace) and not args.new_key:
        raise UsageError("--device and --replace go with --new-key")
    if args.unit and not args.csr:
        raise UsageError("--unit goes with --csr")
    directory = output.load_config(args).identity_dir
    if args.new_key:
        _new_key(args, directory, provision)
    if args.certificate or args.authority:
        _take(args, directory, provision)
    if args.csr:
        request = _request(args, directory, provision)
        if args.json:
            output.print_json({"device": provision.known(directory).device, "csr": request})
        else:
            print(request, end="")
        return 0
    return show(args, directory)


def show(args, directory):
    """Print who the device is, by its identity's directory; return the exit status."""
    found = describe(directory)
    if args.json:
        output.print_json(found)
    else:
        for name, value in found.items():
            if name != "problem" or value:
                print(f"{name.replace('_', ' ')}: {_shown(value)}")
    return 0


def _shown(value):
    return {True: "yes", False: "no", "": "-", None: "-"}.get(value, value)


def describe(directory):
    """Return {"device", "serial", "key", "certificate", "authority", "not_before", "not_after", "problem"}.

    Of the identity in a directory: texts, "" for none; key, certificate and authority are True or False. "problem" is a
    sentence, or "".
    """
    from composeapps.disk import certify, provision, x509

    who, found = provision.known(directory), {"device": "", "serial": "", "key": False, "certificate": False,
                                              "authority": False, "not_before": "", "not_after": "", "problem": ""}
    found |= {"device": who.device, "serial": who.serial}
    for kind, name in (("key", provision.KEY), ("certificate", provision.CERTIFICATE),
                       ("authority", provision.AUTHORITY)):
        found[kind] = provision.has(directory, name)
    if found["certificate"]:
        try:
            text = provision.text(directory, provision.CERTIFICATE)
            read = x509.read(text)
            found |= {"not_before": read.not_before.isoformat(), "not_after": read.not_after.isoformat()}
            if not found["key"]:
                raise UsageError("there is a certificate and no key for it")
            certify.check_pair(provision.text(directory, provision.KEY), text)
        except ComposeAppsError as err:
            found["problem"] = str(err)
    return found


def _new_key(args, directory, provision):
    from composeapps.disk import area, certify

    before = provision.known(directory)
    device = area.name(args.device, "the device's name") if args.device else before.device
    if not device:
        raise UsageError("this device has no name yet: give it one by --device")
    if provision.has(directory, provision.KEY) and not args.replace:
        raise UsageError("this device has a key: give --replace for another one, after which it has to be registered "
                         "anew")
    key = certify.new_key()
    # Without the certificate the old key still is one; the new key with the old certificate would be none.
    provision.forget(directory, provision.CERTIFICATE)
    provision.put(directory, provision.KEY, key)
    provision.remember(directory, before._replace(device=device))


def _request(args, directory, provision):
    from composeapps.disk import area, certify
    from composeapps.errors import NotFoundError

    who = provision.known(directory)
    if not provision.has(directory, provision.KEY) or not who.device:
        raise NotFoundError("this device has no key, or no name: 'composeapps identity --new-key --device ID' makes "
                            "one")
    unit = area.name(args.unit, "the organizational unit") if args.unit else ""
    return certify.request(Path(directory, provision.KEY), who.device, unit)


def _take(args, directory, provision):
    from composeapps.disk import certify
    from composeapps.errors import NotFoundError

    authority = read_text(args.authority) if args.authority else ""
    if args.authority:
        certify.check_authority(authority)
    if args.certificate:
        if not provision.has(directory, provision.KEY):
            raise NotFoundError("this device has no key that the certificate could be for")
        certificate = read_text(args.certificate)
        certify.check_pair(provision.text(directory, provision.KEY), certificate)
        provision.put(directory, provision.CERTIFICATE, certificate)
    if authority:
        provision.put(directory, provision.AUTHORITY, authority)


def read_text(name):
    """Return what a file holds, "-" for standard input; raises UsageError for more than a certificate can be."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(name, "rb") as stream:
                data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise UsageError(f"{name} has more than {_LARGEST} bytes")
        return data.decode("ascii")
    except OSError as err:
        raise UsageError(f"{name} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not PEM: it has characters that are not ASCII") from None
