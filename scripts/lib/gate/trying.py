# SPDX-License-Identifier: MIT
"""scripts/factory try: a device of this machine's goes the whole way with an update server that runs elsewhere.

Its REST API is spoken to as an operator would: registration, and a rollout of each update that is named. All else is
what the agent's own commands do, with a store, a state and an identity of their own.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit

from composeapps import durable
from composeapps.errors import RegistryError, UsageError

LIB = Path(__file__).resolve().parents[3] / "meta-composeapps" / "lib"
NOT_BELIEVED = 17
# Seconds between two looks whether a rollout has reached the device.
PAUSE = 2
_LARGEST = 512_000


class Trial:
    """One device, below ``directory``, which is made anew; ``device`` is its name during a run and after it.

    Arguments:
        directory: a Path.
        url: the server's REST API.
        gateway: its device gateway, "" for the one that registration tells of.
        token: the file with the operator's token.
        unit: the factory's name; ``tag`` and ``hardware`` are what the device says of itself.
        docker_host: a dockerd's socket, unix:///PATH.
        say: called with a sentence for each step.
        settings: further lines of the section [composeapps].
    """

    def __init__(self, directory, url, gateway, token, unit, tag, hardware, docker_host, say, settings=""):
        self.directory, self._url, self._gateway, self._say = Path(directory), url.rstrip("/"), gateway, say
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"{url} is no address of a REST API: write http://HOST:PORT or https://HOST:PORT")
        self._token, self._unit, self._tag, self._hardware = token, unit, tag, hardware
        self._docker_host, self._settings = docker_host, settings
        self.device = ""
        try:
            self._secret = Path(token).read_text().strip()
        except OSError as err:
            raise UsageError(f"the token's file {token} cannot be read: {err.strerror}") from None

    def run(self, updates, wait):
        """Go the whole way; return {"device", "targets": [name, …], "steps": [sentence, …]}.

        Arguments:
            updates: names of two updates of the tag, the older one first.
            wait: seconds that a rollout may take to reach the device.

        Raises RegistryError when something is not as it has to be.
        """
        self._prepare()
        self._step("registered", self._agent("enroll", "--server", self._url, "--token", self._token, "--unit",
                                             self._unit, "--device", self.device,
                                             *(["--plain-http"] if self._url.startswith("http:") else [])))
        self._correct_gateway()
        # A device that never said its tag gets no rollout.
        self._step("checked in", self._agent("update", "--now"))
        targets = []
        for name in updates:
            self._roll_out(name)
            targets.append(self._updated(name, targets, wait))
        first, second = targets
        self._roll_out(updates[0])
        time.sleep(PAUSE)
        self._step("refused the older one", self._agent("update", "--now", expected=NOT_BELIEVED))
        self._expect(second)
        self._step("went back by hand", self._agent("rollback"))
        self._expect(first)
        self._roll_out(updates[1])
        self._told(wait)
        return {"device": self.device, "targets": targets}

    def _prepare(self):
        # A server takes no name twice.
        self.device = f"try-{secrets.token_hex(4)}"
        shutil.rmtree(self.directory, ignore_errors=True)
        durable.make_directories(self.directory / "tuf", mode=0o700, above=0o755)
        root = self._rest("GET", "/v1/tuf/root.json", "the root of its metadata")
        durable.write_file(self.directory / "tuf/1.root.json", root)
        self._say("its root is trusted because it came first: an image brings one that is known")
        durable.write_file(self.directory / "config.toml", f"""[pacman]
tags = "{self._tag}"
reset_apps_root = "{self.directory}/store"
compose_apps_root = "{self.directory}/compose"
storage_watermark = 95
[composeapps]
state_dir = "{self.directory}/state"
identity_dir = "{self.directory}/identity"
docker_host = "{self._docker_host}"
factory_file = "{self.directory}/factory.json"
factory_store = "{self.directory}/factory"
{self._settings}
[delivery]
server = "{self._gateway or 'https://localhost:8443'}"
hardware_id = "{self._hardware}"
root_dir = "{self.directory}/tuf"
""".encode())

    def _correct_gateway(self):
        """The server does not know its own port where it is not the usual one."""
        if self._gateway:
            durable.write_file(self.directory / "identity/composeapps.toml",
                               f'[delivery]\nserver = "{self._gateway}"\nhardware_id = "{self._hardware}"\n'.encode(),
                               0o600)

    def _updated(self, name, before, wait):
        until = time.monotonic() + wait
        while True:
            said = self._agent("update", "--now")
            target = self._installed()
            if target and target not in before:
                self._step(f"installed {target}", said)
                return target
            if time.monotonic() > until:
                raise RegistryError(f"the update {name} did not reach the device in {wait} s: {said}")
            time.sleep(PAUSE)

    def _told(self, wait):
        """See that the server has what the device reported."""
        until = time.monotonic() + wait
        while (self.directory / "state/events.jsonl").exists():
            if time.monotonic() > until:
                raise RegistryError(f"the device still has reports to make after {wait} s")
            self._agent("update", "--now")
            time.sleep(PAUSE)
        known = json.loads(self._rest("GET", f"/v1/devices/{self.device}", "the device"))
        if not known.get("target"):
            raise RegistryError(f"the server does not know which Target {self.device} has")
        self._step("reported", f"the server knows {self.device} at {known['target']}")

    def _installed(self):
        try:
            record = json.loads((self.directory / "state/delivery/target.json").read_bytes())
            return record["current"]["name"] if record["current"] and not record["rollout"] else ""
        except FileNotFoundError:
            return ""

    def _expect(self, target):
        if self._installed() != target:
            raise RegistryError(f"the device is at {self._installed() or 'no Target'}, not at {target}")

    def _roll_out(self, update):
        name = f"try-{secrets.token_hex(4)}"
        self._rest("PUT", f"/v1/updates/{quote(self._tag)}/{quote(update)}/rollouts/{name}", f"the update {update}",
                   {"uuids": [self.device], "groups": []})
        self._say(f"rolled out {update}")

    def _rest(self, method, path, what, value=None):
        request = urllib.request.Request(self._url + path, method=method, headers={
            "Authorization": f"Bearer {self._secret}", "Content-Type": "application/json"},
            data=None if value is None else json.dumps(value).encode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read(_LARGEST)
        except urllib.error.HTTPError as err:
            raise RegistryError(f"{self._url} answers {err.code} when it is asked for {what}") from None
        except OSError as err:
            raise RegistryError(f"{self._url} cannot be reached: {getattr(err, 'reason', err)}") from None

    def _agent(self, *words, expected=0):
        """Run one of the agent's commands; return the last line that it says."""
        done = subprocess.run(
            [sys.executable, "-B", "-m", "composeapps", "--config", self.directory / "config.toml", *words],
            env={**os.environ, "PYTHONPATH": str(LIB)}, stdin=subprocess.DEVNULL, text=True, capture_output=True,
            check=False)
        last = [*done.stderr.strip().splitlines(), *done.stdout.strip().splitlines()][-1:] or [""]
        if done.returncode != expected:
            raise RegistryError(f"'composeapps {words[0]}' ended with {done.returncode}, not {expected}: {last[0]}")
        return last[0]

    def _step(self, what, said):
        self._say(f"{what}: {said}" if said else what)
