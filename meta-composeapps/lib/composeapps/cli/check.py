# SPDX-License-Identifier: MIT
"""composeapps check: reads every byte of an app again."""

import contextlib

from composeapps.cli import output, stores
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from composeapps.oci.digests import is_digest

HELP = {
    "examples": (
        ("composeapps check", ""),
        ("composeapps check --quick", ""),
        ("composeapps check web --json", ""),
        ("composeapps check --store-only", ""),
    ),
    "details": (
        "Of each app the blobs in the store are verified, and the files beside them that other tools read; of an "
        "installed app also its unpacked bundle and its images in dockerd. --store-only leaves out the latter two. "
        "Without APP every other file of the store is verified as well. 'composeapps pull' mends what the store has "
        "damaged, and nothing else.",
        "--quick reads no layer and no unpacked bundle: it sees what is missing, or of the wrong size, and damage in "
        "manifests and configurations.",
    ),
    "exits": {3: None, 4: None, 6: None},
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("apps", metavar="APP", nargs="*", help="name or pinned reference (default: all)")
    parser.add_argument("--quick", action="store_true", help="look for blobs and at their sizes, and do not read them")
    parser.add_argument("--store-only", action="store_true", help="check the store, nothing else")
    parser.set_defaults(run=_check)


def collect(args):
    """Return the results of a check as JSON-ready data: "name", "ok", "problems", "exit_code" and so on of each app.

    Arguments:
        args: the command line's: ``apps``, ``quick``, ``store_only``, and the common options.
    """
    from composeapps.update.parts import Parts

    config = output.load_config(args)
    parts = Parts(config, output.notify)
    store, states = parts.store, parts.states
    refs = [store.find_app(name, states) for name in args.apps] or [*store.list_apps(), *_lost(states, store)]
    known = _known(states, config)
    results, seen, verified, engine = [], set(), {}, parts.look
    for ref in refs:
        state = states.get(ref.app_name)
        installed = state is not None and state.uri == str(ref) and not args.store_only
        ids = state.images.values() if installed else None
        results.append(_check_app(ref, store, config, engine, ids, seen, verified, known, args.quick))
    if not args.apps:
        rest = _check_rest(store, refs, seen, known, args.quick)
        results += [rest] if rest["problems"] else []
        results += _awaited(parts, args, refs)
    return results


def _check(args):
    results = collect(args)
    if args.json:
        output.print_json(results)
    else:
        for result in results:
            parts = ["store", *(["bundle"] if not args.quick else []), "images"] if result["installed"] else ["store"]
            scope = ", ".join(parts) + (", not read" if args.quick else "")
            print(f"{result['name']}: {'ok' if result['ok'] else 'FAILED'} "
                  f"({scope}; {result['blobs']} blobs, {output.human_size(result['size'])})")
            for problem in result["problems"]:
                print(f"  {problem}")
    codes = [result["exit_code"] for result in results if not result["ok"]]
    return max(codes, default=0)


def _result(name, uri, installed):
    return {"name": name, "uri": uri, "installed": installed, "ok": False, "blobs": 0, "size": 0, "problems": [],
            "exit_code": 0}


def _lost(states, store):
    """Return the installed versions that are no apps in the store at all."""
    from composeapps.oci.reference import parse_pinned

    lost = []
    for state in filter(None, map(states.get, states.names())):
        with contextlib.suppress(ComposeAppsError):
            ref = parse_pinned(state.uri)
            if not (store.app_dir(ref) / "uri").exists():
                lost.append(ref)
    return lost


def _awaited(parts, args, refs):
    """Return the results of what should be in the store and is not: the image's apps, or all of it.

    Arguments:
        parts: the Parts of the device.
        args: the command line.
        refs: the References of the versions that were looked at.
    """
    from composeapps.installed import desired

    found, names = [], {ref.app_name for ref in refs} | set(desired.factory_set(parts.config)[0])
    if problem := stores.missing(args, parts.store, names):
        found.append(_result("store", "", False))
        _add(found[-1], str(problem), type(problem))
    for name, each in sorted(desired.awaited(parts, containers=False)[0].items()):
        if each.preloaded and each.uri not in map(str, refs):
            found.append(_result(name, each.uri, False))
            _add(found[-1], f"{each.text}: {each.remedy}", NotFoundError)
    return found


def _known(states, config):
    """Return {(app name, digest): pinned reference} of the versions that are known from elsewhere than the store."""
    from composeapps.oci.reference import parse_pinned
    from composeapps.store.factoryset import factory_apps

    found = [state for state in map(states.get, states.names()) if state is not None]
    uris = [uri for state in found for uri in (state.uri, state.previous)]
    with contextlib.suppress(ComposeAppsError):
        uris += factory_apps(config).values()
    known = {}
    for uri in filter(None, uris):
        with contextlib.suppress(ComposeAppsError):
            ref = parse_pinned(uri)
            known[ref.app_name, ref.digest] = uri
    return known


def _check_app(ref, store, config, engine, ids, seen, verified, known, quick):
    """Check one app.

    ``ids`` are what dockerd called its images, None for an app that is not installed; ``seen`` gets the digests that
    were looked at, ``verified`` {(digest, size): what Store.verify says} of those that were read, which are not read
    again; ``known`` is what ``_known`` returned; ``quick`` leaves out what has to be read for its content's sake alone.
    """
    from composeapps.app.tree import CHECKED, UNREAD, WHOLE
    from composeapps.installed.install import bundle_problems, find_image, load_from_store
    from composeapps.store import appdir

    result = _result(ref.app_name, str(ref), ids is not None)
    try:
        app = load_from_store(store, ref, config=config,
                              reading=UNREAD if quick else CHECKED if ids is None else WHOLE)
        if not quick:
            # Its bundle was verified while it was read.
            verified[app.bundle.digest, app.bundle.size] = None
        wanted = {blob.descriptor.digest: blob.descriptor.size for blob in app.blobs()
                  if not blob.optional or store.size_of(blob.descriptor.digest) is not None}
        result["blobs"], result["size"] = len(wanted), sum(wanted.values())
        seen.update(wanted)
        problems = _sizes(store, wanted) if quick else _verified(store, wanted, verified)
        for digest in wanted:
            if problem := problems[digest]:
                missing = store.size_of(digest) is None
                _add(result, problem, NotFoundError if missing else CorruptError)
        uri = known.get((ref.app_name, ref.digest), str(ref))
        faults = appdir.problems(store, app)
        if uri != str(ref) and not any(path.name == "uri" for path, _problem in faults):
            faults.append((store.app_dir(ref) / "uri", f"is damaged: it says {ref}"))
        for path, problem in faults:
            # One of the two is wrong, and only who knows the reference can tell which.
            both = f"{path.with_suffix('')} or " if path.name == "uri.sha256" else ""
            _add(result, f"{both}{path} {problem}; 'composeapps pull {uri}' writes it anew", CorruptError)
        if ids is not None and not result["problems"]:
            for problem in () if quick else bundle_problems(app, store, config):
                text = f"unpacked bundle: {problem}; 'composeapps install {ref.app_name}' repairs it"
                _add(result, text, CorruptError)
            for image in app.images.values():
                if find_image(image, engine, ids) is None:
                    text = f"image {image.ref} is not in dockerd; 'composeapps install {ref.app_name}' loads it"
                    _add(result, text, NotFoundError)
    except (ComposeAppsError, OSError) as err:
        text = str(err) if isinstance(err, ComposeAppsError) else f"{err.filename} cannot be read ({err.strerror})"
        if isinstance(err, NotFoundError) and store.size_of(ref.digest) is None:
            text = f"{ref} is not in the store {store.root}: 'composeapps pull {ref}' fetches it"
        _add(result, text, type(err) if isinstance(err, ComposeAppsError) else CorruptError)
        if not quick:
            _check_named(store, ref, result, seen)
    result["ok"] = not result["problems"]
    return result


def _verified(store, wanted, verified):
    """Return {digest: None, or a sentence} for {digest: size in bytes}; what other apps have, too, is read once."""
    found = store.verify_all({digest: size for digest, size in wanted.items() if (digest, size) not in verified})
    verified.update(((digest, wanted[digest]), problem) for digest, problem in found.items())
    return {digest: verified[digest, size] for digest, size in wanted.items()}


def _sizes(store, wanted):
    """Return {digest: None, or a sentence} for {digest: size in bytes} by the sizes alone."""
    problems = {}
    for digest, size in wanted.items():
        present = store.size_of(digest)
        problems[digest] = None if present == size else (
            f"blob {digest} is not in the store {store.root}" if present is None else
            f"blob {digest} in {store.root} has {present} bytes, not {size}: fetch it again")
    return problems


def _check_named(store, ref, result, seen):
    """Verify what an app that cannot be read may have, as far as its names are known."""
    from composeapps.store import inventory

    for digest in sorted(inventory.take(store, ref).digests - seen):
        if store.size_of(digest) is not None:
            seen.add(digest)
            problem = store.verify(digest)
            if problem and problem not in result["problems"]:
                _add(result, problem, CorruptError)


def _check_rest(store, refs, seen, known, quick):
    """Check what none of the apps ``refs`` has: directories that name no app, and all blobs that were not ``seen``.

    ``quick`` leaves out the latter.
    """
    result = _result("store", "", False)
    listed = {store.app_dir(ref) for ref in refs}
    for name, number, directory in store.app_directories():
        # One without a uri was not finished, or is about to go: no app, and no damage.
        if directory not in listed and (directory / "uri").exists():
            uri = known.get((name, f"sha256:{number}"), f"…/{name}@sha256:{number}")
            _add(result, f"{directory / 'uri'} is damaged; 'composeapps pull {uri}' writes it anew", CorruptError)
    rest = [] if quick else [f"sha256:{path.name}" for path in sorted(store.blobs.glob("?" * 64))]
    problems = store.verify_all({digest: store.size_of(digest) for digest in rest
                                 if digest not in seen and is_digest(digest)})
    for digest in sorted(problems):
        if problem := problems[digest]:
            _add(result, f"{problem}; no app needs it here: if none does at all, 'composeapps prune' removes it",
                 CorruptError)
    result["ok"] = not result["problems"]
    return result


def _add(result, text, kind):
    result["problems"].append(text)
    result["exit_code"] = max(result["exit_code"], kind.exit_code)
