# SPDX-License-Identifier: MIT
"""The command line of scripts/demo."""

import json
import sys
import time
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from demonstration import device, pagetext, updating
from demonstration.chain import Chain
from demonstration.errors import DemoError
from emulator import apps
from emulator.errors import EmulatorError
from emulator.machine import Machine
from factory.demo import demo_registry, publish_demo, publish_releases
from fastlane.progress import Progress

# What the demo apps serve on the device.
PAGES = {"shellhttpd": "http://127.0.0.1:8080/", "web": "http://127.0.0.1:8081/"}

HELP = {
    "examples": (
        ("scripts/demo", "the two demo apps, from a registry on this machine"),
        ("scripts/demo registry.example.com/factory/shop:v3", "your app, published there before"),
        ("scripts/demo --no-boot", "build the image, do not boot it"),
        ("scripts/demo --update", "the demo apps, then an update over the network with a power cut in its middle, then "
         "a release that is broken and is taken back with the network down"),
    ),
    "details": (
        "Run it again after changing something: only what changed is built again. scripts/run-qemu boots the image for "
        "a look around.",
    ),
    "exits": {0: "the apps run", 1: "they do not", 2: "wrong usage", 130: "interrupted; what is built is kept"},
    "environment": ("REGISTRY_AUTH_FILE", "COMPOSEAPPS_MIRROR", "COMPOSEAPPS_ACCEL", "COMPOSEAPPS_BUILD", "NO_COLOR"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/demo",
                    "Build an image with preloaded compose apps and watch it run them, with no network.")
    parser.describe(**HELP)
    parser.add_argument("apps", metavar="APP", nargs="*",
                        help="published app, REGISTRY/FACTORY/NAME[:TAG] (default: make and publish the demo apps)")
    parser.add_argument("--no-boot", action="store_true", help="stop when the image is built")
    parser.add_argument("--update", action="store_true", help="also update the device, and cut its power meanwhile")
    parser.add_argument("--refresh", action="store_true", help="look for newer Debian packages for the demo apps")
    parser.common.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.update and (arguments.apps or arguments.no_boot):
        parser.error("--update shows releases of the demo's own app, booted: give neither APP nor --no-boot with it")
    return arguments


def main(argv, top, build, setup_seconds):
    """Run the demo.

    Arguments:
        argv: the command line without the program's name.
        top: the repository.
        build: the directory for products.
        setup_seconds: what setting up the machine took before.

    Returns the exit status.
    """
    arguments = parse(argv)
    progress = Progress()
    if setup_seconds >= 1:
        progress.timings.append({"step": "setting up this machine", "seconds": round(setup_seconds, 2)})
    started = time.monotonic() - setup_seconds
    try:
        result = _run(arguments, Chain(top, build), progress)
    except (DemoError, ComposeAppsError, EmulatorError) as err:
        print(f"demo: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; what is built is kept", file=sys.stderr)
        return 130
    result["seconds"] = round(time.monotonic() - started, 1)
    result["steps"] = progress.timings
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)
    return 0


def _run(arguments, chain, progress):
    result = {}
    with ExitStack() as stack:
        wait_for_base = stack.enter_context(chain.in_the_background("build-image", "--base-only", "--quiet"))
        wait_for_dockerd = stack.enter_context(chain.in_the_background("build-dockerd"))
        endpoint = None
        if arguments.apps:
            sources = [chain.write_app_files(arguments.apps)]
        else:
            sources = [chain.top / "conf" / "apps" / f"{name}.yml" for name in PAGES]
            with progress.step("making and publishing the demo apps"):
                endpoint = stack.enter_context(demo_registry(chain.build))
                publish_demo(endpoint, chain.top, chain.build, arguments.refresh, progress.detail)
                if arguments.update:
                    result["releases"] = [release.uri for release in publish_releases(
                        endpoint, chain.top, chain.build, "web", arguments.refresh, progress.detail)]
        with progress.step("generating the recipes"):
            names = chain.generate_recipes(sources, endpoint)
        with progress.step("waiting for the Debian base"):
            wait_for_base(progress.detail)
        with progress.step("waiting for dockerd with the layer's patches (compiled once)"):
            wait_for_dockerd(progress.say)
        with progress.step("building the image"):
            result["image"] = chain.build_image(names, endpoint)
        if not arguments.no_boot:
            _boot(arguments, result, names, endpoint, progress)
    return result


def _boot(arguments, result, names, endpoint, progress):
    """Boot the image and add what the device answers to ``result``."""
    network = "user" if arguments.update else "none"
    machine = Machine(result["image"], network=network, name="demo")
    said = "with a network" if arguments.update else "with no network"

    def wait_for_apps():
        apps.wait_for_apps(machine, lambda line: progress.say(f"  {line}"))

    try:
        with progress.step(f"booting the image in QEMU, {said} ({machine.accel.name})"):
            machine.start()
        with progress.step("the device installs and starts its apps"):
            wait_for_apps()
        with progress.step("asking the apps"):
            result["apps"] = device.services(machine)
            result["pages"] = {name: device.fetch(machine, url) for name, url in PAGES.items() if name in names}
        if arguments.update:
            good, broken = result["releases"]
            updating.connect(machine, *endpoint.split("=", 1))
            result["update"] = updating.interrupted(machine, good, progress, wait_for_apps)
            result["rollback"] = updating.taken_back(machine, broken, progress)
    finally:
        machine.close()


def _show(result):
    console = Console(highlight=False)
    for name, text in result.get("pages", {}).items():
        console.print(f"\n[bold]{name}[/] answers on the device, at {PAGES[name]}:", soft_wrap=True)
        console.print("\n".join(f"  {line}" for line in pagetext.lines(text)), markup=False, soft_wrap=True)
    if "apps" in result:
        table = Table(box=None, header_style="dim")
        for column in ("app", "service", "state", "health"):
            table.add_column(column)
        for app in result["apps"]:
            for service in app["services"]:
                table.add_row(app["name"], service["name"], service["state"], service["health"] or "-")
        console.print()
        console.print(table)
    if "update" in result:
        _show_update(console, result["update"], result["rollback"])
    table = Table(box=None, header_style="dim", show_footer=True)
    table.add_column("where the time went", footer="in all")
    table.add_column("seconds", justify="right", footer=f"{result['seconds']:.1f}")
    for step in result["steps"]:
        table.add_row(step["step"], f"{step['seconds']:.1f}")
    console.print()
    console.print(table)
    console.print(f"\n{result['image']}\nscripts/run-qemu boots it again, for a look around.", markup=False,
                  soft_wrap=True)


def _show_update(console, update, rollback):
    kept = f"{update['kept_bytes'] / 1e6:.1f} MB"
    console.print(f"\n[bold]release 2[/]: {kept} of it had come when the power went; what was on the disk counts:",
                  soft_wrap=True)
    console.print("\n".join(f"  {line}" for line in update["log"]), markup=False, soft_wrap=True)
    before, after = update["redis_before_and_after"]
    console.print(f"{update['page']} (redis: container {before} before, {after} after)", markup=False, soft_wrap=True)
    console.print("\n[bold]release 3[/], with the network down:")
    console.print("\n".join(f"  {line}" for line in rollback["log"]), markup=False, soft_wrap=True)
    console.print(rollback["page"], markup=False, soft_wrap=True)
    console.print("\n" + "\n".join(rollback["history"]), markup=False, soft_wrap=True)
