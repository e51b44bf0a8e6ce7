# SPDX-License-Identifier: MIT
"""The command scripts/run-qemu."""

import argparse
import json
import os
import signal
import sys
import threading
import time

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError

from . import image as images
from .apps import wait_for_apps
from .errors import EmulatorError
from .interactive import HELP, Terminal
from .machine import Machine

DESCRIBED = {
    "examples": (
        ("scripts/run-qemu", "the image that was built last, its console in this terminal"),
        ("scripts/run-qemu --forward 8080:80", "with a network; http://127.0.0.1:8080 reaches the guest's port 80"),
        ("scripts/run-qemu --apps --command 'composeapps ps'", "when the image's apps are started, run a command"),
        ("scripts/run-qemu --forward 0:80 --command 'composeapps ls --json'",
         "run a command; 0 takes a free port and says which"),
        ("scripts/run-qemu build/deploy/composeapps-image-qemux86-64.json --json --command 'uname -r' "
         "--command 'composeapps ps'", "results as JSON"),
    ),
    "details": (
        f"On the console: {HELP}.",
        "The image itself is never changed: the machine writes to an overlay in build/runs/NAME-N/, beside the logs of "
        "its console (serial.log, and serial-timed.log with the seconds since power-on before each line).",
    ),
    "exits": {0: "the machine was switched off, or all commands succeeded", 2: "wrong usage",
              125: "the machine did not boot or answer", 130: "interrupted",
              "other": "that of the first --command that failed"},
    "environment": ("COMPOSEAPPS_ACCEL", "COMPOSEAPPS_BUILD"),
}


def forward(text):
    """Parse HOST:GUEST into two port numbers; HOST may be 0."""
    host, colon, guest = text.partition(":")
    if not (colon and host.isdecimal() and guest.isdecimal() and int(host) < 65536 and 0 < int(guest) < 65536):
        raise argparse.ArgumentTypeError(f"'{text}' is not HOST:GUEST, two port numbers such as 8080:80 or 0:80")
    return int(host), int(guest)


def megabytes(text):
    """Parse an amount of memory in MB."""
    if not text.isdecimal() or int(text) < 64:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of megabytes, 64 at least")
    return int(text)


def seconds(text):
    """Parse a time in seconds."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of seconds, 1 at least")
    return int(text)


def make_parser():
    """Return the command's argument parser."""
    made = Parser("scripts/run-qemu", "Boot an image in QEMU: by hand on its console, or to run commands in it.")
    made.describe(**DESCRIBED)
    made.add_argument("image", nargs="?", metavar="IMAGE.json",
                      help="description of the image (default: the one in build/deploy that was built last)")
    made.add_argument("--network", choices=("none", "user"),
                      help="user: a network where the host is 10.0.2.2 (default: none, or user with --forward)")
    made.add_argument("--restrict", action="store_true", help="the network only serves --forward: nothing gets out")
    made.add_argument("--forward", action="append", default=[], type=forward, metavar="HOST:GUEST",
                      help="forward TCP port HOST of 127.0.0.1 (0: a free one) to port GUEST of the guest")
    made.add_argument("--memory", type=megabytes, default=1024, metavar="MB", help="memory (default: 1024)")
    made.add_argument("--accel", choices=("kvm", "tcg"), help="do not probe whether KVM runs guests here")
    made.add_argument("--efi", action="store_true",
                      help="boot by EFI firmware, as a device does (an image of scripts/build-image --disk)")
    made.add_argument("--keep", action="store_true", help="keep the overlay disk afterwards")
    made.add_argument("--command", action="append", default=[], metavar="COMMAND",
                      help="run COMMAND in the guest instead of showing the console; the first that fails is the last")
    made.add_argument("--apps", action="store_true",
                      help="with --command: wait until the device has installed and started the image's apps")
    made.add_argument("--timeout", type=seconds, default=300, metavar="SECONDS",
                      help="limit for each --command, with KVM (default: 300); eight times that under emulation")
    made.common.add_argument("--json", action="store_true", help="with --command: print the results as JSON")
    return made


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.json and not options.command:
        parser.error("--json shows the results of --command: name a command")
    if options.apps and not options.command:
        parser.error("--apps waits before --command: name a command")
    if options.network == "none" and options.forward:
        parser.error("--forward needs a network: leave out --network none")
    if not options.command and not (sys.stdin.isatty() and sys.stdout.isatty()):
        parser.error("there is no terminal here for the guest's console: use --command")
    return options


def _say(text):
    print(f"run-qemu: {text}", file=sys.stderr, flush=True)


class _Progress:
    """Shows on a terminal that the machine still boots, and how far it is."""

    def __init__(self, machine):
        self._machine = machine
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self):
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _show(self):
        started = time.monotonic()
        while not self._done.wait(0.5):
            console = self._machine.console
            last = console.tail(1) if console else ""
            width = os.get_terminal_size(2).columns
            line = f"run-qemu: booting, {time.monotonic() - started:.0f} s  {last}"
            print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)


def main(argv):
    """Run the command and return its exit status."""
    options = parse(argv)
    # So that the with block below ends as it does for an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    except ComposeAppsError as err:
        _say(err)
        return err.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return 128 + signal.SIGINT


def _run(options):
    network = options.network or ("user" if options.forward or options.restrict else "none")
    machine = Machine(
        options.image or images.latest(), network=network, restrict=options.restrict, memory=options.memory,
        accel=options.accel, efi=options.efi, keep="always" if options.keep else "never", name="run-qemu",
    )
    _say(f"{machine.accel.name.upper()} ({machine.accel.reason}), network {network}, logs in {machine.run_dir}")
    failed = True
    try:
        machine.power_on()
        forwards = {guest: machine.forward(guest, host) for host, guest in options.forward}
        for guest, host in forwards.items():
            _say(f"127.0.0.1:{host} is port {guest} of the guest")
        status = _commands(machine, options, forwards) if options.command else _interactive(machine)
        failed = False
        return status
    finally:
        machine.close(failed)
        if options.keep and machine.overlay:
            _say(f"the overlay is kept: {machine.overlay}")


def _interactive(machine):
    _say(HELP)
    if not Terminal(machine).attach():
        print()
        _say("the machine is off")
    return 0


def _commands(machine, options, forwards):
    with _Progress(machine):
        machine.login()
    _say(f"booted in {machine.boot_seconds:.1f} s")
    if options.apps:
        wait_for_apps(machine, lambda line: _say(f"  {line}"))
    done, status = [], 0
    for command in options.command:
        started = time.monotonic()
        result = machine.run(command, options.timeout, check=False)
        done.append({
            "command": command, "exit_status": result.exit_status, "stdout": result.stdout,
            "seconds": round(time.monotonic() - started, 3),
        })
        if not options.json:
            sys.stdout.buffer.write(result.raw)
            sys.stdout.buffer.flush()
        status = result.exit_status
        if status:
            _say(f"'{command}' ended with status {status}")
            break
    if options.json:
        print(json.dumps({
            "accel": machine.accel.name, "boot_seconds": round(machine.boot_seconds, 3), "commands": done,
            "forwards": {str(guest): host for guest, host in forwards.items()}, "run_dir": str(machine.run_dir),
        }, indent=2))
    try:
        machine.shutdown()
    except EmulatorError as err:
        _say(err)
    return status
