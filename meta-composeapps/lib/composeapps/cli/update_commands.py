# SPDX-License-Identifier: MIT
"""composeapps update, rollback, allow: bringing apps to other versions."""

import contextlib

from composeapps.cli import output
from composeapps.errors import ComposeAppsError, NotFoundError, RolledBackError, UsageError

# What a change of version may end with.
_EXITS = dict.fromkeys((3, 4, 5, 6, 9, 12, 13, 14, 15, 16))
HELP = {
    "update": {
        "examples": (
            ("composeapps update hub.example.com/factory/shop@sha256:…", ""),
            ("composeapps update --plan hub.example.com/factory/shop@sha256:…", ""),
            ("composeapps update", "go on with what was cut off; then ask the factory, where one is configured"),
            ("composeapps update --now", "ask it at once, and install outside of the maintenance window, too"),
            ("composeapps update --bundle /run/media/stick", "from a stick, without a network"),
            ("composeapps update --force", "the same, whatever containers hold their update lock"),
            ("composeapps update fetch hub.example.com/factory/shop@sha256:…", ""),
            ("composeapps update install", ""),
            ("composeapps update start --soak 60", ""),
            ("composeapps update cancel shop", ""),
        ),
        "details": (
            "An update is fetched, loaded into dockerd, and put in place service by service; only what changed is "
            "touched. It is committed when all services were well for the soak time. If they were not, the version "
            "before it is brought back from the store. What was cut off goes on with the next 'composeapps update'. An "
            "app that the user stopped gets the new version and stays stopped.",
            "With a server in [delivery] of the configuration, 'composeapps update' without REF checks in with it, as "
            "composeapps-checkin.timer does: what the factory signed for this device is fetched and installed, and "
            "what came of it is reported.",
            "In steps: 'fetch' only fetches, 'install' fetches and loads into dockerd, 'start' goes on to the end. "
            "What waits between steps waits for these words, over reboots, too. Without REF each goes on with what "
            "there is. 'cancel' gives up what has not begun to switch, and 'status' tells of what is under way.",
        ),
        "exits": _EXITS,
        "environment": ("registries",),
    },
    "rollback": {
        "examples": (
            ("composeapps rollback shop", ""),
            ("composeapps rollback --reject shop", "and never install the present version again by itself"),
            ("composeapps rollback", "all apps, to the factory's Target before this one"),
        ),
        "details": (
            "The version before the installed one comes back from the store, without a network; a second rollback "
            "undoes the first. An update of the app that has touched nothing yet is given up instead.",
            "Without APP all apps go back together, to the Target that was installed before. The one that is left "
            "comes again by 'composeapps update --target NAME' only, or after 'composeapps allow --target NAME'.",
        ),
        "exits": _EXITS,
    },
    "allow": {
        "examples": (
            ("composeapps allow hub.example.com/factory/shop@sha256:…", ""),
            ("composeapps allow --target device-7", "a Target that somebody went back from"),
        ),
        "details": ("A version that failed too often is not tried again; this forgets its failures.",),
        "exits": {3: "the version has not failed on this device", 9: None},
    },
}


def configure(name, parser):
    """Add the arguments of the command ``name``."""
    parser.describe(**HELP[name])
    output.add_json(parser)
    if name == "rollback":
        parser.add_argument("apps", metavar="APP", nargs="*", help="name of an installed app; without one all apps go "
                            "back to the factory's Target before the installed one")
        parser.add_argument("--reject", action="store_true", help="reject the version that is left")
    else:
        refs = parser.add_argument("refs", metavar="STEP|REF" if name == "update" else "REF",
                                   nargs="*", help=(
            "fetch, install, start, cancel or status, when not all of it is to be done; then versions of apps, "
            "HOST/PATH@sha256:…" if name == "update" else "an app's version, HOST/PATH@sha256:…"))
        refs.completes = tuple(_HOLDS) + ("cancel", "status") if name == "update" else "other"
    if name == "allow":
        parser.add_argument("--target", metavar="NAME", action="append", default=[], dest="targets",
                            help="a Target of the factory's that somebody went back from; can be repeated")
    if name == "update":
        parser.add_argument("--now", action="store_true", help="check in at once, whatever failed before, and pass the "
                            "maintenance window by")
        parser.add_argument("--target", metavar="NAME", default="", help="install this Target of the factory's, also "
                            "an older one")
        parser.add_argument("--bundle", metavar="PATH", help="take what the factory signed from an offline bundle, a "
                            "directory or a .tar file, on a stick for example, and ask no server")
        parser.add_argument("--unfinished", action="store_true", help="only go on with what was cut off: do not check "
                            "in")
        parser.add_argument("--plan", action="store_true", help="print what would be done, and do nothing")
        parser.add_argument("--limit", metavar="RATE", help="bytes a second that may be used: 500k, 2M (0: no limit)")
    if name in ("update", "rollback"):
        parser.add_argument("--force", action="store_true", help="override the update locks of containers")
        parser.add_argument("--soak", metavar="SECONDS", type=int,
                            help="how long the services must be well before the update is committed")
    parser.set_defaults(run={"update": _update, "rollback": _rollback, "allow": _allow}[name])


