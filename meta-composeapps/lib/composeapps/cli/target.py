# SPDX-License-Identifier: MIT
"""composeapps target: what a factory signs for its devices. Runs where releases are made, not on devices."""

from composeapps.cli import output, target_help
from composeapps.errors import UsageError


def configure(name, parser):
    """Add the commands of ``target``."""
    parser.describe(**target_help.WHOLE)
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True, prog=parser.prog,
                                     parser_class=type(parser))
    for action, (add, text) in _ACTIONS.items():
        sub = commands.add_parser(action, help=text, description=text[0].upper() + text[1:] + ".")
        sub.describe(**target_help.HELP[action])
        output.add_json(sub)
        add(sub)
        sub.set_defaults(run=_run, action=action)


def _add_repository(parser):
    parser.add_argument("repository", metavar="REPO", help="directory of the repository, as a web server gives it")


def _add_keys(parser):
    parser.add_argument("--key", metavar="FILE", action="append", default=[],
                        help="a key that signs, NAME.pem or NAME.uri; can be repeated")
    parser.add_argument("--keys", metavar="DIR", action="append", default=[],
                        help="a directory, all keys of which may sign; can be repeated")
    _add_phrases(parser)


def _add_phrases(parser):
    parser.add_argument("--passphrase-file", metavar="FILE", action="append", default=[],
                        help="pass phrases of keys, one a line (default: asked for at the terminal)")


def _add_change(parser):
    _add_keys(parser)
    parser.add_argument("--change", metavar="FILE", help="publish nothing, write what is to be signed elsewhere")


def _add_init(parser):
    _add_repository(parser)
    for role in ("root", "targets", "online"):
        parser.add_argument(f"--{role}-key", metavar="FILE", action="append", default=[],
                            help=f"a key of {_role(role)}, NAME.pem, NAME.uri or, to be signed elsewhere, NAME.pub; "
                                 f"can be repeated (default: {role}.pem in the first of --keys, made if need be)")
    for role in ("root", "targets"):
        parser.add_argument(f"--{role}-threshold", metavar="N", type=int, default=1,
                            help=f"how many keys of {role} have to sign (default: 1)")
    _add_days(parser)
    _add_change(parser)


def _role(role):
    return "snapshot and timestamp" if role == "online" else role


def _add_days(parser):
    parser.add_argument("--days", metavar="ROLE=N", action="append", default=[],
                        help="for how many days a role is signed (default: root=730, targets=365, snapshot=30, "
                             "timestamp=7); can be repeated")


def _add_key(parser):
    parser.add_argument("file", metavar="FILE", help="the key file that is to be made, NAME.pem or NAME.uri")
    parser.add_argument("--type", choices=("ed25519", "ecdsa", "rsa"), default="ed25519",
                        help="the kind of key: ed25519 (default), ecdsa (P-256), rsa (3072 bits)")
    parser.add_argument("--uri", metavar="URI",
                        help="with NAME.uri: where the key is, hsm:…, awskms:…, gcpkms:…, azurekms:…, vault:…")
    parser.add_argument("--public", metavar="FILE", help="with --uri: the key's public half in PEM")
    _add_phrases(parser)


def _add_create(parser):
    _add_repository(parser)
    parser.add_argument("--name", metavar="NAME", required=True, help="the name, without the version")
    parser.add_argument("--version", metavar="N", type=int, dest="number",
                        help="the version (default: the one after all that there were)")
    parser.add_argument("--hardware", metavar="ID", action="append", required=True,
                        help="hardware id of the devices that it is for; can be repeated")
    parser.add_argument("--tag", metavar="TAG", action="append", default=[],
                        help="tag of the devices that it is for; can be repeated (default: of a wave the wave's)")
    parser.add_argument("--app", metavar="REF", action="append", default=[],
                        help="an app, HOST/FACTORY/NAME@sha256:…, or by a tag, which is resolved now; can be repeated")
    parser.add_argument("--arch", metavar="ARCH", help="the architecture to be noted, x86_64 for example")
    parser.add_argument("--wave", metavar="NAME", help="have it signed by this wave's keys")
    parser.add_argument("--unchecked", action="store_true", help="do not look whether the registry has the apps")
    output.add_endpoint(parser)
    _add_change(parser)


def _add_list(parser):
    _add_repository(parser)
    parser.add_argument("--tag", metavar="TAG", help="only those for this tag")
    parser.add_argument("--hardware", metavar="ID", help="only those for this hardware")


