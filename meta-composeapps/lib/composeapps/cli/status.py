# SPDX-License-Identifier: MIT
"""composeapps status, composeapps history: how the apps are, and what became of their updates."""

import json
import time

from composeapps.cli import output
from composeapps.errors import NotFoundError

HELP = {
    "status": {
        "examples": (
            ("composeapps status", ""),
            ("composeapps status web --json | jq -r '.apps[0].update_status'", ""),
            ("composeapps status --follow", ""),
        ),
        "details": (
            "Takes no lock: it can be asked at any time, also during a download or an update, and works without "
            "dockerd. 'composeapps ps' is the short view of the services.",
            "All is well when every service runs the installed version and is not unhealthy, no update has failed or "
            "was left unfinished, and everything could be read.",
        ),
        "exits": {0: "what should run on this device runs, and nothing went wrong", 3: None,
                  8: "something is not well"},
    },
    "history": {
        "examples": (
            ("composeapps history", ""),
            ("composeapps history web -n 3", ""),
            ("composeapps history --json | jq '.[] | select(.result != \"committed\")'", ""),
        ),
        "exits": {3: "nothing became of such an app"},
    },
}
# Seconds between two looks of --follow.
INTERVAL = 1


def configure(name, parser):
    """Add the arguments of the command ``name``."""
    parser.describe(**HELP[name])
    output.add_json(parser)
    if name == "status":
        parser.add_argument("apps", metavar="APP", nargs="*", help="the app's name (default: all)")
        parser.add_argument("--follow", action="store_true",
                            help="print it again whenever it changes, until interrupted; with --json a line each time")
        parser.set_defaults(run=_status)
    else:
        parser.add_argument("app", metavar="APP", nargs="?", help="the app's name (default: all)")
        parser.add_argument("-n", dest="number", metavar="N", type=_number, default=20,
                            help="how many of the last ones (default: 20, 0 for all)")
        parser.set_defaults(run=_history)


def _number(text):
    import argparse

    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 upwards")
    return int(text)


def _status(args):
    from composeapps.status import report as status

    config, shown = output.load_config(args), None
    while True:
        found = status.collect(config, args.apps)
        seen = {**found, "time": ""}
        if seen != shown:
            if args.json and args.follow:
                print(json.dumps(found), flush=True)
            elif args.json:
                output.print_json(found)
            else:
                _print(found, first=shown is None)
        if not args.follow:
            return 0 if found["ok"] else 8
        shown = seen
        time.sleep(INTERVAL)


def _print(found, first):
    if not first:
        print(f"\n--- {found['time']}")
    for problem in found["problems"]:
        print(f"! {problem}")
    for app in found["apps"]:
        _print_app(app)
    if not found["apps"]:
        print("no app is installed or on its way")
    reset = found["factory_reset"]
    if reset:
        print(f"factory reset, {reset['time']}: kept {reset['kept']}"
              + (f" ({reset['lost']})" if reset["lost"] else "")
              + ("" if reset["discarded"] else "; no secure erasure"))
    if found["at_work"]:
        print(f"at work: {found['at_work']['holder']}", flush=True)


def _print_app(app):
    print(f"{app['name']}: {app['uri'] or 'not installed'}{' (stopped)' if app['stopped'] else ''}")
    print(f"  {app['update_status']}{_detail(app)}")
    for each in app["rejected"]:
        print(f"  rejected after {each['failures']} failures: {each['uri']}")
    if app["services"]:
        rows = [(f"  {s['name']}", s["state"], s["health"] or "-", _version(s), _progress(s), s["status"] or "-")
                for s in app["services"]]
        output.print_table(("  SERVICE", "STATE", "HEALTH", "VERSION", "DOWNLOAD", "STATUS"), rows)
    for problem in app["problems"]:
        print(f"  ! {problem['text']}: {problem['remedy']}")
    if error := app["last_error"]:
        print(f"  ! last error, {error['time']} ({error['result']}): {error['text']}\n    {error['remedy']}")


def _detail(app):
    update, download, parts = app["update"], app["download"], []
    if update:
        parts.append(f"{update['action']} to {update['target']}, {update['step']}")
    elif download:
        parts.append(download["uri"])
    if download:
        parts.append(f"{download['percent']} % ({output.human_size(download['bytes'])} of "
                     f"{output.human_size(download['of'])}, {output.human_size(download['rate'])}/s)")
    if update and update["reason"]:
        parts.append(f"because {update['reason']}")
    return "".join(f", {part}" if number else f": {part}" for number, part in enumerate(parts))


def _version(service):
    if service["updated"]:
        return "new"
    return {True: "installed", False: "-" if service["state"] == "missing" else "other", None: "-"}[service["current"]]


def _progress(service):
    return "-" if service["download_progress"] is None else f"{service['download_progress']} %"


def _history(args):
    from composeapps.records import history
    from composeapps.records.state import StateDirectory

    states = StateDirectory(output.load_config(args).state_dir)
    found, problem = history.read(states)
    if problem:
        output.notify(f"composeapps: {problem}")
    if args.app is not None:
        apps = sorted({*(entry["app"] for entry in found), *states.names()})
        found = [entry for entry in found if args.app == entry["app"]]
        if args.app not in apps and not problem:
            have = ", ".join(apps) or "none"
            raise NotFoundError(f"nothing became of an app '{args.app}'; apps with a history: {have}")
    found = found[-args.number:] if args.number else found
    if args.json:
        output.print_json(found)
        return
    output.print_table(("TIME", "APP", "ACTION", "RESULT", "FROM", "TO", "REASON"), [
        (entry.get("time") or "-", entry["app"], entry.get("action") or "-", entry.get("result") or "-",
         _short(entry.get("source")), _short(entry.get("target")), entry.get("reason") or "-") for entry in found])


def _short(uri):
    """Return the first digits of a pinned reference's digest."""
    return str(uri or "").rpartition("@sha256:")[2][:12] or "-"
