# SPDX-License-Identifier: MIT
"""composeapps prune, rm: giving space back."""

from composeapps.cli import output, stores
from composeapps.errors import ComposeAppsError

HELP = {
    "prune": {
        "examples": (
            ("composeapps prune --dry-run", ""),
            ("composeapps prune", ""),
            ("composeapps prune --keep registry.example.com/factory/web@sha256:…", ""),
        ),
        "details": (
            "Kept are of each app the installed version and the one before it, the preloaded apps, what an unfinished "
            "update or a running container needs, what composectl has installed or begun to fetch, and apps that "
            "'compose_apps' in the configuration names and that are not installed yet. All else goes: apps, their "
            "blobs, unfinished downloads, and the images that the agent loaded into dockerd for these apps, unless a "
            "container is made from them.",
            "What removals of apps set aside, because services or users had written it, is measured and stays: it is "
            "emptied by hand.",
        ),
        "exits": {3: "the store should be there and is not",
                  4: "something could not be judged for damage: it was kept, the rest is pruned",
                  6: "dockerd could not be asked for its images: they were kept, the rest is pruned", 9: None},
    },
    "rm": {
        "examples": (("composeapps rm web", ""), ("composeapps rm --volumes web", "")),
        "details": (
            "Stops and removes the app's containers and networks, its unpacked bundle, its state, and what the store "
            "and dockerd have for it alone. Named volumes stay unless --volumes is given, and what services wrote "
            "into the app's directory is set aside, which is said. The preloaded version of an app stays in the "
            "store, but is not started at boot any more; 'composeapps run APP' brings it back. With a pinned "
            "reference only that version goes from the store.",
            "A removal that was cut off is finished by giving the command again.",
        ),
        "exits": {3: None, 4: None, 6: None, 9: None},
    },
    "uninstall": {
        "examples": (("composeapps uninstall web", ""), ("composeapps uninstall --volumes web", "")),
        "details": (
            "Does what 'composeapps rm' does, and leaves the store as it is: 'composeapps run APP' brings the app back "
            "without a network, until 'composeapps prune' takes what is not installed.",
            "An app that runs is stopped. One that was cut off is finished by giving the command again.",
        ),
        "exits": {3: None, 4: None, 6: None, 9: None},
    },
}


def configure(name, parser):
    """Add the arguments of the command ``name``."""
    parser.describe(**HELP[name])
    output.add_json(parser)
    if name == "prune":
        parser.add_argument("--dry-run", action="store_true", help="say what would be removed, remove nothing")
        parser.add_argument("--keep", metavar="REF", action="append", default=[],
                            help="a further version to keep, HOST/PATH@sha256:…; can be repeated")
        parser.set_defaults(run=_prune)
    else:
        parser.add_argument("apps", metavar="APP", nargs="+", help="name of an installed app" if name == "uninstall"
                            else "name, or pinned reference of one version")
        parser.add_argument("--volumes", action="store_true", help="remove the app's volumes, with all data in them")
        parser.set_defaults(run=_rm)


def _parts(args):
    from composeapps.update.parts import Parts

    return Parts(output.load_config(args), output.notify)


def _prune(args):
    import contextlib

    from composeapps.oci.reference import parse_pinned
    from composeapps.records import lock
    from composeapps.space import prune, setaside

    parts = _parts(args)
    keep = [str(parse_pinned(uri, what="--keep")) for uri in args.keep]
    if problem := stores.missing(args, parts.store, parts.states.names()):
        raise problem
    held = contextlib.nullcontext() if args.dry_run else lock.exclusive(parts.states.lock_file)
    with held:
        report = prune.prune(parts.store, parts.states, parts.config, parts.engine, args.dry_run, keep,
                             notify=output.notify)
    aside = setaside.measure(parts.config)
    if args.json:
        output.print_json({"dry_run": args.dry_run, **report.dump(), "set_aside": aside.dump()})
    else:
        would = "would be " if args.dry_run else ""
        for uri in report.apps if args.dry_run else ():
            print(f"{uri} would be removed")
        for uri, why in report.kept.items():
            print(f"{uri} stays: {why}")
        print(f"{len(report.apps)} versions, {report.blobs} blobs, {report.partials} unfinished downloads and "
              f"{len(report.images)} images {would}removed: {output.human_size(report.bytes)} in the store, "
              f"{output.human_size(report.docker_bytes)} in dockerd")
        if aside.entries:
            more = "" if aside.complete else "more than "
            print(f"{aside.path} holds {more}{output.human_size(aside.bytes)} that {aside.entries} removals set aside: "
                  f"look through it, and remove what nobody needs with 'rm -r {aside.path}/NAME'")
    return _problems([report])


def _problems(reports):
    """Print what could not be judged, and what dockerd would not do; return the exit status."""
    from composeapps.errors import CorruptError, EngineError

    damage, refusals = ([problem for report in reports for problem in getattr(report, kind)]
                        for kind in ("problems", "of_dockerd"))
    for problem in dict.fromkeys((*damage, *refusals)):
        output.notify(f"composeapps: {problem}")
    return CorruptError.exit_code if damage else EngineError.exit_code if refusals else 0


def _rm(args):
    from composeapps.records import lock
    from composeapps.space import removal

    parts, results, first, reports = _parts(args), [], None, []
    keep = args.command == "uninstall"
    with lock.exclusive(parts.states.lock_file):
        found = {word: _installed(word, parts.states) if keep else word for word in args.apps}
        names = [name for name in found.values() if not isinstance(name, ComposeAppsError)]
        removed = dict(removal.remove(names, parts.store, parts.states, parts.config, parts.engine, args.volumes,
                                      output.notify, keep))
        for name, known in found.items():
            result = known if isinstance(known, ComposeAppsError) else removed[known]
            if isinstance(result, ComposeAppsError):
                first = first or result
                results.append({"name": name, "ok": False, "error": str(result)})
                output.notify(f"composeapps: {result}")
                continue
            report, gone = result
            reports.append(report)
            told = report.dump()
            told.pop("kept")
            results.append({"name": name, "ok": True, **told, "containers": gone.containers if gone else [],
                            "networks": gone.networks if gone else [], "volumes": gone.volumes if gone else []})
            if not args.json:
                print(f"{name}: {'uninstalled' if keep else 'removed'}; {output.human_size(report.bytes)} in the store "
                      f"and {output.human_size(report.docker_bytes)} in dockerd are free")
    if args.json:
        output.print_json(results)
    status = _problems(reports)
    return first.exit_code if first else status


def _installed(name, states):
    """Return the name of the app that a name, or the pinned reference of its installed version, means; or the error."""
    from composeapps.errors import NotFoundError, UsageError
    from composeapps.oci.reference import parse_pinned

    if "@" not in name:
        return name
    try:
        ref = parse_pinned(name)
    except UsageError as err:
        return err
    state = states.get(ref.app_name)
    if state is None or parse_pinned(state.uri).digest != ref.digest:
        return NotFoundError(f"{ref} is not installed{f'; {state.uri} is' if state else ''}")
    return ref.app_name
