# SPDX-License-Identifier: MIT
"""The command line of scripts/factory."""

import json
import os
import sys
from pathlib import Path

from composeapps import durable
from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError, NotFoundError, UsageError
from factory.localregistry import DEMO_HOST
from gate import pki
from gate.kept import DEFAULT_PORT, KeptFactory
from hub.command import port

NOT_RUNNING = 3
_LARGEST = 64 * 1024

HELP = {
    "examples": (
        ("scripts/factory up", "start it, or say that it runs"),
        ("scripts/factory sign device.csr > client.pem", "a device's certificate, for what 'composeapps identity "
                                                         "--csr' printed"),
        ("scripts/factory status --json | jq .settings", "what goes into a device's configuration"),
        ("scripts/factory down", "end it; all that it has is there again after the next 'up'"),
    ),
    "details": (
        "nginx serves the signed metadata and the registry's blobs to devices that have a certificate of this factory, "
        "and writes down what they report, in build/factory/reports.log. The registry is that of scripts/registry. "
        "Certificates, keys and the repository are made by the first 'up' and lie below build/factory; 'up' renews the "
        "timestamp, which is good for 90 days. It listens on 127.0.0.1 only; a guest of QEMU finds it at 10.0.2.2.",
        "It is for trying things: its keys lie beside the pass phrase that encrypts them. 'composeapps target' has the "
        "commands for keys that are kept apart.",
    ),
    "exits": {0: "it runs (up, status), it does not (down), or the certificate is made (sign)",
              1: "failure of another kind",
              2: "wrong usage, a bad request, or it listens on another port already",
              NOT_RUNNING: "it does not run (status), a file is missing", 4: "its files are damaged",
              5: "it does not start or answer: its port is taken, its files are another user's", 7: None, 130: None},
    "environment": ("COMPOSEAPPS_BUILD", "COMPOSEAPPS_MIRROR"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/factory", "Run a factory for devices on this machine: signed metadata, blobs and "
                    "certificates, until it is told to end.")
    parser.describe(**HELP)
    parser.add_argument("action", metavar="ACTION", choices=("up", "down", "status", "sign"),
                        help="up, down, status; or sign: answer a certificate signing request")
    parser.add_argument("request", metavar="CSR", nargs="?",
                        help="with sign: the request, PEM or DER, - for standard input")
    parser.add_argument("--port", type=port, metavar="N",
                        help="with up: the port of 127.0.0.1 (default: the one that it had before, else "
                        f"{DEFAULT_PORT}, or a free one where that is taken)")
    parser.add_argument("--output", metavar="FILE", help="with sign: where the certificate goes, not standard output")
    parser.add_argument("--days", type=int, metavar="N", default=pki.DEVICE_DAYS,
                        help=f"with sign: for how long (default: {pki.DEVICE_DAYS})")
    parser.common.add_argument("--json", action="store_true", help="print JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.port is not None and arguments.action != "up":
        parser.error("--port goes with up")
    if (arguments.request is None) == (arguments.action == "sign"):
        parser.error("sign takes the file of a request" if arguments.action == "sign" else
                     f"unrecognized arguments: {arguments.request}")
    if arguments.output and arguments.action != "sign":
        parser.error("--output goes with sign")
    if not 0 < arguments.days <= 36500:
        parser.error(f"--days {arguments.days} is not a number from 1 to 36500")
    return arguments


def main(argv, build):
    """Run the command; ``build`` is the directory for products. Returns the exit status."""
    arguments = parse(argv)
    try:
        return _run(arguments, KeptFactory(build))
    except ComposeAppsError as err:
        print(f"factory: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("factory: interrupted", file=sys.stderr)
        return 130


def _run(arguments, factory):
    if arguments.action == "sign":
        _sign(arguments, factory)
        return 0
    if arguments.action == "down":
        ended = factory.down()
        _report(arguments, factory, factory.state(), "ended" if ended else "did not run")
        return 0
    if arguments.action == "up":
        before = factory.state().pid
        state = factory.up(arguments.port)
        said = "runs already" if before == state.pid else "started"
    else:
        state = factory.state()
        said = "runs" if state.pid else "does not run"
    _report(arguments, factory, state, said)
    return 0 if state.pid else NOT_RUNNING


def _sign(arguments, factory):
    what = "standard input" if arguments.request == "-" else arguments.request
    try:
        with open(0 if arguments.request == "-" else arguments.request, "rb",
                  closefd=arguments.request != "-") as stream:
            request = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{what} does not exist: 'composeapps identity --csr' prints a request") from None
    except OSError as err:
        raise UsageError(f"{what} cannot be read: {err.strerror}") from None
    certificate = factory.pki.answer(request, what, arguments.days)
    if arguments.output:
        with durable.storage_errors("writing the certificate"):
            durable.write_file(arguments.output, certificate)
    if arguments.json:
        print(json.dumps({"certificate": certificate.decode(), "authority": factory.pki.root.read_text()}, indent=2))
    elif not arguments.output:
        print(certificate.decode(), end="")


def _settings(factory, state):
    """Return {section: {key: value}} of a device's configuration."""
    return {"delivery": {"server": state.url, "hardware_id": "qemux86-64"}, "pacman": {"tags": "main"}}


def _report(arguments, factory, state, said):
    if arguments.json:
        print(json.dumps({
            "running": bool(state.pid), "pid": state.pid, "port": state.port, "url": state.url,
            "repository": str(factory.repository), "root": str(factory.repository / "1.root.json"),
            "keys": str(factory.keys), "passphrase_file": str(factory.phrase),
            "server_ca": str(factory.pki.root), "device_ca": str(factory.pki.devices),
            "registry": {"running": bool(state.registry.pid), "host": DEMO_HOST, "endpoint": state.registry.endpoint},
            "settings": _settings(factory, state), "requests": str(factory.nginx.requests),
            "reports": str(factory.nginx.reports), "last_reports": factory.nginx.last_reports(),
            "log": str(factory.nginx.log)}, indent=2))
        return
    place = Path(os.path.relpath(factory.directory))
    if not state.pid:
        kept = f"; what it has is in {place}" if factory.repository.is_dir() else ""
        print(f"the factory {said}{kept}\nscripts/factory up starts it")
        return
    print(f"the factory {said} at {state.url}, the registry {DEMO_HOST} at {state.registry.url or 'no address'}")
    print(f"""  metadata      {place}/repo, of which 1.root.json goes into the image
  keys          {place}/keys, their pass phrase in {place}/passphrase
  certificates  {place}/pki: root.crt is what devices trust the server by""")
    reports = factory.nginx.last_reports(3)
    for report in reports:
        print(f"  {report['time']} {report['device']}: {report['path']}")
    if arguments.action == "up":
        print(f"""
next, with an app of yours that is published to {DEMO_HOST}:
  scripts/composeapps target create {place}/repo --keys {place}/keys --passphrase-file {place}/passphrase \\
      --name shop --hardware qemux86-64 --tag main --app {DEMO_HOST}/factory/shop:v1
  scripts/factory sign device.csr > client.pem
scripts/factory down ends it and the registry.""")