def _parts(args):
    from composeapps.update.parts import Parts

    def progress(ref):
        from composeapps.pull import progress

        return progress.choose(state_dir=config.state_dir, ref=ref)

    config = output.load_config(args)
    if getattr(args, "limit", None) is not None:
        from composeapps.registry.ratelimit import parse_rate

        limit = parse_rate(args.limit)
        if limit is None:
            raise UsageError(f"--limit '{args.limit}' is not a number of bytes a second: write 750k or 2M, for example")
        config = config._replace(bandwidth=limit)
    if (getattr(args, "soak", None) or 0) < 0:
        raise UsageError("--soak takes a number of seconds, 0 or more")
    return Parts(config, output.notify, progress, permits=output.permits(config))


def _reference(text):
    """Return a pinned Reference without a tag, the form in which versions are recorded."""
    from composeapps.oci.reference import parse_pinned

    ref = parse_pinned(text)
    return ref.pinned(ref.digest)


# Step of the command line -> where the journal is held after it.
_HOLDS = {"fetch": "fetched", "install": "installed", "start": ""}
_OTHER_STEPS = {
    "init": "'composeapps update --plan REF' tells what would be done",
    "complete": "'composeapps update start' ends an update when the services are well",
}


def _step(words):
    """Return (the step that the first word names, None without one; the other words)."""
    if not words or "/" in words[0] or "@" in words[0]:
        return None, words
    if words[0] in (*_HOLDS, "cancel", "status"):
        return words[0], words[1:]
    hint = f": {_OTHER_STEPS[words[0]]}" if words[0] in _OTHER_STEPS else ""
    raise UsageError(f"'{words[0]}' is neither a version, HOST/PATH@sha256:…, nor one of the steps fetch, install, "
                     f"start, cancel and status{hint}")


def _update(args):
    from composeapps.delivery import record
    from composeapps.records import journal

    step, words = _step(args.refs)
    if step and args.plan:
        raise UsageError(f"--plan is for all of an update: leave '{step}' out")
    if step in ("cancel", "status"):
        return (_cancel if step == "cancel" else _pending)(args, words)
    if (args.now or args.target or args.bundle) and (step or words or args.plan or args.unfinished):
        raise UsageError("--now, --target and --bundle are for a check-in: leave steps, versions, --unfinished and "
                         "--plan out")
    refs = [_reference(text) for text in words]
    names = [ref.app_name for ref in refs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"app {twice} was named with two versions; name one")
    parts, nothing = _parts(args), ["no update is unfinished"]
    if (args.now or args.target) and not args.bundle and not parts.config.server:
        raise UsageError("there is no server to check in with: set 'server' in [delivery] of the configuration")
    if args.plan:
        return _plan(args, parts, refs)

    def action():
        asks = not refs and not step and not args.unfinished and parts.config.server
        if not refs:
            hold, together = _HOLDS.get(step), ()
            # A check-in that finds nothing does without the modules of an update.
            if record.read(parts.states).rollout:
                from composeapps.delivery import rollout

                yield from rollout.resume(parts, args.force, args.soak, hold)
                together = rollout.waiting(parts)
            if journal.anything(parts.states):
                from composeapps.update import process

                yield from process.resume(parts, but=together, force=args.force, soak=args.soak, hold=hold)
            if record.find(parts.states).lost:
                from composeapps.delivery import rollout

                rollout.recover(parts)
            if asks or args.bundle:
                from composeapps.cli import checkins

                ask = checkins.from_bundle if args.bundle else checkins.run
                yield from ask(args, parts, lambda text: nothing.insert(0, text))
            return
        from composeapps.update import process

        # First the others': an app between two versions waits for nobody.
        yield from process.resume(parts, begun=True, but=names)
        for ref in refs:
            try:
                yield ref.app_name, process.update(parts, ref, args.force, args.soak, hold=_HOLDS.get(step, ""))
            except ComposeAppsError as err:
                yield ref.app_name, err

    return _run(args, parts, action, nothing if not refs else ())


def _named(words, parts):
    """Return the Journals of the apps that names or pinned references mean, of all without any."""
    from composeapps.oci.reference import parse_pinned
    from composeapps.records import journal

    pending = {entry.app: entry for entry in journal.pending(parts.states)}
    if not words:
        return list(pending.values())
    found = []
    for word in dict.fromkeys(words):
        name = parse_pinned(word).app_name if "@" in word else word
        if name not in pending:
            raise NotFoundError(f"no update of app '{name}' is unfinished; unfinished: {', '.join(pending) or 'none'}")
        found.append(pending[name])
    return found


