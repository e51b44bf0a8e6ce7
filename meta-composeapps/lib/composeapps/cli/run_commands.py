# SPDX-License-Identifier: MIT
"""composeapps install, run, stop, ps: apps in dockerd."""

import functools

from composeapps.cli import output
from composeapps.errors import ComposeAppsError, NotFoundError, UsageError

EXAMPLES = {
    "install": """\
examples:
  composeapps install web
  composeapps install --factory
""",
    "run": """\
An app that 'composeapps stop' stopped is left alone by --factory, and started by its name.

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
        from composeapps.engine import Engine
        from composeapps.state import StateDirectory
        from composeapps.store import Store

        self.config = output.load_config(args)
        self.store = Store(self.config.store)
        self.states = StateDirectory(self.config.state_dir)
        self.engine = Engine(self.config.docker_host)

    def installed(self, name):
        """Return (App, AppState) of an installed app; raises NotFoundError."""
        from composeapps.install import load_from_store
        from composeapps.reference import parse_pinned

        state = self.states.get(name)
        if state is None:
            have = ", ".join(self.states.names()) or "none"
            raise NotFoundError(f"app '{name}' is not installed; installed: {have}")
        return load_from_store(self.store, parse_pinned(state.uri)), state

    def factory(self):
        """Return {name: pinned reference} of the preloaded apps; raises NotFoundError, CorruptError."""
        from composeapps.errors import CorruptError
        from composeapps.oci import parse_json

        path = self.config.factory_file
        try:
            apps = parse_json(path.read_bytes(), str(path)).get("apps")
        except FileNotFoundError:
            raise NotFoundError(f"{path} does not exist: this image was built without preloaded apps") from None
        if not isinstance(apps, dict) or not all(isinstance(uri, str) for uri in apps.values()):
            raise CorruptError(f"{path} does not list the preloaded apps")
        return apps


def _wanted(args, agent):
    """Return the names or references that the command line asks for."""
    if getattr(args, "factory", False) or getattr(args, "installed", False):
        if args.apps:
            raise UsageError("name apps or give --factory or --installed, not both")
        factory = agent.factory() if args.factory else {}
        return [*factory.values(), *(_running(agent, factory) if getattr(args, "installed", False) else ())]
    if getattr(args, "all", False):
        if args.apps:
            raise UsageError("name apps or give --all, not both")
        return agent.states.names()
    if not args.apps:
        raise UsageError(f"name the apps to {args.command}, or see 'composeapps {args.command} --help'")
    return args.apps


def _running(agent, others):
    """Return the pinned references of the installed apps that should run, but those that are named in ``others``."""
    states = {name: agent.states.get(name) for name in agent.states.names() if name not in others}
    return [state.uri for state in states.values() if state is not None and not state.stopped]


def _each(args, agent, names, action, then=None):
    """Do ``action`` for each app under the lock; one that fails does not keep the others from it.

    ``then``, called with what the action returned, runs beside the next app's action: starting one
    app and loading another use different parts of a device. Both return the app's result, a mapping.
    """
    from concurrent.futures import ThreadPoolExecutor

    from composeapps import lock

    results, first = [], None
    with lock.exclusive(agent.states.lock_file), ThreadPoolExecutor(max_workers=4) as pool:
        steps = []
        for name in names:
            try:
                done = action(name)
                steps.append((name, pool.submit(then, done).result if then else lambda done=done: done))
            except ComposeAppsError as err:
                steps.append((name, functools.partial(_raise, err)))
        for name, finish in steps:
            try:
                results.append({**finish(), "ok": True})
            except ComposeAppsError as err:
                first = first or err
                results.append({"name": name, "ok": False, "error": str(err)})
                output.notify(f"composeapps: {err}")
    if args.json:
        output.print_json(results)
    return first.exit_code if first else 0


def _raise(err):
    raise err


def _install_one(agent, name):
    from composeapps.errors import CorruptError

    try:
        return _install_from_store(agent, name)
    except (CorruptError, NotFoundError) as err:
        from composeapps import restore

        if not restore.from_factory(agent.store, agent.config.factory_store, name, output.notify):
            raise err
    return _install_from_store(agent, name)


def _install_from_store(agent, name):
    from composeapps.install import install, load_from_store

    app = load_from_store(agent.store, agent.store.find_app(name))
    return app, install(app, agent.store, agent.engine, agent.config, agent.states, output.notify)


def _install(args):
    agent = _Agent(args)

    def action(name):
        app, state = _install_one(agent, name)
        return {"name": app.ref.app_name, "uri": state.uri}

    return _each(args, agent, _wanted(args, agent), action)


def _run(args):
    from composeapps import runtime

    agent = _Agent(args)

    def start(installed):
        app, state = installed
        name = app.ref.app_name
        if state.stopped and args.factory:
            output.notify(f"{name}: stays stopped, as 'composeapps stop' left it")
            return {"name": name, "uri": state.uri, "state": "stopped"}
        output.notify(f"{name}: starting")
        runtime.start(app, state, agent.states, agent.config)
        output.notify(f"{name}: started")
        return {"name": name, "uri": state.uri, "state": "started"}

    return _each(args, agent, _wanted(args, agent), lambda name: _install_one(agent, name), start)


def _stop(args):
    from composeapps import runtime

    agent = _Agent(args)

    def action(name):
        app, state = agent.installed(name)
        runtime.stop(app, state, agent.states, agent.config)
        output.notify(f"{name}: stopped")
        return {"name": name, "uri": state.uri, "state": "stopped"}

    return _each(args, agent, _wanted(args, agent), action)


def _ps(args):
    from composeapps import runtime

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
