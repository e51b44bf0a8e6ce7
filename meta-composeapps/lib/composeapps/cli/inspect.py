# SPDX-License-Identifier: MIT
"""composeapps inspect: a look at an app in its registry. Keeps nothing, and needs neither a store nor a dockerd."""

from composeapps.cli import output

HELP = {
    "examples": (
        ("composeapps inspect registry.example.com/factory/web:v3", ""),
        ("composeapps inspect --platform linux/arm64 registry.example.com/factory/web@sha256:…", ""),
        ("composeapps inspect --json registry.example.com/factory/web:v3 | jq -r .uri", ""),
    ),
    "details": (
        "The app's manifest, its bundle and its images' manifests are read from the registry; layers are not. Shown "
        "are its services and platforms, and, for this machine or the one that --platform names, what a pull into the "
        "store would fetch. A version of the app that the store has is compared with it.",
    ),
    "exits": {0: "the app could be read", 3: "it is not in the registry, or not for that platform", 4: None, 5: None},
    "environment": ("registries",),
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("ref", metavar="REF", help="HOST/PATH:TAG or HOST/PATH@sha256:…, or an app in the store")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="look for this machine (default: this one)")
    output.add_endpoint(parser)
    parser.set_defaults(run=_inspect)


def _inspect(args):
    from composeapps.oci.platforms import Platform
    from composeapps.oci.reference import parse
    from composeapps.pull.look import look
    from composeapps.pull.pull import registry_client
    from composeapps.records.state import StateDirectory
    from composeapps.registry.client import given_endpoints
    from composeapps.store.store import Store

    config = output.load_config(args)
    store, states = Store(config.store), StateDirectory(config.state_dir)
    platform = Platform.parse(args.platform) if args.platform else None
    ref = parse(args.ref, what="app") if "/" in args.ref else store.find_app(args.ref, states)
    client = registry_client(config, endpoints=given_endpoints(args.endpoint))
    client.notify = output.notify
    try:
        seen = look(ref, client, store, platform, states)
    finally:
        client.close()
    value = _value(seen, store)
    if args.json:
        output.print_json(value)
    else:
        _print(value)


def _value(seen, store):
    """Return a Look as JSON-ready data; sizes are in bytes."""
    from composeapps.app import compose

    app, lacking = seen.app, {blob.descriptor.digest for blob in seen.missing}
    services = []
    for service in compose.services(app.compose, f"app {app.ref}"):
        entry = {"name": service.name, "image": service.image,
                 "platforms": [str(platform) for platform in seen.platforms]}
        if seen.chosen:
            variant = seen.chosen.images[service.image].variants[0]
            layers = dict.fromkeys(variant.document.layers)
            entry.update(platform=str(variant.platform), layers=len(layers), size=sum(each.size for each in layers),
                         download=sum(each.size for each in layers if each.digest in lacking))
        services.append(entry)
    images = [{"image": name, "variants": [{
        "platform": str(variant.platform), "digest": variant.descriptor.digest,
        "config": variant.document.config.digest,
        "layers": [{"digest": layer.digest, "size": layer.size, "unpacked": seen.unpacked.get(layer.digest),
                    "in_store": store.size_of(layer.digest) == layer.size} for layer in variant.document.layers],
    } for variant in image.variants]} for name, image in app.images.items()]
    return {
        "name": str(app.ref.app_name), "uri": str(app.ref),
        "bundle": {"digest": app.bundle.digest, "size": app.bundle.size},
        "platforms": seen.sizes, "platform": str(seen.platform) if seen.chosen else None,
        "download": {"blobs": len(seen.missing),
                     "bytes": sum(blob.descriptor.size for blob in seen.missing)} if seen.chosen else None,
        "services": services, "images": images, "in_store": store.has_app(app.ref),
        "compared_with": str(seen.before) if seen.before else None,
        "changes": [{"what": what, "service": name or None} for what, name in seen.changes],
    }


def _print(value):
    size = output.human_size
    print(f"{value['name']}: {value['uri']}")
    platforms = ", ".join(f"{name} ({size(total)})" for name, total in value["platforms"].items())
    print(f"platforms: {platforms or 'none that all of its images have'}\n")
    if value["platform"] is None:
        output.print_table(("SERVICE", "PLATFORMS", "IMAGE"), [
            (s["name"], ", ".join(s["platforms"]), s["image"]) for s in value["services"]])
    else:
        output.print_table(("SERVICE", "PLATFORM", "LAYERS", "SIZE", "TO FETCH", "IMAGE"), [
            (s["name"], s["platform"], s["layers"], size(s["size"]), size(s["download"]), s["image"])
            for s in value["services"]])
        _print_download(value)
    if value["compared_with"]:
        print(f"\ncompared with {value['compared_with']} in the store:")
        for change in value["changes"]:
            print(f"  {change['what']}: {change['service'] or 'files of the bundle'}")
        if not value["changes"]:
            print("  no service and no file differs")


def _print_download(value):
    size, download = output.human_size, value["download"]
    if not download["blobs"]:
        print(f"\nfor {value['platform']}: all of it is in the store")
        return
    print(f"\nfor {value['platform']}: {size(download['bytes'])} in {download['blobs']} blobs to fetch")
    chosen, rows = {service["platform"] for service in value["services"]}, {}
    for image in value["images"]:
        for variant in image["variants"]:
            for layer in variant["layers"] if variant["platform"] in chosen else ():
                if not layer["in_store"]:
                    unpacked = layer["unpacked"]
                    rows[layer["digest"]] = (layer["digest"], size(layer["size"]),
                                             "-" if unpacked is None else size(unpacked))
    if rows:
        print()
        output.print_table(("LAYER TO FETCH", "SIZE", "UNPACKED"), list(rows.values()))
