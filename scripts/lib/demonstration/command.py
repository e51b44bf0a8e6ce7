# SPDX-License-Identifier: MIT
"""The command line of scripts/demo."""

import json
import os
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from demonstration import capture, device, disk, pagetext, signed, updating
from demonstration.chain import Chain
from demonstration.errors import DemoError
from demonstration.keeping import RUNS_ALREADY, Kept
from emulator import apps
from emulator.errors import EmulatorError
from emulator.machine import Machine
from factory.demo import demo_registry, publish_demo, publish_releases
from fastlane.progress import Progress
from hub.kept import KeptRegistry

# What the demo apps serve on the device.
PAGES = {"shellhttpd": "http://127.0.0.1:8080/", "web": "http://127.0.0.1:8081/"}
GUEST_PORTS = tuple(urlsplit(url).port for url in PAGES.values())
# For a command of --run, five times that under emulation.
RUN_SECONDS = 600

HELP = {
    "examples": (
        ("scripts/demo", "the two demo apps, from a registry on this machine"),
        ("scripts/demo registry.example.com/factory/shop:v3", "your app, published there before"),
        ("scripts/demo --no-boot", "build the image, do not boot it"),
        ("scripts/demo --update", "the demo apps, then an update over the network with a power cut in its middle, then "
         "a release that is broken and is taken back with the network down"),
        ("scripts/demo --disk", "the disk that a manufacturer writes: it boots by EFI, grows to the size of a larger "
         "one, is reset and boots again"),
        ("scripts/demo --signed", "a device gets a certificate, takes what its factory signed, over TLS and from a "
         "stick, and refuses what is forged or was signed before"),
        ("scripts/demo --keep", "and leave the device running, its apps at ports of this machine, beside the registry"),
        ("scripts/demo --run 'composeapps ps'", "run a command on the device that --keep left running"),
        ("scripts/demo --down", "end that device and the registry"),
    ),
    "details": (
        "Run it again after changing something: only what changed is built again. scripts/run-qemu boots the image for "
        "a look around.",
    ),
    "exits": {0: "the apps run", 1: "they do not", 2: "wrong usage", 130: "interrupted; what is built is kept",
              "other": "with --run: that of the command on the device"},
    "environment": ("COMPOSEAPPS_ENDPOINTS", "REGISTRY_AUTH_FILE", "COMPOSEAPPS_MIRROR", "COMPOSEAPPS_ACCEL",
                    "COMPOSEAPPS_BUILD", "NO_COLOR"),
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
    parser.add_argument("--disk", action="store_true",
                        help="boot the disk with partitions by EFI, let it grow, and reset it to the preloaded apps")
    parser.add_argument("--signed", action="store_true",
                        help="also enrol the device with a factory on this machine, and have it take signed releases")
    parser.add_argument("--keep", action="store_true",
                        help="leave the registry and the device running, with a network, until --down")
    parser.add_argument("--run", metavar="COMMAND", help="only run COMMAND on the device that --keep left running")
    parser.add_argument("--down", action="store_true", help="only end that device, its disk too, and the registry")
    parser.add_argument("--capture", type=Path, metavar="FILE.svg",
                        help="also write a picture of what the demo shows")
    parser.add_argument("--refresh", action="store_true", help="look for newer Debian packages for the demo apps")
    parser.common.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.update and (arguments.apps or arguments.no_boot):
        parser.error("--update shows releases of the demo's own app, booted: give neither APP nor --no-boot with it")
    if arguments.update and arguments.disk:
        parser.error("--disk shows a factory reset, which would take back what --update shows: give one of them")
    if arguments.signed and (arguments.apps or arguments.no_boot or arguments.update or arguments.disk):
        parser.error("--signed shows releases of the demo's own app, booted: give neither APP nor --no-boot, --update "
                     "or --disk with it")
    if arguments.keep and arguments.no_boot:
        parser.error("--keep leaves a device running: it does not go with --no-boot")
    if (arguments.down or arguments.run is not None) and len([word for word in argv if word != "--json"]) > 1 + (
            "--run" in argv):
        parser.error(f"{'--down' if arguments.down else '--run'} goes with nothing but --json")
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
    kept = Kept(build)
    try:
        if arguments.down:
            return _down(arguments, kept, build)
        if arguments.run is not None:
            return _run_command(arguments, kept)
        return _demonstrate(arguments, Chain(top, build), kept, setup_seconds)
    except (DemoError, ComposeAppsError, EmulatorError) as err:
        print(f"demo: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; what is built is kept", file=sys.stderr)
        return 130


def _down(arguments, kept, build):
    ended = {"device": kept.down(), "registry": KeptRegistry(build).down()}
    if arguments.json:
        print(json.dumps(ended, indent=2))
    else:
        print("; ".join(f"the {name} {'ended' if did else 'did not run'}" for name, did in ended.items()))
    return 0


def _run_command(arguments, kept):
    answer = kept.run(arguments.run, RUN_SECONDS)
    if arguments.json:
        print(json.dumps({"command": arguments.run, **answer}, indent=2))
    else:
        print(answer["stdout"], end="")
    return answer["exit_status"]


def _demonstrate(arguments, chain, kept, setup_seconds):
    """Show it all; with --keep, two processes return from here, one of them after the device's end."""
    if arguments.keep and kept.running():
        raise DemoError(RUNS_ALREADY)
    progress = Progress()
    if setup_seconds >= 1:
        progress.timings.append({"step": "setting up this machine", "seconds": round(setup_seconds, 2)})
    started = time.monotonic() - setup_seconds
    recorded = capture.console() if arguments.capture else None
    progress.also_to(recorded)
    with ExitStack() as stack:
        factory = None
        result, names, endpoint = _build(arguments, chain, progress, stack)
        if arguments.signed:
            factory = result.pop("factory")
        if arguments.keep:
            status = kept.begin()
            if status is not None:
                return status
        machine = None
        if not arguments.no_boot:
            machine = stack.enter_context(closing(_machine(arguments, result, factory)))
            _boot(arguments, machine, result, names, endpoint, progress, factory)
        result["seconds"] = round(time.monotonic() - started, 1)
        result["steps"] = progress.timings
        if arguments.keep:
            result["kept"] = _keep(machine, result, endpoint)
        if arguments.json:
            print(json.dumps(result, indent=2))
        else:
            _show(result)
        if recorded:
            # A picture is for others, from whatever directory it was made.
            _show({**result, "image": f"build/deploy/{Path(result['image']).name}"}, recorded)
            capture.write(recorded, arguments.capture)
        if arguments.keep:
            progress.close()
            kept.serve(machine, result["kept"])
    return 0


def _machine(arguments, result, factory):
    network = "user" if arguments.update or arguments.keep or arguments.signed else "none"
    if arguments.signed:
        return Machine(result["image"], network=network, name="demo-signed", drives=[factory.stick])
    if not arguments.disk:
        return Machine(result["image"], network=network, name="demo")
    return Machine(result["image"], network=network, name="demo-disk", efi=True,
                   disk_size=disk.larger_size(result["image"]))


def _keep(machine, result, endpoint):
    """Let this machine's browser reach the apps; return what somebody needs to know of the device."""
    ports = {guest: machine.forward(guest) for guest in GUEST_PORTS}
    return {"image": result["image"], "ports": ports, "endpoint": endpoint}


def _build(arguments, chain, progress, stack):
    """Build the image; return (the first part of the result, the names of the apps, the registry's endpoint)."""
    result = {}
    with ExitStack() as background:
        wait_for_base = background.enter_context(chain.in_the_background("build-image", "--base-only", "--quiet"))
        wait_for_dockerd = background.enter_context(chain.in_the_background("build-dockerd"))
        endpoint = None
        if arguments.apps:
            sources = [chain.write_app_files(arguments.apps)]
        else:
            sources = [chain.top / "conf" / "apps" / f"{name}.yml" for name in PAGES]
            with progress.step("making and publishing the demo apps"):
                endpoint = stack.enter_context(demo_registry(chain.build, keep=arguments.keep))
                published = publish_demo(endpoint, chain.top, chain.build, arguments.refresh, progress.detail)
                if arguments.update or arguments.signed:
                    result["releases"] = [release.uri for release in publish_releases(
                        endpoint, chain.top, chain.build, "web", arguments.refresh, progress.detail)]
            if arguments.signed:
                with progress.step("starting a factory: keys, signed metadata, a server that asks for certificates"):
                    releases = {app.name: [app.uri] for app in published}
                    releases["web"] += result["releases"]
                    result["factory"] = signed.Factory(chain, stack.enter_context(_factory(chain.build)), endpoint,
                                                       releases)
        with progress.step("generating the recipes"):
            names = chain.generate_recipes(sources, endpoint)
        with progress.step("waiting for the Debian base"):
            wait_for_base(progress.detail)
        with progress.step("waiting for dockerd with the layer's patches (compiled once)"):
            wait_for_dockerd(progress.say)
        with progress.step("building the image"):
            result["image"] = chain.build_image(names, endpoint, arguments.disk,
                                                result["factory"].root if arguments.signed else None)
    return result, names, endpoint


@contextmanager
def _factory(build):
    """Have the factory of this machine run; one that did not run before ends with the block. Gives the KeptFactory."""
    from gate.kept import KeptFactory

    factory = KeptFactory(build)
    ran = factory.state().pid
    factory.up()
    try:
        yield factory
    finally:
        if not ran:
            factory.down()


def _boot(arguments, machine, result, names, endpoint, progress, factory):
    """Boot the image and add what the device answers to ``result``."""
    said = "with no network" if machine.network == "none" else "with a network"

    def wait_for_apps():
        apps.wait_for_apps(machine, lambda line: progress.say(f"  {line}"))

    with progress.step(f"booting the image in QEMU, {said} ({machine.accel.name})"):
        machine.start()
    with progress.step("the device installs and starts its apps"):
        wait_for_apps()
    with progress.step("asking the apps"):
        result["apps"] = device.services(machine)
        result["pages"] = {name: device.fetch(machine, url) for name, url in PAGES.items() if name in names}
    if arguments.disk:
        result["disk"] = disk.shown(machine, result["image"], progress, wait_for_apps,
                                    lambda: [device.fetch(machine, PAGES[name]) for name in result["pages"]])
    if arguments.signed:
        result["signed"] = signed.shown(machine, factory, progress)
    elif endpoint and machine.network != "none":
        updating.connect(machine, *endpoint.split("=", 1))
    if arguments.update:
        good, broken = result["releases"]
        result["update"] = updating.interrupted(machine, good, progress, wait_for_apps)
        result["rollback"] = updating.taken_back(machine, broken, progress)


def _show(result, console=None):
    console = console or Console(highlight=False)
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
    if "disk" in result:
        _show_disk(console, result["disk"])
    if "signed" in result:
        _show_signed(console, result["signed"])
    table = Table(box=None, header_style="dim", show_footer=True)
    table.add_column("where the time went", footer="in all")
    table.add_column("seconds", justify="right", footer=f"{result['seconds']:.1f}")
    for step in result["steps"]:
        table.add_row(step["step"], f"{step['seconds']:.1f}")
    console.print()
    console.print(table)
    console.print()
    image = os.path.relpath(result["image"])
    # Elsewhere, the whole path says more.
    image = result["image"] if image.startswith("..") else image
    if "kept" not in result:
        console.print(f"{image}\nscripts/run-qemu boots it again, for a look around.", markup=False, soft_wrap=True)
        return
    console.print(f"{image} runs on; from this machine:", markup=False, soft_wrap=True)
    for guest, port in result["kept"]["ports"].items():
        console.print(f"  http://127.0.0.1:{port}/ is port {guest} of the device", markup=False, soft_wrap=True)
    console.print("scripts/demo --run 'composeapps ps' runs a command on it,\n"
                  "scripts/registry status tells about the registry, scripts/demo --down ends both.",
                  markup=False, soft_wrap=True)


def _show_disk(console, found):
    table = Table(box=None, header_style="dim")
    for column, justify in (("partition", "left"), ("mounted at", "left"), ("image, MiB", "right"),
                            ("device, MiB", "right")):
        table.add_column(column, justify=justify)
    for part in found["partitions"]:
        table.add_row(part["name"], part["mountpoint"], f"{part['built_bytes'] / 2**20:.0f}",
                      f"{part['bytes'] / 2**20:.0f}")
    console.print()
    console.print(table)
    console.print("\n[bold]the factory reset[/], done at the next start, before the data was mounted:", soft_wrap=True)
    console.print("\n".join(f"  {line}" for line in found["log"]), markup=False, soft_wrap=True)
    before, after, last = found["machine_ids"]
    console.print(f"machine-id {before} before, {after} after it, {last} at the start after that", markup=False,
                  soft_wrap=True)


def _show_signed(console, found):
    for title, lines in (
            ("the device's identity", found["identity"]), ("signed by the factory, over TLS", found["online"]),
            ("and the app says", [found["page"]]), ("an altered bundle on a stick", [found["forged"]]),
            ("the factory's bundle on that stick, with no network", found["offline"]),
            ("and the app says", [found["offline_page"]]),
            ("a server that serves what was signed before", [found["rolled_back"]]),
            ("and the one after that", found["last"])):
        console.print(f"\n[bold]{title}[/]:", soft_wrap=True)
        console.print("\n".join(f"  {line}" for line in lines), markup=False, soft_wrap=True)


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
