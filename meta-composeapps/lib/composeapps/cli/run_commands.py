# SPDX-License-Identifier: MIT
"""composeapps install, run, stop, ps: apps in dockerd."""

import contextlib
import functools

from composeapps import durable
from composeapps.cli import output
from composeapps.errors import (
    ComposeAppsError,
    CorruptError,
    NotFoundError,
    RolledBackError,
    UnfinishedError,
    UsageError,
)

# What bringing an app up may end with: where that takes an update, all that one may.
_EXITS = {**dict.fromkeys((3, 4, 5, 6, 9, 12, 13, 14, 15, 16)), 8: "a service is not running as it should"}
HELP = {
    "install": {
        "examples": (("composeapps install web", ""), ("composeapps install --factory", "")),
        "details": ("Another version of an app that is installed is an update, as for 'composeapps run'.",),
        "exits": _EXITS,
        "environment": ("registries",),
    },
    "run": {
        "examples": (
            ("composeapps run web", ""),
            ("composeapps run --factory", "the preloaded apps"),
            ("composeapps run --factory --installed", "what the device does at each boot"),
        ),
        "details": (
            "An app that 'composeapps stop' stopped is left alone by --factory and --installed, and started by its "
            "name. Another version than the installed one, named by its reference, is an update: it has to pass the "
            "health gate, and the version before comes back when it does not. --factory alone means the very versions "
            "that the image was preloaded with. With --installed, an app that was updated since stays at its version "
            "until an image comes with one that this device has not had, and an app that 'composeapps rm' removed "
            "stays away until it is run or installed by its name.",
            "An update that was cut off in the middle of switching is brought to an end first. What the store has lost "
            "of an installed version is taken from the factory store or fetched again; until then the app runs with "
            "what dockerd has of it (status 4). With --installed it waits for another command that is at work.",
        ),
        "exits": _EXITS,
        "environment": ("registries",),
    },
    "stop": {
        "examples": (("composeapps stop web", ""), ("composeapps stop --all", "")),
        "exits": {3: None, 4: None, 6: None, 9: None},
    },
    "ps": {
        "examples": (("composeapps ps", ""), ("composeapps ps web --json", "")),
        "exits": {0: "what should run on this device runs, is not unhealthy and is of the right version", 3: None,
                  4: None, 6: None, 8: "something does not, or is not installed yet"},
    },
}

# So many apps are stopped at a time.
_STOPS = 8


def configure(name, parser):
    """Add the arguments of the command ``name``."""
    parser.describe(**HELP[name])
    output.add_json(parser)
    parser.add_argument("apps", metavar="APP", nargs="*", help="name or pinned reference")
    if name in ("install", "run"):
        parser.add_argument("--factory", action="store_true", help="the apps that the image was preloaded with")
    if name == "run":
        parser.add_argument("--installed", action="store_true",
                            help="the installed apps that were not stopped, of which containers may be gone")
    if name in ("stop",):
        parser.add_argument("--all", action="store_true", help="all installed apps")
    parser.set_defaults(run={"install": _install, "run": _run, "stop": _stop, "ps": _ps}[name])


def _parts(args):
    from composeapps.update.parts import Parts

    config = output.load_config(args)
    return Parts(config, output.notify, permits=output.permits(config))


def _not_installed(parts, name):
    have = ", ".join(parts.states.names()) or "none"
    return NotFoundError(f"app '{name}' is not installed; installed: {have}")


def _version(parts, name):
    """Return (App, AppState) of an installed app; raises NotFoundError, and CorruptError for a record that is lost."""
    from composeapps.app.tree import UNREAD
    from composeapps.installed.install import load_from_store
    from composeapps.oci.reference import parse_pinned

    found = parts.states.find(name)
    if found.lost:
        raise CorruptError(f"app {name}: {found.problem}; 'composeapps run {name}' finds it anew")
    if found.value is None:
        raise _not_installed(parts, name)
    return load_from_store(parts.store, parse_pinned(found.value.uri), reading=UNREAD, config=parts.config), found.value


def _wishes(args, parts):
    """Return ([Wish, …] that the command line asks for, the error that is told at the end or None)."""
    from composeapps.installed import desired
    from composeapps.oci.names import AppName
    from composeapps.oci.reference import parse_pinned

    installed = getattr(args, "installed", False)
    if args.factory or installed:
        if args.apps:
            raise UsageError("name apps or give --factory or --installed, not both")
        if args.factory and installed:
            return desired.at_boot(parts)
        if args.factory:
            factory, problem = desired.factory_set(parts.config)
            if problem and not factory:
                raise problem
            return [desired.Wish(name, uri) for name, uri in factory.items()], problem
        return [desired.Wish(name) for name in _running(parts)], None
    if not args.apps:
        raise UsageError(f"name the apps to {args.command}, or see 'composeapps {args.command} --help'")
    wishes = []
    for text in args.apps:
        if "@" in text:
            ref = parse_pinned(text)
            wishes.append(desired.Wish(ref.app_name, str(ref.pinned(ref.digest))))
        else:
            wishes.append(desired.Wish(AppName(text)))
    return wishes, None


