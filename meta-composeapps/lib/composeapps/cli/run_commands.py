# SPDX-License-Identifier: MIT
"""composeapps install, run, stop, ps: apps in dockerd."""

import contextlib
import functools

from composeapps.cli import output
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError, UsageError

EXAMPLES = {
    "install": """\
examples:
  composeapps install web
  composeapps install --factory
""",
    "run": """\
An app that 'composeapps stop' stopped is left alone by --factory and --installed, and started by its
name. --factory alone means the very versions that the image was preloaded with. With --installed, an
app that was updated since stays at its version until an image with another preloaded version comes,
and one that 'composeapps rm' removed stays away until it is run or installed by its name.
An update that was cut off in the middle of switching is brought to an end first.

examples:
  composeapps run web
  composeapps run --factory       the preloaded apps
  composeapps run --factory --installed    what the device does at each boot
""",
    "stop": """\
examples:
  composeapps stop web
  composeapps stop --all
""",
    "ps": """\
The exit status is 0 when every service runs, is not unhealthy and is of the installed
version, else 8.

examples:
  composeapps ps
  composeapps ps web --json
""",
}


def configure(name, parser):
    """Add the arguments of the command ``name``."""
    parser.epilog = EXAMPLES[name]
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


class _Agent:
    """The parts that these commands work with."""

    def __init__(self, args):
        from composeapps.engine.client import Engine
        from composeapps.records.state import StateDirectory
        from composeapps.store.store import Store

        self.config = output.load_config(args)
        self.store = Store(self.config.store)
        self.states = StateDirectory(self.config.state_dir)
        self.engine = Engine(self.config.docker_host)

    def installed(self, name):
        """Return (App, AppState) of an installed app; raises NotFoundError."""
        from composeapps.installed.install import load_from_store
        from composeapps.oci.reference import parse_pinned

        state = self.states.get(name)
        if state is None:
            have = ", ".join(self.states.names()) or "none"
            raise NotFoundError(f"app '{name}' is not installed; installed: {have}")
        return load_from_store(self.store, parse_pinned(state.uri)), state

    @functools.cached_property
    def parts(self):
        """The update.parts.Parts over the same device."""
        from composeapps.update.parts import Parts

        return Parts(self.config, output.notify)

    def factory(self):
        """Return {name: pinned reference} of the preloaded apps; raises NotFoundError, CorruptError."""
        from composeapps.store.factoryset import factory_apps

        if not self.config.factory_file.exists():
            raise NotFoundError(f"{self.config.factory_file} does not exist: this image was built without "
                                "preloaded apps")
        return factory_apps(self.config)


def _wanted(args, agent):
    """Return the names or references that the command line asks for; a name means the installed version, if any."""
    if getattr(args, "factory", False) or getattr(args, "installed", False):
        if args.apps:
            raise UsageError("name apps or give --factory or --installed, not both")
        factory = agent.factory() if args.factory else {}
        if not getattr(args, "installed", False):
            return list(factory.values())
        known, gone = agent.states.factory(), agent.states.removals()
        # What was updated since the image's version was installed is not taken back to that.
        wanted = [name if known.get(name) == uri and agent.states.get(name) else uri for name, uri in factory.items()
                  if name not in gone]
        return [*wanted, *(name for name in _running(agent) if name not in factory and name not in gone)]
    if getattr(args, "all", False):
        if args.apps:
            raise UsageError("name apps or give --all, not both")
        return agent.states.names()
    if not args.apps:
        raise UsageError(f"name the apps to {args.command}, or see 'composeapps {args.command} --help'")
    return args.apps


def _running(agent):
    """Return the names of the installed apps that should run."""
    states = {name: agent.states.get(name) for name in agent.states.names()}
    return [name for name, state in states.items() if state is not None and not state.stopped]


def _name_of(name):
    """Return the name of the app that a name or a pinned reference means."""
    from composeapps.oci.reference import parse_pinned

    return parse_pinned(name).app_name if "@" in name else name


