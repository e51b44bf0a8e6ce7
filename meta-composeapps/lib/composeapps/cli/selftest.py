# SPDX-License-Identifier: MIT
"""composeapps selftest: whether a device may leave the production line, and that nothing of its tests is left on it."""

import os
import platform
import time
from pathlib import Path

from composeapps.cli import output
from composeapps.errors import ComposeAppsError, NotRunningError, UsageError

HELP = {
    "examples": (
        ("composeapps selftest", "each test with its result, then one line for the fixture"),
        ("composeapps selftest --device shop-0001 --serial A1B2C3 --console", "the identity has to be the label's; the "
         "line goes to the serial console, too"),
        ("composeapps selftest --json", ""),
        ("composeapps selftest --wipe", "when it is good: have the next start remove all that the tests left"),
        ("composeapps selftest --wiped", "after that start: see that it was removed"),
    ),
    "details": (
        "The last line is 'COMPOSEAPPS-SELFTEST PASS' or 'COMPOSEAPPS-SELFTEST FAIL', then key=value: device, serial, "
        "and failed, the names of the tests that failed, with commas between, or '-'.",
        {"store": "every blob, bundle and image that the apps need is there and whole (--quick reads no layer)",
         "apps": "what should run runs and is not unhealthy, and no update has failed",
         "identity": "key and certificate belong together, and are the device's that was named",
         "machine": "it has a machine-id", "clock": "it is not before the image and the certificate are from",
         "space": "no file system is fuller than storage_watermark", "units": "no unit of systemd has failed",
         "wiped": "with --wiped: the factory reset that --wipe asked for took place, and left nothing of before"},
        "--wipe leaves a mark in the agent's state, in the apps' directories and among Docker's volumes, and asks for "
        "a factory reset that keeps the registration; --wiped sees that the marks are gone.",
    ),
    "exits": {0: "the device is good", 3: "with --wipe: the disk is not the layer's",
              4: "with --wipe: the factory store is damaged", 8: "it is not; what failed is told"},
}
LINE = "COMPOSEAPPS-SELFTEST"
MARK = "composeapps-selftest"
ORIGIN = "selftest"


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("--device", metavar="ID", help="the name that the device has to have")
    parser.add_argument("--serial", metavar="N", help="the serial number that it has to have")
    parser.add_argument("--quick", action="store_true", help="do not read layers and unpacked bundles")
    parser.add_argument("--console", action="store_true", help="print the last line on /dev/console as well")
    parser.add_argument("--wipe", action="store_true", help="when it is good, have the next start wipe the tests' data")
    parser.add_argument("--wiped", action="store_true", help="see that it was wiped")
    parser.set_defaults(run=_selftest)


def _selftest(args):
    if args.wipe and args.wiped:
        raise UsageError("--wipe is for before the restart, --wiped for after it")
    config = output.load_config(args)
    tests = {"store": lambda: _store(args), "apps": lambda: _apps(config), "identity": lambda: _identity(args, config),
             "machine": _machine, "clock": lambda: _clock(config), "space": lambda: _space(config), "units": _units}
    if args.wiped:
        tests["wiped"] = lambda: _wiped(config)
    results = {name: _tried(test) for name, test in tests.items()}
    failed = [name for name, problems in results.items() if problems]
    if args.wipe and not failed:
        _wipe(config)
    who = _who(config)
    line = (f"{LINE} {'FAIL' if failed else 'PASS'} device={who.device or '-'} serial={who.serial or '-'} "
            f"failed={','.join(failed) or '-'}")
    if args.json:
        output.print_json({
            "pass": not failed, "device": who.device, "serial": who.serial, "failed": failed,
            "tests": [{"name": name, "pass": not problems, "problems": problems} for name, problems in results.items()],
            "versions": _versions(config), "wipe": bool(args.wipe and not failed), "line": line})
    else:
        for name, problems in results.items():
            print(f"{name}: {'ok' if not problems else 'FAILED'}")
            for problem in problems:
                print(f"  {problem}")
        for what, version in _versions(config).items():
            print(f"{what}: {version}")
        print(line, flush=True)
    if args.console:
        with open("/dev/console", "w") as stream:
            stream.write(f"{line}\n")
    return NotRunningError.exit_code if failed else 0


def _tried(test):
    """Return the problems that a test finds, as a list of sentences."""
    try:
        return list(test())
    except ComposeAppsError as err:
        return [str(err)]
    except OSError as err:
        return [f"{err.filename or 'a file'}: {err.strerror or err}"]