def _running(parts):
    """Return the names of the installed apps that should run, also of those whose record is lost."""
    found = {name: parts.states.find(name) for name in parts.states.names()}
    return [name for name, each in found.items() if each.lost or each.value is not None and not each.value.stopped]


class _Results:
    """What came of each app, in the order in which it came to its end."""

    def __init__(self):
        self._entries, self._first = [], None

    def add(self, name, finish):
        """Call ``finish`` for an app's result, a mapping, or the error that it raises."""
        try:
            with durable.storage_errors(f"app {name}"):
                self._entries.append({**finish(), "ok": True})
        except ComposeAppsError as err:
            self.fail(name, err)

    def fail(self, name, err):
        """Note an app's error."""
        self.tell(err)
        self._entries.append({"name": name, "ok": False, "error": str(err), "code": err.exit_code})

    def tell(self, err):
        """Note an error that is no single app's."""
        self._first = self._first or err
        output.notify(f"composeapps: {err}")

    @property
    def status(self):
        """The exit status: that of the first error."""
        return self._first.exit_code if self._first else 0

    def end(self, args):
        """Print them; return the exit status."""
        if args.json:
            output.print_json(self._entries)
        return self.status


def _bring_up(args, parts, then):
    """Bring each app that is asked for to where it should be; one that fails does not keep the others from it.

    ``then``, called with an app's App and AppState, returns (what gives its result when it is called, whether that
    takes long). What does runs beside the next app's installation: starting one app and loading another use different
    parts of a device. What takes longest, or may let go of the lock, comes last: updates, and what has to be fetched
    again.
    """
    from composeapps.records import journal, repair
    from composeapps.update import bringup

    results, later = _Results(), []
    boot = getattr(args, "installed", False)
    what = bringup.INSTALL if args.command == "install" else bringup.KEEP if args.factory or boot else bringup.START
    with contextlib.closing(parts), parts.locked(wait=boot):
        # What most apps are as they should be by.
        look = parts.look
        look.ahead(*((look.images,) if args.command == "install" else (look.images, look.containers, look.ended)))
        for note in repair.repair(parts.states):
            output.notify(note)
        wishes, problem = _wishes(args, parts)
        # Before anything takes its time, what is installed is judged by what dockerd tells now.
        known = set(parts.states.names())
        wishes.sort(key=lambda wish: wish.name not in known)
        between = {entry.app for entry in journal.pending(parts.states) if entry.begun}
        with _beside(len(wishes) > 1) as begin:
            steps = []
            for wish in wishes:
                task = None
                try:
                    with durable.storage_errors(f"app {wish.name}"):
                        # An app is brought to one version before anything else is done to it.
                        if wish.name in between:
                            task = functools.partial(_finish_update, parts, wish)
                        elif _changes(parts, wish):
                            task = functools.partial(_change, parts, wish)
                        else:
                            steps.append((wish.name, begin(*then(*bringup.place(parts, wish.name, wish.uri, what)))))
                except bringup.Damaged as err:
                    output.notify(f"composeapps: {err}")
                    task = functools.partial(bringup.mend, parts, err)
                except ComposeAppsError as err:
                    steps.append((wish.name, functools.partial(_raise, err)))
                if task:
                    later.append((wish.name, task))
            for name, finish in steps:
                results.add(name, finish)
        for name, task in later:
            results.add(name, lambda task=task: then(*task())[0]())
        if problem:
            results.tell(problem)
    return results.end(args)


def _changes(parts, wish):
    """Tell whether an app is installed in another version than the one that it is to be brought to."""
    from composeapps.update import identify

    state = identify.installed(parts, wish.name) if wish.uri else None
    return state is not None and state.uri != wish.uri


def _change(parts, wish):
    """Bring an app to another version; where that fails it is started at the one that it has."""
    from composeapps.update import bringup

    try:
        return bringup.change(parts, wish.name, wish.uri)
    except ComposeAppsError as err:
        if isinstance(err, RolledBackError | UnfinishedError):
            raise
        failed = err
    app, state = bringup.place(parts, wish.name)
    if not state.stopped:
        from composeapps.switching import runtime

        runtime.start(app, state, parts.states, parts.config)
    raise failed


def _finish_update(parts, wish):
    """Bring the update of an app to its end, then do what was asked for."""
    from composeapps.update import bringup, process

    for _name, result in process.resume(parts, {wish.name}, begun=True):
        if isinstance(result, RolledBackError):
            output.notify(str(result))
        elif isinstance(result, ComposeAppsError):
            raise result
    if _changes(parts, wish):
        return bringup.change(parts, wish.name, wish.uri)
    return bringup.place(parts, wish.name, wish.uri)