def _each(args, agent, names, action, then=None, after=lambda: None):
    """Do ``action`` for each app under the lock; one that fails does not keep the others from it.

    ``then``, called with what the action returned, runs beside the next app's action: starting one
    app and loading another use different parts of a device. Both return the app's result, a mapping.
    ``after`` is called at the end, still under the lock.
    """
    from composeapps.records import journal, lock

    results, first = [], None
    with lock.exclusive(agent.states.lock_file), _beside(then, len(names) > 1) as begin:
        steps = []

        def do(name):
            try:
                steps.append((name, begin(action(name))))
            except ComposeAppsError as err:
                steps.append((name, functools.partial(_raise, err)))

        for note in journal.tidy(agent.states):
            output.notify(note)
        between = {entry.app for entry in journal.pending(agent.states) if entry.begun}
        later = [name for name in names if _name_of(name) in between]
        for name in names:
            if name not in later:
                do(name)
        # An app is brought to one version before anything else is done to it, the others meanwhile start.
        unfinished = _finish_updates(agent, {_name_of(name) for name in later}) if later else {}
        for name in later:
            if _name_of(name) in unfinished:
                steps.append((name, functools.partial(_raise, unfinished[_name_of(name)])))
            else:
                do(name)
        for name, finish in steps:
            try:
                results.append({**finish(), "ok": True})
            except ComposeAppsError as err:
                first = first or err
                results.append({"name": name, "ok": False, "error": str(err)})
                output.notify(f"composeapps: {err}")
        after()
    if args.json:
        output.print_json(results)
    return first.exit_code if first else 0


@contextlib.contextmanager
def _beside(action, others):
    """Give a function that does ``action``, if any, and returns what gives its result; ``others`` go on meanwhile."""
    if action is None or not others:
        def begin(value):
            result = action(value) if action else value
            return lambda: result

        yield begin
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=4) as pool:
        yield lambda value: pool.submit(action, value).result


def _raise(err):
    raise err


def _finish_updates(agent, names):
    """Bring the updates of apps to an end; return {name: error} of those that are not at one."""
    from composeapps.errors import RolledBackError
    from composeapps.update import process

    unfinished = {}
    for name, result in process.resume(agent.parts, names, begun=True):
        if isinstance(result, RolledBackError):
            output.notify(str(result))
        elif isinstance(result, ComposeAppsError):
            unfinished[name] = result
    return unfinished


def _install_one(agent, name):
    """Install a version: the one that a pinned reference names, or of an app's name the installed one."""
    state = None if "@" in name else agent.states.get(name)
    candidates = [name] if state is None else list(dict.fromkeys(filter(None, (
        state.uri, state.previous, agent.states.factory().get(name)))))
    first = None
    for candidate in candidates:
        try:
            return _install_version(agent, candidate)
        except (CorruptError, NotFoundError) as err:
            first = first or err
            if candidate != candidates[-1]:
                output.notify(f"composeapps: {err}; trying the version before")
    raise first


def _install_version(agent, name):
    try:
        return _install_from_store(agent, name)
    except (CorruptError, NotFoundError) as err:
        from composeapps.store import restore

        if not restore.from_factory(agent.store, agent.config.factory_store, name, output.notify):
            raise err
    return _install_from_store(agent, name)


def _install_from_store(agent, name):
    from composeapps.installed.install import install, load_from_store

    app = load_from_store(agent.store, agent.store.find_app(name))
    return app, install(app, agent.store, agent.engine, agent.config, agent.states, output.notify)


def _note_factory(args, agent):
    """Write down which preloaded versions were installed, so that later ones are known as new."""
    if args.factory:
        agent.states.put_factory({name: uri for name, uri in agent.factory().items()
                                  if uri in (getattr(agent.states.get(name), "uri", None),
                                             agent.states.factory().get(name))})


def _install(args):
    agent = _Agent(args)

    def action(name):
        app, state = _install_one(agent, name)
        return {"name": app.ref.app_name, "uri": state.uri}

    return _each(args, agent, _wanted(args, agent), action, after=lambda: _note_factory(args, agent))


def _run(args):
    from composeapps.switching import runtime

    agent = _Agent(args)

    def start(installed):
        app, state = installed
        name = app.ref.app_name
        if state.stopped and (args.factory or args.installed):
            output.notify(f"{name}: stays stopped, as 'composeapps stop' left it")
            return {"name": name, "uri": state.uri, "state": "stopped"}
        output.notify(f"{name}: starting")
        runtime.start(app, state, agent.states, agent.config)
        output.notify(f"{name}: started")
        return {"name": name, "uri": state.uri, "state": "started"}

    return _each(args, agent, _wanted(args, agent), lambda name: _install_one(agent, name), start,
                 lambda: _note_factory(args, agent))


def _stop(args):
    from composeapps.switching import runtime

    agent = _Agent(args)

    def action(name):
        app, state = agent.installed(name)
        runtime.stop(app, state, agent.states, agent.config)
        output.notify(f"{name}: stopped")
        return {"name": name, "uri": state.uri, "state": "stopped"}

    return _each(args, agent, _wanted(args, agent), action)


def _ps(args):
    from composeapps.switching import runtime

    agent = _Agent(args)
    apps, good = [], True
    for name in args.apps or agent.states.names():
        app, state = agent.installed(name)
        services = runtime.status(app, agent.engine, agent.config)
        good = good and all(service.good for service in services)
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
             s["health"] or "-", s["status"] or "-") for app in apps for s in app["services"]])
    return 0 if good else 8