def _who(config):
    from composeapps.disk import provision

    return provision.known(config.identity_dir)


def _store(args):
    import argparse

    from composeapps.cli import check

    words = argparse.Namespace(**{**vars(args), "apps": [], "store_only": False})
    for result in check.collect(words):
        yield from (f"{result['name']}: {problem}" for problem in result["problems"])


def _apps(config):
    from composeapps.status import report

    found = report.collect(config)
    yield from found["problems"]
    for app in found["apps"]:
        if not app["ok"]:
            yield f"{app['name']}: {'; '.join(problem['text'] for problem in app['problems']) or 'is not well'}"


def _identity(args, config):
    from composeapps.cli import identity

    found = identity.describe(config.identity_dir)
    if found["problem"]:
        yield found["problem"]
    for what in ("device", "serial"):
        wanted = getattr(args, what)
        if wanted is not None and found[what] != wanted:
            yield f"the {what} is '{found[what]}' and not '{wanted}'"


def _machine():
    from composeapps.disk import identity

    found = identity.machine_id("/")
    if len(found) != 32:
        yield f"/etc/machine-id has '{found}' and not 32 digits"


def _clock(config):
    """The time of the files of an image is that of its build, or one that all builds have."""
    from composeapps.cli import identity

    now, floors = time.time(), []
    for path in (config.factory_file, Path("/etc/os-release")):
        if path.exists():
            floors.append((path.stat().st_mtime, f"{path} is from"))
    found = identity.describe(config.identity_dir)
    if found["not_before"]:
        floors.append((_seconds(found["not_before"]), "the certificate is good from"))
        if now > _seconds(found["not_after"]):
            yield f"the certificate was good until {found['not_after']}, and it is {_written(now)}"
    for floor, what in floors:
        if now < floor:
            yield f"it is {_written(now)}, and {what} {_written(floor)}"


def _seconds(text):
    import datetime

    return datetime.datetime.fromisoformat(text).timestamp()


def _written(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _space(config):
    from composeapps.cli import dockerroot
    from composeapps.space import check

    for each in check.volumes((config.store, config.state_dir, dockerroot.configured()), config):
        if each.full > each.watermark:
            yield f"the file system at {each.path} is {each.full:.0f} % full; storage_watermark is {each.watermark}"


def _units():
    from composeapps.disk.run import run

    if not os.path.isdir("/run/systemd/system"):
        return
    _status, said = run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    for line in said.splitlines():
        yield f"{line.split()[0]} has failed"


def _versions(config):
    """Return {what: version} of the agent, the system, the kernel and the installed apps."""
    from composeapps import __version__
    from composeapps.records.state import StateDirectory

    found = {"composeapps": __version__, "kernel": platform.release()}
    try:
        found["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        found["system"] = ""
    states = StateDirectory(config.state_dir)
    for name in sorted(states.names()):
        state = states.find(name).value
        found[f"app {name}"] = state.uri if state is not None else ""
    return found


def _marks(config):
    from composeapps.cli import dockerroot

    return [config.state_dir / MARK, config.compose_root / f".{MARK}", Path(dockerroot.configured()) / "volumes" / MARK]


def _wipe(config):
    """Leave the marks, then ask for the reset: in this order marks that are gone tell of a reset."""
    from composeapps import durable
    from composeapps.disk import asking, wish

    boot = asking.boot_partition()
    asking.check(config, output.notify, "nothing is wiped")
    with durable.storage_errors("leaving the marks of the test"):
        for mark in _marks(config):
            durable.make_directories(mark.parent, 0o700)
            durable.write_file(mark, b"", mode=0o600)
    asking.ask(boot, wish.new(wish.REGISTRATION, origin=ORIGIN), output.notify)
    output.notify("the next start wipes this device, keeping its registration; then: composeapps selftest --wiped")


def _wiped(config):
    from composeapps.records import history, resetnote
    from composeapps.records.state import StateDirectory

    note = resetnote.read(config.state_dir)
    if note is None or note["origin"] != ORIGIN:
        yield "no reset took place that 'composeapps selftest --wipe' asked for"
    elif note["lost"]:
        yield note["lost"]
    for mark in _marks(config):
        if mark.exists():
            yield f"{mark} of the tests is still there"
    entries, _problem = history.read(StateDirectory(config.state_dir))
    if note is not None and any(str(entry.get("time", "")) < note["time"] for entry in entries):
        yield "the history has entries from before the reset"
