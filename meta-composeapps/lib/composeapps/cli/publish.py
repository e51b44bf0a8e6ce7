# SPDX-License-Identifier: MIT
"""composeapps publish: runs where apps are made, not on devices. Takes PyYAML."""

from composeapps.cli import output

HELP = {
    "examples": (
        ("composeapps publish apps/web registry.example.com/factory/web:v3", ""),
        ("composeapps publish --dry-run apps/web registry.example.com/factory/web", ""),
        ("composeapps publish --platform linux/arm64 --platform linux/arm/v7 apps/web "
         "registry.example.com/factory/web:v3", ""),
        ("composeapps publish --pinned-images built.json apps/web registry.example.com/factory/web:v3", ""),
        ("composeapps publish -f apps/web/compose.yaml -f apps/web/prod.yaml apps/web "
         "registry.example.com/factory/web:v3", ""),
        ("composeapps publish --json apps/web registry.example.com/factory/web:v3 | jq -r .uri", ""),
    ),
    "details": (
        "Every service's image is resolved to its digest in its registry, now; what the tag names later changes "
        "nothing for devices. Images with an index keep it, so an app runs on every platform that all of its images "
        "have.",
        "Overrides, extends and include are taken into the one compose file that devices get. Where docker compose is "
        "installed, it has to make the same of it as of the original.",
        "--endpoint says where a registry listens when its name does not: hub.demo.test=http://127.0.0.1:5000.",
        "What the layers take on a device's disk is measured by reading them once; it is kept, so that publishing "
        "again reads only new layers.",
    ),
    "exits": {3: "the compose file, an image or a platform is missing", 4: None, 5: None},
    "environment": ("registries", "XDG_CACHE_HOME"),
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("app_dir", metavar="APP_DIR", help="directory with the app's compose file and what it names")
    parser.add_argument("target", metavar="REGISTRY/FACTORY/NAME[:TAG]", help="where to publish (tag: latest)")
    parser.add_argument("--file", "-f", metavar="FILE", action="append", default=[],
                        help="a compose file, in place of those that docker compose takes in APP_DIR; can be "
                             "repeated, later ones override earlier ones")
    parser.add_argument("--unchecked", action="store_true",
                        help="do not have docker compose compare the pinned file with the compose file")
    parser.add_argument("--dry-run", "--dryrun", action="store_true", help="resolve and pack everything, push nothing")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", action="append", default=[],
                        help="a platform of the devices, linux/arm64 for example; can be repeated (default: all of "
                             "Linux that the images have in common)")
    parser.add_argument("--pinned-images", metavar="FILE",
                        help="pinned images, HOST/PATH[:TAG]@sha256:…, as a JSON list or one in a line, or themselves "
                             "with commas between: they are not asked of the registry; one without a tag is for images "
                             "named without a tag")
    meta = parser.add_mutually_exclusive_group()
    meta.add_argument("--layers-meta", "-l", metavar="FILE",
                      help="what the layers take on a device's disk, as composectl has it: {ARCH: {\"layers\": …}}; "
                           "then they are not read")
    meta.add_argument("--no-layers-meta", action="store_true",
                      help="do not read the layers to measure what they take on a device's disk")
    parser.add_argument("--digest-file", "-d", metavar="FILE", help="write the app's digest there")
    output.add_endpoint(parser)
    parser.set_defaults(run=_publish)


def _publish(args):
    from composeapps.app.images import pinned_list
    from composeapps.app.publish import publish, read_given
    from composeapps.oci.platforms import Platform
    from composeapps.oci.reference import parse
    from composeapps.registry.client import RegistryClient, given_endpoints

    endpoints = given_endpoints(args.endpoint)
    pins = {}
    if args.pinned_images:
        # composectl takes the references themselves.
        given = "@sha256:" in args.pinned_images
        pins = pinned_list(args.pinned_images.encode() if given else read_given(args.pinned_images),
                           "--pinned-images" if given else args.pinned_images)
    platforms = [Platform.parse(text) for text in dict.fromkeys(args.platform)]
    client = RegistryClient(endpoints=endpoints)
    try:
        done = publish(args.app_dir, parse(args.target, what="target"), client, files=args.file,
                       checked=not args.unchecked, dry_run=args.dry_run,
                       layers_meta=args.layers_meta or not args.no_layers_meta, platforms=platforms, pins=pins,
                       notify=output.notify)
    finally:
        client.close()
    if args.digest_file and not args.dry_run:
        with open(args.digest_file, "w") as out:
            out.write(done.ref.digest)
    if args.json:
        output.print_json({
            "uri": str(done.ref), "tag": done.tag, "pushed": not args.dry_run, "services": done.services,
            "platforms": done.platforms, "files": done.files, "compose": done.compose.decode(),
            "blobs": [{"role": role, "digest": d.digest, "size": d.size, "mediaType": d.media_type}
                      for role, d in done.blobs],
        })
        return
    if args.dry_run:
        print(f"# would be pushed to {done.ref.repository}:{done.tag}")
        output.print_table(("BLOB", "SIZE", "DIGEST"), [(role, d.size, d.digest) for role, d in done.blobs])
        print(f"\n{done.compose.decode()}")
    print(done.ref)
