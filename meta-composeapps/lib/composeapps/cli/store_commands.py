# SPDX-License-Identifier: MIT
"""composeapps ls, composeapps show: what the store holds. Neither needs dockerd."""

import sys

from composeapps.cli import output, stores
from composeapps.store.store import Store

HELP = {
    "ls": {
        "examples": (("composeapps ls", ""), ("composeapps ls --json | jq -r '.[].uri'", "")),
        "exits": {3: "the store should be there and is not", 4: None},
    },
    "show": {
        "examples": (
            ("composeapps show web", ""),
            ("composeapps show --compose web", ""),
            ("composeapps show --manifest web | jq .layers", ""),
            ("composeapps show registry.example.com/factory/web@sha256:… --json", ""),
        ),
        "exits": {3: None, 4: None},
    },
}


def configure(name, parser):
    """Add the arguments of the command ``name``."""
    parser.describe(**HELP[name])
    output.add_json(parser)
    if name == "show":
        parser.add_argument("app", metavar="APP", help="name or pinned reference")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--compose", action="store_true", help="print the pinned compose file instead")
        what.add_argument("--manifest", action="store_true",
                          help="print the app manifest instead, as it is in the registry")
    parser.set_defaults(run=_ls if name == "ls" else _show)


def _ls(args):
    from composeapps.records.state import StateDirectory

    config = output.load_config(args)
    states, store = StateDirectory(config.state_dir), Store(config.store)
    if problem := stores.missing(args, store, states.names()):
        raise problem
    rows = []
    for ref in store.list_apps():
        state = states.get(ref.app_name)
        installed = state is not None and state.uri == str(ref)
        rows.append({"name": ref.app_name, "uri": str(ref), "installed": installed})
    if args.json:
        output.print_json(rows)
    else:
        output.print_table(("NAME", "INSTALLED", "URI"),
                           [(row["name"], "yes" if row["installed"] else "no", row["uri"]) for row in rows])


def _show(args):
    from composeapps.app import compose
    from composeapps.app.tree import UNREAD
    from composeapps.installed.install import load_from_store
    from composeapps.records.state import StateDirectory

    config = output.load_config(args)
    store = Store(config.store)
    ref = store.find_app(args.app, StateDirectory(config.state_dir))
    if args.manifest:
        # Its digest is that of these very bytes: nothing is added, not even a newline.
        sys.stdout.flush()
        sys.stdout.buffer.write(store.read(ref.digest))
        return
    app = load_from_store(store, ref, reading=UNREAD, config=config)
    if args.compose:
        # As it was published, which may be in UTF-16.
        print(app.compose.decode(errors="replace"), end="")
        return
    blobs = list(app.blobs())
    value = {
        "name": app.ref.app_name,
        "uri": str(app.ref),
        "size": sum(blob.descriptor.size for blob in blobs),
        "blobs": len(blobs),
        "services": [
            {"name": service.name, "image": service.image, "platform": str(image.variants[0].platform),
             "layers": len(image.variants[0].document.layers),
             "size": sum(layer.size for layer in image.variants[0].document.layers)}
            for service in compose.services(app.compose, f"app {app.ref}")
            for image in [app.images[service.image]]
        ],
    }
    if args.json:
        output.print_json(value)
        return
    print(f"{value['name']}: {value['uri']}")
    print(f"{output.human_size(value['size'])} in {value['blobs']} blobs\n")
    output.print_table(
        ("SERVICE", "PLATFORM", "LAYERS", "SIZE", "IMAGE"),
        [(s["name"], s["platform"], s["layers"], output.human_size(s["size"]), s["image"]) for s in value["services"]])