def _cancel(args, words):
    from composeapps.update import process

    parts = _parts(args)

    def action():
        for entry in _named(words, parts):
            try:
                if entry.begun:
                    raise UsageError(f"the update of app {entry.app} has begun to switch: 'composeapps update' brings "
                                     f"it to its end, and then 'composeapps rollback {entry.app}' goes back")
                yield entry.app, process.drop(parts, entry)
            except ComposeAppsError as err:
                yield entry.app, err

    return _run(args, parts, action, ["no update is unfinished"])


def _pending(args, words):
    parts = _parts(args)
    with contextlib.closing(parts):
        entries = _named(words, parts)
    if args.json:
        output.print_json([{"app": entry.app, "action": entry.kind, "source": entry.source, "target": entry.target,
                            "step": entry.step, "waits": entry.waits, "attempt": entry.attempt,
                            "started": entry.started, "reason": entry.reason} for entry in entries])
    elif entries:
        output.print_table(("APP", "ACTION", "STEP", "TARGET", "REASON"), [
            (entry.app, entry.kind, f"{entry.step}, waits" if entry.waits else entry.step, entry.target,
             entry.reason or "-") for entry in entries])
    else:
        print("no update is unfinished")


def _rollback(args):
    from composeapps.records import rejection
    from composeapps.update import process

    parts = _parts(args)
    if not args.apps and args.reject:
        raise UsageError("--reject is for apps that are named: a Target that is gone back from does not come by itself")

    def action():
        if not args.apps:
            from composeapps.delivery import rollout

            try:
                yield from rollout.roll_back(parts, args.force, args.soak)
            except NotFoundError as err:
                yield "", err
        for name in dict.fromkeys(args.apps):
            state = parts.states.get(name)
            try:
                result = process.rollback(parts, name, args.force, args.soak)
                if args.reject and state is not None and result["source"] == state.uri:
                    rejection.reject(parts.states, state.uri, "a user rejected it", parts.config.max_failures)
                yield name, result
            except ComposeAppsError as err:
                yield name, err

    return _run(args, parts, action)


def _run(args, parts, action, nothing=()):
    """Do it under the lock; print what came of each app; return the exit status.

    The first sentence in ``nothing``, which the action may put there, is printed when nothing came.
    """
    import signal

    results, first = [], None
    with contextlib.closing(parts), parts.locked(), contextlib.ExitStack() as end:
        # A shutdown asks the agent to end with this: what it is at is then brought to an orderly stop.
        end.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        for name, result in action():
            if isinstance(result, ComposeAppsError):
                first = first or result
                kind = "rolled-back" if isinstance(result, RolledBackError) else "failed"
                results.append({"app": name, "result": kind, "ok": False, "error": str(result),
                                "code": result.exit_code})
                output.notify(f"composeapps: {result}")
            else:
                results.append({**result, "ok": True})
                told = {**result, "source": result["source"] or "no version"}
                output.notify(f"{name}: {_SENTENCES[result['result']].format(**told)}")
    if args.json:
        output.print_json(results)
    elif not results and nothing:
        print(nothing[0])
    return first.exit_code if first else 0


_SENTENCES = {
    "updated": "{target} is installed",
    "unchanged": "{target} is installed already",
    "dropped": "stays at {source}",
    "fetched": "{target} is fetched, and waits for 'composeapps update install' or 'composeapps update start'",
    "installed": "{target} is loaded into dockerd, and waits for 'composeapps update start'",
}


def _plan(args, parts, refs):
    from composeapps.records import journal
    from composeapps.update import plan

    if not refs:
        refs = [_reference(entry.target) for entry in journal.pending(parts.states)]
    plans, first = [], None
    with contextlib.closing(parts):
        for ref in refs:
            try:
                plans.append(plan.make(parts, ref, args.soak))
            except ComposeAppsError as err:
                first = first or err
                output.notify(f"composeapps: {err}")
    if args.json:
        output.print_json([each.dump() for each in plans])
    else:
        print("\n".join(line for each in plans for line in each.lines()))
    return first.exit_code if first else 0


def _allow(args):
    from composeapps.records import lock, rejection

    if not args.refs and not args.targets:
        raise UsageError("name what is allowed: versions of apps, HOST/PATH@sha256:…, or with --target a Target")
    refs = [_reference(text) for text in args.refs]
    parts = _parts(args)
    results, missing = [], None
    with lock.exclusive(parts.states.lock_file):
        for name in args.targets:
            from composeapps.delivery import rollout

            known = rollout.allow(parts, name)
            results.append({"target": name, "forgotten": known})
            if known:
                output.notify(f"Target {name} may come again")
            else:
                missing = NotFoundError(f"nobody went back from a Target '{name}' on this device")
                output.notify(f"composeapps: {missing}")
        for ref in refs:
            known = rejection.forget(parts.states, str(ref))
            results.append({"uri": str(ref), "forgotten": known})
            if known:
                output.notify(f"{ref.app_name}: {ref} may be tried again")
            else:
                missing = NotFoundError(f"{ref} has not failed on this device")
                output.notify(f"composeapps: {missing}")
    if args.json:
        output.print_json(results)
    return missing.exit_code if missing else 0