@contextlib.contextmanager
def _beside(others, most=4):
    """Give a function that begins an action, ``most`` at a time, and returns what gives its result.

    ``others`` go on meanwhile. What does not take long is done when its result is asked for.
    """
    pool = None

    def begin(action, takes_long=True):
        nonlocal pool
        if not (others and takes_long):
            return action
        if pool is None:
            # Most boots have nothing to do beside anything, and need no thread.
            from composeapps.threads import Pool

            pool = end.enter_context(Pool(most))
        return pool.begin(action)

    with contextlib.ExitStack() as end:
        yield begin


def _raise(err):
    raise err


def _install(args):
    return _bring_up(args, _parts(args), lambda app, state: (
        lambda: {"name": app.ref.app_name, "uri": state.uri}, False))


def _run(args):
    from composeapps.switching import runtime

    parts = _parts(args)

    def start(app, state):
        name = app.ref.app_name
        if state.stopped and (args.factory or args.installed):
            output.notify(f"{name}: stays stopped, as 'composeapps stop' left it")
            return lambda: {"name": name, "uri": state.uri, "state": "stopped"}, False
        output.notify(f"{name}: starting")
        work = runtime.begin(app, state, parts.states, parts.config, parts.look)

        def finish():
            if work is not None:
                work()
            output.notify(f"{name}: started")
            return {"name": name, "uri": state.uri, "state": "started"}

        return finish, work is not None

    return _bring_up(args, parts, start)


def _stop(args):
    from composeapps.installed import standin
    from composeapps.oci.names import AppName
    from composeapps.oci.reference import parse_pinned
    from composeapps.records import journal
    from composeapps.switching import runtime
    from composeapps.update import identify

    if args.all and args.apps:
        raise UsageError("name apps or give --all, not both")
    if not args.all and not args.apps:
        raise UsageError("name the apps to stop, or see 'composeapps stop --help'")
    parts, results = _parts(args), _Results()
    with parts.locked():
        parts.look.ahead(parts.look.containers, parts.look.ended)
        names = parts.states.names() if args.all else [
            parse_pinned(text).app_name if "@" in text else AppName(text) for text in args.apps]

        def stop(name):
            state, entry = identify.installed(parts, name), journal.read(parts.states, name)
            if state is None:
                raise _not_installed(parts, name)
            try:
                if entry is not None and entry.begun:
                    raise CorruptError(f"its {entry.kind} to {entry.target} is unfinished, and goes on without a start")
                app, state = _version(parts, name)
                runtime.stop(app, state, parts.states, parts.config, parts.look)
            except (CorruptError, NotFoundError) as err:
                # Whatever version they are of.
                output.notify(f"{name}: {err}")
                standin.stop(parse_pinned(state.uri), state, parts.states, parts.config, parts.engine)
            output.notify(f"{name}: stopped")
            return {"name": name, "uri": state.uri, "state": "stopped"}

        if len(names) > 1:
            with _beside(True, _STOPS) as begin:
                for name, finish in [(name, begin(functools.partial(stop, name))) for name in names]:
                    results.add(name, finish)
        else:
            for name in names:
                results.add(name, functools.partial(stop, name))
    return results.end(args)


# What ps shows of an app that should run and is not here yet.
_NOT_INSTALLED = {"name": "-", "state": "not installed", "health": "", "status": "", "current": True}


def _ps(args):
    from composeapps.installed import desired
    from composeapps.switching import runtime

    parts, results, apps = _parts(args), _Results(), []
    if args.apps or parts.states.names():
        parts.look.ahead(parts.look.containers, parts.look.ended)
    awaited, errors = desired.awaited(parts)
    for err in () if args.apps else errors:
        results.tell(err)
    good = True
    for name in args.apps or sorted({*parts.states.names(), *awaited}):
        if name in awaited:
            good = False
            output.notify(f"composeapps: {name}: {awaited[name].text}: {awaited[name].remedy}")
            if parts.states.get(name) is None:
                apps.append({"name": name, "uri": "", "stopped": False, "services": []})
                continue
        try:
            with durable.storage_errors(f"app {name}"):
                app, state = _version(parts, name)
                services = runtime.status(app, parts.look, parts.config)
        except ComposeAppsError as err:
            results.tell(err)
            continue
        # What was stopped is not to run.
        good = good and (state.stopped or all(service.good for service in services))
        apps.append({
            "name": name, "uri": state.uri, "stopped": state.stopped,
            "services": [{"name": s.name, "state": s.state, "health": s.health, "status": s.status, "image": s.image,
                          "container": s.container, "current": s.current} for s in services],
        })
    if args.json:
        output.print_json(apps)
    else:
        output.print_table(("APP", "SERVICE", "STATE", "HEALTH", "STATUS"), [
            (app["name"], s["name"], s["state"] if s["current"] or s["state"] == "missing" else f"{s['state']} (old)",
             s["health"] or "-", s["status"] or "-") for app in apps for s in app["services"] or [_NOT_INSTALLED]])
    return results.status or (0 if good else 8)
