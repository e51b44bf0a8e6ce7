# SPDX-License-Identifier: MIT
"""composeapps enroll: registering this device with its factory, for the certificate that its server knows it by."""

from composeapps.cli import identity, output
from composeapps.errors import UsageError

HELP = {
    "examples": (
        ("composeapps enroll --server https://factory.example.com --token token --unit my-factory",
         "at an update server"),
        ("composeapps enroll --est --server https://est.example.com/.well-known/est --token login --authority root.pem",
         "at an EST server"),
        ("composeapps enroll --server http://localhost:8080 --token - --unit my-factory",
         "the token on standard input"),
    ),
    "details": (
        "The key is made here when there is none, and never leaves the device. The directory of the setting "
        "identity_dir then has pkey.pem, client.pem and root.crt; what the update server says of its gateway, the "
        "hardware id and the tag becomes composeapps.toml there, unless there is one. What was cut off is given once "
        "more.",
        "A key in a TPM or a smart card: let pkey.pem name it, as PEM of the kind PKCS#11 PROVIDER URI, before; "
        "OpenSSL's provider has to be in the image.",
    ),
    "exits": {3: "there is no program openssl, or no authority to trust", 5: "the server failed or cannot be reached"},
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("--server", metavar="URL", help="where it is registered: the update server's REST API, or with "
                        "--est the path before /simpleenroll (default with --est: renewal_server)")
    parser.add_argument("--est", action="store_true", help="it is an EST server (RFC 7030)")
    parser.add_argument("--token", metavar="FILE", default="", help="a file with what lets a device register, - for "
                        "standard input: a token, or for EST USER:PASSWORD")
    parser.add_argument("--device", metavar="ID", default="",
                        help="the device's name (default: its own, or a random one)")
    parser.add_argument("--unit", metavar="NAME", default="", help="the factory's name")
    parser.add_argument("--name", metavar="TEXT", default="", help="what people call the device")
    parser.add_argument("--group", metavar="NAME", default="", help="a group of the factory's devices, which has to be "
                        "there")
    parser.add_argument("--authority", metavar="FILE", help="the authorities (PEM) by which the server is known; with "
                        "--est they become the device's")
    parser.add_argument("--plain-http", action="store_true", help="allow an address that is not https")
    parser.set_defaults(run=_enroll)


def _enroll(args):
    from composeapps.delivery import enrolling
    from composeapps.disk import area, provision

    config = output.load_config(args)
    directory = config.identity_dir
    address = args.server or (config.renewal_server if args.est else "")
    if not address:
        raise UsageError("give the server by --server")
    if not args.est and not args.unit:
        raise UsageError("give the factory's name by --unit: the server holds the request against it")
    for text, what in ((args.device, "the device's name"), (args.unit, "the factory's name")):
        if text:
            area.name(text, what)
    authority = identity.read_text(args.authority) if args.authority else ""
    token = identity.read_text(args.token).strip() if args.token else ""
    if not token.isprintable():
        raise UsageError(f"{args.token} has more than one line, or something else than a token")
    # Before anything is made here.
    with enrolling.service(address, authority, args.plain_http) as server:
        name = enrolling.prepare(directory, args.device)
        output.notify(f"registering {name} at {address}")
        if args.est:
            if authority:
                provision.put(directory, provision.AUTHORITY, authority)
            enrolling.enroll(server, directory, token, args.unit)
        else:
            told = enrolling.register(server, directory, token, args.unit, name=args.name, group=args.group,
                                      hardware_id=config.hardware_id)
            _keep_settings(directory, told)
    output.notify(f"the certificate of {name} is in {directory}")
    return identity.show(args, directory)


def _keep_settings(directory, text):
    """Write down what the server says of where the device belongs, unless it was given settings already."""
    from composeapps.cli import config
    from composeapps.disk import provision

    if not text:
        return
    if provision.has(directory, provision.SETTINGS):
        output.notify(f"the server's settings are left out, this device has its own ({provision.SETTINGS})")
        return
    try:
        config.check_own(text)
    except UsageError as err:
        output.notify(f"the server's settings are left out: {err}")
        return
    provision.put(directory, provision.SETTINGS, text)
