# SPDX-License-Identifier: MIT
"""composeapps publish: runs where apps are made, not on devices. Takes PyYAML."""

from composeapps.cli import output

EXAMPLES = """\
Every service's image is resolved to its digest in its registry, now; what the tag names
later changes nothing for devices. Images with an index keep it, so an app runs on every
platform that all of its images have.

Logins are taken from REGISTRY_AUTH_FILE, ~/.config/containers/auth.json or
~/.docker/config.json. COMPOSEAPPS_ENDPOINTS, or --endpoint, says where a registry listens
when its name does not: hub.demo.test=http://127.0.0.1:5000.

examples:
  composeapps publish apps/web registry.example.com/factory/web:v3
  composeapps publish --dry-run apps/web registry.example.com/factory/web
  composeapps publish --json apps/web registry.example.com/factory/web:v3 | jq -r .uri
"""


def configure(name, parser):
    """Add this command's arguments."""
    parser.epilog = EXAMPLES
    output.add_json(parser)
    parser.add_argument("app_dir", metavar="APP_DIR", help="directory with the app's docker-compose.yml")
    parser.add_argument("target", metavar="REGISTRY/FACTORY/NAME[:TAG]", help="where to publish (tag: latest)")
    parser.add_argument("--file", "-f", metavar="FILE", action="append", default=[],
                        help="a compose file, in place of those that docker compose takes in APP_DIR; can be "
                             "repeated, later ones override earlier ones")
    parser.add_argument("--unchecked", action="store_true",
                        help="do not have docker compose compare the pinned file with the compose file")
    parser.add_argument("--dry-run", action="store_true", help="resolve and pack everything, push nothing")
    parser.add_argument("--no-layers-meta", action="store_true",
                        help="do not read the layers to measure what they take on a device's disk")
    parser.add_argument("--endpoint", metavar="HOST=URL", action="append", default=[],
                        help="where a registry listens; can be repeated")
    parser.set_defaults(run=_publish)


def _publish(args):
    import os

    from composeapps.app.publish import publish
    from composeapps.oci.reference import parse
    from composeapps.registry.client import RegistryClient, parse_endpoints

    endpoints = parse_endpoints(" ".join([os.environ.get("COMPOSEAPPS_ENDPOINTS", ""), *args.endpoint]))
    client = RegistryClient(endpoints=endpoints)
    try:
        done = publish(args.app_dir, parse(args.target, what="target"), client, files=args.file,
                       checked=not args.unchecked, dry_run=args.dry_run,
                       layers_meta=not args.no_layers_meta, notify=output.notify)
    finally:
        client.close()
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
