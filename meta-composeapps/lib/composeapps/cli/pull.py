# SPDX-License-Identifier: MIT
"""composeapps pull: from a registry into the store. Needs no dockerd."""

from composeapps.cli import output

HELP = {
    "examples": (
        ("composeapps pull registry.example.com/factory/web@sha256:…", ""),
        ("composeapps pull --limit 500k --parallel 2 registry.example.com/factory/web@sha256:…", ""),
        ("composeapps pull --verify web", "check an app of the store, and mend it"),
        ("composeapps pull --from /mnt/usb web", "without a network, from another store"),
        ("composeapps pull --platform linux/arm64 --store /mnt/usb registry.example.com/factory/web@sha256:…", ""),
        ("composeapps pull --json registry.example.com/factory/web@sha256:… | jq .", ""),
    ),
    "details": (
        "What the store has already is not fetched, and an app that is complete there needs no network. A pull that "
        "was cut off, by whatever, goes on at the byte where it stopped. With nothing to fetch, all of the app is "
        "read and what is damaged fetched again; --verify does so in any case. A lost connection is tried again for "
        "about two minutes in which nothing arrives.",
        "--from takes all from another store, or from any directory with blobs/sha256 in it, and verifies it on the "
        "way; there an app's name will do where the directory is a store. --platform fetches for another machine than "
        "this one, for a store that is taken there.",
        'Where registries listen, their mirrors, certificates, proxies and logins: the sections [registry."HOST"] of '
        "the configuration.",
    ),
    "exits": {0: "all is there", 3: "the registry lacks something", 4: "the registry sends damaged data", 5: None,
              9: None, 12: None},
    "environment": ("registries",),
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser, "print JSON objects, one a line, while it goes on")
    parser.add_argument("refs", metavar="REF", nargs="+",
                        help="an app's version, HOST/PATH@sha256:…, or the name of an app in the store")
    parser.add_argument("--limit", metavar="RATE", help="bytes a second that may be used: 500k, 2M (0: no limit)")
    parser.add_argument("--parallel", metavar="N", type=int, help="how many blobs are fetched at a time (1 to 32)")
    parser.add_argument("--verify", action="store_true", help="read what the store has already, and mend it")
    parser.add_argument("--from", metavar="STORE|DIR", dest="source", help="take it from there, not from a registry")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="fetch for that platform (default: this one)")
    parser.add_argument("--no-space-check", action="store_true", help="begin even if the disk may become too full")
    parser.set_defaults(run=_pull)


def _pull(args):
    import contextlib

    from composeapps.errors import ComposeAppsError
    from composeapps.oci.platforms import Platform
    from composeapps.records import lock
    from composeapps.store.store import Store
    from composeapps.update.parts import Parts

    config = _configured(args)
    store, client = Store(config.store), _Lazy(config, args.source)
    refs = [_reference(text, client.store or store) for text in args.refs]
    platform = Platform.parse(args.platform) if args.platform else None
    parts, failure = Parts(config, output.notify), None
    try:
        with contextlib.ExitStack() as end:
            # Who prunes holds the state's lock, and so knows of this download from its begin.
            with parts.locked():
                end.enter_context(lock.exclusive(parts.states.download_lock_file, subjects=map(str, refs)))
            for ref in refs:
                try:
                    _pull_one(args, parts, store, client, ref, platform)
                except ComposeAppsError as err:
                    failure = failure or err
                    if args.json:
                        _tell(event="result", uri=str(ref), ok=False, error=str(err), exit_code=err.exit_code)
                    output.notify(f"composeapps: {err}")
    finally:
        client.close()
    return failure.exit_code if failure else 0


class _Lazy:
    """The registry client, made when it is first called for, or what reads the store that stands for it.

    ``store`` is that store, None for registries.
    """

    def __init__(self, config, source=None):
        self._config, self._client, self.store, self.notify = config, None, None, lambda text: None
        if source is not None:
            from composeapps.pull.fromstore import StoreClient

            self._client = StoreClient(source)
            self.store = self._client.store

    def __call__(self):
        from composeapps.pull.pull import registry_client

        if self._client is None:
            self._client = registry_client(self._config)
            self._client.notify = lambda text: self.notify(text)
        return self._client

    def close(self):
        if self._client is not None:
            self._client.close()


def _configured(args):
    from composeapps.errors import UsageError

    config = output.load_config(args)
    if args.limit is not None:
        from composeapps.registry.ratelimit import parse_rate

        limit = parse_rate(args.limit)
        if limit is None:
            raise UsageError(f"--limit '{args.limit}' is not a number of bytes a second: write 750k or 2M, for example")
        config = config._replace(bandwidth=limit)
    if args.parallel is not None:
        from composeapps.cli.config import PARALLEL

        try:
            config = config._replace(parallel=PARALLEL.check(args.parallel))
        except ValueError:
            raise UsageError(f"--parallel {args.parallel} is not a number {PARALLEL.range}") from None
    return config


def _reference(text, store):
    from composeapps.errors import NotFoundError, UsageError
    from composeapps.oci.reference import parse_pinned

    if "@" not in text:
        try:
            return store.find_app(text)
        except NotFoundError:
            raise UsageError(f"'{text}' is neither an app in the store nor a pinned reference: name the version as "
                             "HOST/PATH@sha256:…, as 'composeapps publish' printed it") from None
    ref = parse_pinned(text, what="app")
    return ref.pinned(ref.digest)


def _pull_one(args, parts, store, client, ref, platform):
    import time

    from composeapps.pull import progress as progresses
    from composeapps.pull import pull

    config, started = parts.config, time.monotonic()
    progress = progresses.choose(args.json, config.state_dir, ref)
    client.notify = progress.note
    try:
        found = pull.survey(ref, store, client, platform, verify=args.verify, keep=True)
        if not found.missing and not args.verify:
            found = pull.verified(found, store, client, keep=True)
        if found.missing and not args.no_space_check:
            from composeapps.space import check as space

            space.check(space.needs(found.app, found.missing, store, None, config, found.documents))
        pull.fetch(found, store, client, progress, config.parallel, config.bandwidth,
                   lambda: parts.locked(wait=True))
    finally:
        progress.close()
    seconds = time.monotonic() - started
    if args.json:
        _tell(event="result", uri=str(ref), ok=True, blobs=len(found.missing), bytes=found.size,
              seconds=round(seconds, 3))
    elif found.missing:
        output.notify(f"{ref.app_name}: {output.human_size(found.size)} in {len(found.missing)} blobs fetched "
                      f"in {seconds:.1f} s")
    else:
        output.notify(f"{ref.app_name}: all of it is in the store")


def _tell(**values):
    import json

    print(json.dumps(values), flush=True)