def _add_show(parser):
    _add_repository(parser)
    parser.add_argument("target", metavar="NAME-VERSION", help="the Target")


def _add_promote(parser):
    _add_show(parser)
    parser.add_argument("--tag", metavar="TAG", action="append", default=[], help="a tag more; can be repeated")
    parser.add_argument("--drop-tag", metavar="TAG", action="append", default=[], help="a tag less; can be repeated")
    _add_change(parser)


def _add_revoke(parser):
    _add_repository(parser)
    parser.add_argument("target", metavar="NAME-VERSION", nargs="?", help="the Target")
    parser.add_argument("--stolen", metavar="KEY", help="a key in its place, by its id or its file")
    parser.add_argument("--add", metavar="FILE", action="append", default=[],
                        help="with --stolen: a key in its stead; can be repeated")
    _add_change(parser)


def _add_renew(parser):
    _add_repository(parser)
    parser.add_argument("--role", metavar="ROLE", action="append", default=[],
                        help="renew root, targets or a wave as well; can be repeated")
    parser.add_argument("--trust-clock", action="store_true",
                        help="this machine's clock is right, and what was signed last was signed in the future")
    _add_days(parser)
    _add_change(parser)


def _add_rotate(parser):
    _add_repository(parser)
    parser.add_argument("roles", metavar="ROLE", nargs="+", help="root, targets, snapshot, timestamp or a wave")
    parser.add_argument("--add", metavar="FILE", action="append", default=[], help="a key more; can be repeated")
    parser.add_argument("--remove", metavar="KEY", action="append", default=[],
                        help="a key less, by its id or its file; can be repeated")
    parser.add_argument("--threshold", metavar="N", type=int, help="how many keys have to sign from now on")
    _add_change(parser)


def _add_wave(parser):
    _add_repository(parser)
    parser.add_argument("wave", metavar="NAME", help="the wave")
    parser.add_argument("--wave-key", metavar="FILE", action="append", default=[],
                        help="a key that signs for it; can be repeated")
    parser.add_argument("--threshold", metavar="N", type=int, default=1, help="how many of them have to (default: 1)")
    parser.add_argument("--tag", metavar="TAG", action="append", default=[],
                        help="a tag that its Targets may have; can be repeated")
    parser.add_argument("--path", metavar="PATTERN", action="append", default=[],
                        help="names that its Targets may have, as TUF's patterns (default: *); can be repeated")
    parser.add_argument("--remove", action="store_true", help="take the wave and its Targets away")
    _add_change(parser)


def _add_sign(parser):
    parser.add_argument("change", metavar="CHANGE", help="the file that --change wrote")
    _add_keys(parser)


def _add_publish(parser):
    _add_repository(parser)
    parser.add_argument("changes", metavar="CHANGE", nargs="+", help="a signed change, or copies that others signed")
    _add_keys(parser)


_ACTIONS = {
    "init": (_add_init, "make a repository, and keys that there are not yet"),
    "key": (_add_key, "make a key, or note where one is"),
    "create": (_add_create, "publish one more Target: all apps of a kind of device in one version"),
    "list": (_add_list, "list the Targets, and until when what is signed is good"),
    "show": (_add_show, "show a Target"),
    "promote": (_add_promote, "let a Target go to devices of more tags"),
    "revoke": (_add_revoke, "take a Target back, or a key that was stolen"),
    "renew": (_add_renew, "sign again what would expire"),
    "rotate": (_add_rotate, "change the keys of a role, and how many have to sign"),
    "wave": (_add_wave, "let other keys sign for some tags"),
    "sign": (_add_sign, "show a change that was made elsewhere, and sign it"),
    "publish": (_add_publish, "publish a change that was signed elsewhere"),
}


def _run(args):
    try:
        from composeapps.cli import target_actions
    except ModuleNotFoundError as err:
        if (err.name or "").split(".")[0] not in ("tuf", "securesystemslib", "cryptography"):
            raise
        raise UsageError(f"'composeapps {args.command}' takes the Python package {err.name}: "
                         "pip install 'composeapps[signing]'") from None
    return target_actions.run(args)


def parse_days(texts):
    """Return {role: days} of --days options. Raises UsageError."""
    found = {}
    for text in texts:
        role, _equals, days = text.partition("=")
        if role not in ("root", "targets", "snapshot", "timestamp") or not (days.isascii() and days.isdecimal()):
            raise UsageError(f"--days {ascii(text)} is not ROLE=N with root, targets, snapshot or timestamp: "
                             "timestamp=14 for example")
        found[role] = int(days[:9])
    return found
