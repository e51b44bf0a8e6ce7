# SPDX-License-Identifier: MIT
"""composeapps bundle: Targets and their apps in a directory or a file, for devices without a network."""

from composeapps.cli import output
from composeapps.errors import UsageError

WHOLE = {
    "examples": (
        ("composeapps bundle create /srv/tuf shop.bundle --tag main --platform linux/amd64 --keys ~/keys", ""),
        ("composeapps bundle verify shop.bundle --root 1.root.json", ""),
    ),
    "details": ("A bundle is a directory, or one file where its name ends in .tar: tuf/, the signed metadata, and "
                "apps/, a store. It is signed as a whole, for a tag and for hardware, and is good for as long as it "
                "says.",),
    "exits": {2: "wrong usage, a signature is missing, a wrong pass phrase", 3: "a Target, app or bundle is missing",
              4: None, 5: None, 9: None, 12: None, 17: "it is not signed by what is trusted, or has ended"},
    "environment": ("registries", "COMPOSEAPPS_PASSPHRASE_FILE"),
}
HELP = {
    "create": {
        "examples": (
            ("composeapps bundle create /srv/tuf /media/stick/shop --tag main --platform linux/amd64 --keys ~/keys",
             "the newest Target of each hardware"),
            ("composeapps bundle create /srv/tuf shop.tar --tag main --target shop-7 --lacking shop-5 --platform "
             "linux/arm64 --key targets.pem", "for devices that have shop-5"),
        ),
        "details": ("The key of targets signs it. It is made beside its place, NAME.part, and gets its name when it is "
                    "whole; a try that was cut off is gone on with. A stick with a file system that knows no links and "
                    "no ':' in names, as vfat, takes the file.",),
        "exits": {**{key: WHOLE["exits"][key] for key in (2, 3, 4, 5)}, 9: None, 12: None},
        "environment": WHOLE["environment"],
    },
    "verify": {
        "examples": (("composeapps bundle verify shop.bundle --root 1.root.json", ""),
                     ("composeapps bundle verify shop.tar --root 1.root.json --json", "")),
        "details": ("Signatures are held against the root by the rules that devices have, and every blob is read.",),
        "exits": {key: WHOLE["exits"][key] for key in (2, 3, 4, 17)},
    },
}


def configure(name, parser):
    """Add the commands of ``bundle``."""
    parser.describe(**WHOLE)
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True, prog=parser.prog,
                                     parser_class=type(parser))
    for action, (add, text) in {"create": (_add_create, "make a bundle"),
                                "verify": (_add_verify, "verify a bundle")}.items():
        sub = commands.add_parser(action, help=text, description=text[0].upper() + text[1:] + ".")
        sub.describe(**HELP[action])
        output.add_json(sub)
        add(sub)
        sub.set_defaults(run=_run, action=action)


def _add_create(parser):
    parser.add_argument("repository", metavar="REPO", help="directory of the repository")
    parser.add_argument("place", metavar="BUNDLE", help="the directory that is made, or the file NAME.tar")
    parser.add_argument("--tag", metavar="TAG", required=True, help="the tag of the devices that it is for")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", action="append", required=True,
                        help="a platform of the devices, linux/arm64 for example; can be repeated")
    parser.add_argument("--hardware", metavar="ID", action="append", default=[],
                        help="their hardware id; can be repeated (default: all)")
    parser.add_argument("--target", metavar="NAME-VERSION", action="append", default=[],
                        help="a Target; can be repeated (default: the newest of each hardware)")
    parser.add_argument("--lacking", metavar="NAME-VERSION",
                        help="leave out the layers of this Target, which the devices have")
    parser.add_argument("--days", metavar="N", type=int, default=90, help="for how many days it is good (default: 90)")
    output.add_endpoint(parser)
    parser.add_argument("--key", metavar="FILE", action="append", default=[],
                        help="a key of targets, NAME.pem or NAME.uri; can be repeated")
    parser.add_argument("--keys", metavar="DIR", action="append", default=[],
                        help="a directory, all keys of which may sign; can be repeated")
    parser.add_argument("--passphrase-file", metavar="FILE", action="append", default=[],
                        help="pass phrases of keys, one a line (default: asked for at the terminal)")


def _add_verify(parser):
    parser.add_argument("place", metavar="BUNDLE", help="the directory or the file")
    parser.add_argument("--root", metavar="FILE", required=True, help="the root that is trusted, as 1.root.json")


def _run(args):
    try:
        from composeapps.signing import bundle
    except ModuleNotFoundError as err:
        if (err.name or "").split(".")[0] not in ("tuf", "securesystemslib", "cryptography"):
            raise
        raise UsageError(f"'composeapps bundle' takes the Python package {err.name}: pip install "
                         "'composeapps[signing]'") from None
    return {"create": _create, "verify": _verify}[args.action](args, bundle)


def _create(args, bundle):
    from pathlib import Path

    from composeapps.oci.platforms import Platform
    from composeapps.registry.client import RegistryClient, given_endpoints
    from composeapps.signing import documents as docs
    from composeapps.signing import keys
    from composeapps.signing import targets as customs
    from composeapps.signing.repository import Repository

    if not 0 < args.days <= docs.MOST_DAYS:
        raise UsageError(f"--days {args.days} is not a number from 1 to {docs.MOST_DAYS}")
    platforms = [Platform.parse(text) for text in dict.fromkeys(args.platform)]
    place = Path(args.place)
    bundle.check_place(place)
    signing = keys.find_all(args.key, args.keys, keys.PassPhrases(args.passphrase_file))
    repository = Repository(args.repository)
    state = repository.read()
    now = docs.clock(state)
    targets = bundle.chosen(state, args.tag, args.hardware, args.target)
    before = customs.find(state, args.lacking) if args.lacking else None
    document = bundle.described(state, targets, args.tag, platforms, args.lacking, args.days, now)
    bundle.sign(state, document, signing)
    client = RegistryClient(endpoints=given_endpoints(args.endpoint))
    try:
        without = bundle.layers_of(before, client, platforms) if before else frozenset()
        bundle.create(place, repository.directory, state, document, targets, client, platforms, without)
    finally:
        client.close()
    value = {"bundle": str(place), "tag": args.tag, "targets": [target.path for target in targets],
             "until": docs.text_of(document.signed.expires), "lacking": args.lacking}
    if args.json:
        output.print_json(value)
    else:
        print(f"{place}: {', '.join(value['targets'])} for the tag {args.tag}, good until {value['until']}")


def _verify(args, bundle):
    from composeapps.delivery.trust import to_text

    offer, absent = bundle.verify(args.place, args.root, output.notify)
    value = {"bundle": args.place, "tag": offer.tag, "hardware_ids": list(offer.hardware_ids),
             "platforms": list(offer.platforms), "until": to_text(offer.until), "lacking": offer.lacking or None,
             "layers_left_out": absent, "targets": [{"target": each.name, "version": each.version, "apps": each.apps}
                                                    for each in offer.targets]}
    if args.json:
        output.print_json(value)
        return
    print(f"{args.place} is signed, for the tag {offer.tag} and the hardware {', '.join(offer.hardware_ids) or 'any'}, "
          f"good until {value['until']}")
    for target in offer.targets:
        print(f"  {target.name}: {', '.join(sorted(target.apps)) or 'no app'}")
    if offer.lacking:
        print(f"  without {absent} layers of {offer.lacking}")
