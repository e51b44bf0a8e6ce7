# SPDX-License-Identifier: MIT
"""What the help of composeapps target says."""

_EXITS = {2: "wrong usage, a signature is missing, a wrong pass phrase, a clock that is behind",
          3: "a repository, Target, key or app is missing", 4: None}
_WITH_REGISTRY = {**_EXITS, 5: None}
_PHRASES = ("COMPOSEAPPS_PASSPHRASE_FILE",)
_ELSEWHERE = ("Without all signatures that it takes nothing is published. With --change nothing is published either: "
              "the file goes to where the keys are ('target sign') and then to the repository ('target publish').")

WHOLE = {
    "examples": (
        ("composeapps target init /srv/tuf --keys ~/keys", "a repository and its keys"),
        ("composeapps target create /srv/tuf --keys ~/keys --name shop --hardware qemux86-64 --tag main --app "
         "registry.example.com/factory/web@sha256:…", "a Target, that devices of the tag main will take"),
        ("composeapps target renew /srv/tuf --key ~/keys/online.pem", "daily, lest the timestamp expires"),
        ("composeapps target create --help", "a command's own help"),
    ),
    "details": (
        "A repository is a directory of static files in the format of TUF, for any web server. The keys of root and "
        "targets are for rare use and stay offline; the online key signs snapshot and timestamp, which expire soon. "
        "Keys are files that a pass phrase encrypts, or are in a security module or with a cloud provider.",
        "A cut in the middle leaves the repository as it was or as it is to be. Two commands at once wait for each "
        "other.",
    ),
    "exits": _WITH_REGISTRY,
    "environment": ("registries", *_PHRASES),
}
HELP = {
    "init": {
        "examples": (
            ("composeapps target init /srv/tuf --keys ~/keys", "keys root.pem, targets.pem and online.pem are made"),
            ("composeapps target init /srv/tuf --root-key a.pub --root-key b.pub --root-threshold 2 --targets-key "
             "t.pub --online-key online.pem --change first.json", "with keys that are elsewhere"),
        ),
        "details": ("1.root.json is what devices get in their image, and what 'composeapps bundle verify' takes.",
                    _ELSEWHERE),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "key": {
        "examples": (
            ("composeapps target key keys/root.pem", ""),
            ("composeapps target key keys/online.uri --uri 'hsm:2?label=factory' --public online.pub",
             "a key in a security module"),
        ),
        "details": ("Made are NAME.pem, PKCS #8 that a pass phrase encrypts, and NAME.pub, its public half, both in "
                    "PEM. A file that is there is never written over.",),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "create": {
        "examples": (
            ("composeapps target create /srv/tuf --keys ~/keys --name shop --hardware qemux86-64 --tag main --app "
             "registry.example.com/factory/web@sha256:…", ""),
            ("composeapps target create /srv/tuf --name shop --hardware qemux86-64 --tag main --app "
             "registry.example.com/factory/web:v3 --change shop.json", "to be signed where the key is"),
            ("composeapps target create /srv/tuf --key ci.pem --key online.pem --wave canary --name shop --hardware "
             "qemux86-64 --app registry.example.com/factory/web:v3", "for the devices of a wave"),
        ),
        "details": ("A device takes the Target of the highest version that has its hardware id and one of its tags, "
                    "never an older one than it has. Neither name nor version is ever used twice.", _ELSEWHERE),
        "exits": _WITH_REGISTRY,
        "environment": ("registries", *_PHRASES),
    },
    "list": {
        "examples": (("composeapps target list /srv/tuf", ""),
                     ("composeapps target list /srv/tuf --tag main --json", "")),
        "exits": _EXITS,
    },
    "show": {
        "examples": (("composeapps target show /srv/tuf shop-3", ""),),
        "exits": _EXITS,
    },
    "promote": {
        "examples": (
            ("composeapps target promote /srv/tuf shop-3 --tag main --keys ~/keys", ""),
            ("composeapps target promote /srv/tuf shop-3 --tag main --drop-tag canary --change main.json", ""),
        ),
        "details": ("A Target of a wave is signed by targets then.", _ELSEWHERE),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "revoke": {
        "examples": (
            ("composeapps target revoke /srv/tuf shop-3 --keys ~/keys", "no device takes it any more"),
            ("composeapps target revoke /srv/tuf --stolen keys/online.pub --add keys/online2.pem --keys ~/keys",
             "another key in the place of a stolen one"),
        ),
        "details": ("A device that runs a revoked Target keeps it until there is one of a higher version: publish "
                    "that. A stolen key goes out of every role that it signs.", _ELSEWHERE),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "renew": {
        "examples": (
            ("composeapps target renew /srv/tuf --key ~/keys/online.pem", "timestamp, and snapshot in time"),
            ("composeapps target renew /srv/tuf --role root --role targets --keys ~/keys", ""),
            ("composeapps target renew /srv/tuf --days timestamp=14 --keys ~/keys", "from now on for longer"),
        ),
        "details": ("The timestamp needs it more often than every seven days, unless --days said otherwise; the others "
                    "are told about 30 days before they expire.", _ELSEWHERE),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "rotate": {
        "examples": (
            ("composeapps target rotate /srv/tuf root --add keys/root2.pem --remove keys/root.pub --keys ~/keys", ""),
            ("composeapps target rotate /srv/tuf targets --add eve.pub --threshold 2 --change two.json", ""),
        ),
        "details": ("A new root is signed by the old keys and by the new ones. Old and new keys sign what devices read "
                    "before the new root, where the old ones are at hand.", _ELSEWHERE),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "wave": {
        "examples": (
            ("composeapps target wave /srv/tuf canary --wave-key ci.pub --tag canary --keys ~/keys", ""),
            ("composeapps target wave /srv/tuf canary --remove --keys ~/keys", ""),
        ),
        "details": ("A wave is a delegation of TUF: its own keys, of a build server for example, sign Targets for its "
                    "own tags. 'target promote' takes such a Target to all others.", _ELSEWHERE),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "sign": {
        "examples": (
            ("composeapps target sign two.json", "show what it is about"),
            ("composeapps target sign two.json --key /media/stick/targets.pem", "and sign it"),
        ),
        "details": ("What is shown is worked out from the documents that are signed, by comparison with those before "
                    "them.",),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
    "publish": {
        "examples": (
            ("composeapps target publish /srv/tuf two.json --key ~/keys/online.pem", ""),
            ("composeapps target publish /srv/tuf two-alice.json two-bob.json --key ~/keys/online.pem",
             "one change, of which each signed a copy"),
        ),
        "details": ("A change that was made from another state than what is published now is refused.",),
        "exits": _EXITS,
        "environment": _PHRASES,
    },
}
