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
        ("scripts/factory try http://localhost:8080 --token token --unit my-factory --update v1 --update v2",
         "take a device of this machine's the whole way with an update server of Foundries.io's that runs"),
        ("scripts/factory down", "end it; all that it has is there again after the next 'up'"),
    ),
    "details": (
        "nginx serves the signed metadata and the registry's blobs to devices that have a certificate of this factory, "
        "and writes down what they report, in build/factory/reports.log. The registry is that of scripts/registry. "
        "Certificates, keys and the repository are made by the first 'up' and lie below build/factory; 'up' renews the "
        "timestamp, which is good for 90 days. It listens on 127.0.0.1 only; a guest of QEMU finds it at 10.0.2.2.",
        "'try' registers a device at an update server, has it check in, rolls two of the server's updates out to it, "
        "lets it install them, refuse the older one and go back by hand, and looks whether the server was told of it. "
        "It takes a dockerd, and root or who may speak with that.",
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
    parser.add_argument("action", metavar="ACTION", choices=("up", "down", "status", "sign", "try"),
                        help="up, down, status; sign: answer a certificate signing request; try: go the whole way with "
                        "another server")
    parser.add_argument("request", metavar="CSR|URL", nargs="?",
                        help="with sign: the request, PEM or DER, - for standard input; with try: the server's REST "
                        "API")
    parser.add_argument("--port", type=port, metavar="N",
                        help="with up: the port of 127.0.0.1 (default: the one that it had before, else "
                        f"{DEFAULT_PORT}, or a free one where that is taken)")
    parser.add_argument("--output", metavar="FILE", help="with sign: where the certificate goes, not standard output")
    parser.add_argument("--days", type=int, metavar="N", default=pki.DEVICE_DAYS,
                        help=f"with sign: for how long (default: {pki.DEVICE_DAYS})")
    parser.add_argument("--token", metavar="FILE", help="with try: the file with an operator's token")
    parser.add_argument("--unit", metavar="NAME", help="with try: the factory's name")
    parser.add_argument("--update", metavar="NAME", action="append", default=[],
                        help="with try: an update of the tag; given twice, the older one first")
    parser.add_argument("--gateway", metavar="URL", default="",
                        help="with try: the device gateway (default: what registration tells)")
    parser.add_argument("--tag", default="main", help="with try: the device's tag (default: main)")
    parser.add_argument("--hardware", metavar="ID", default="qemux86-64",
                        help="with try: its hardware id (default: qemux86-64)")
    parser.add_argument("--docker-host", metavar="SOCKET", default="unix:///run/docker.sock",
                        help="with try: the dockerd that runs the apps (default: unix:///run/docker.sock)")
    parser.add_argument("--wait", type=int, metavar="SECONDS", default=60,
                        help="with try: how long a rollout may take to reach the device (default: 60)")
    parser.common.add_argument("--json", action="store_true", help="print JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.port is not None and arguments.action != "up":
        parser.error("--port goes with up")
    takes = {"sign": "the file of a request", "try": "the address of a server's REST API"}.get(arguments.action)
    if (arguments.request is None) == bool(takes):
        parser.error(f"{arguments.action} takes {takes}" if takes else f"unrecognized arguments: {arguments.request}")
    if arguments.action == "try" and not (arguments.token and arguments.unit and len(arguments.update) == 2):
        parser.error("try takes --token, --unit and two --update")
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
    if arguments.action == "try":
        _try(arguments, factory)
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


def _try(arguments, factory):
    from gate.trying import Trial

    steps = []

    def say(text):
        steps.append(text)
        print(text, file=sys.stderr, flush=True)

    trial = Trial(factory.directory / "try", arguments.request, arguments.gateway, arguments.token, arguments.unit,
                  arguments.tag, arguments.hardware, arguments.docker_host, say)
    done = trial.run(arguments.update, arguments.wait)
    if arguments.json:
        print(json.dumps({**done, "steps": steps}, indent=2))
    else:
        print(f"{done['device']} went the whole way: {', '.join(done['targets'])}")


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
