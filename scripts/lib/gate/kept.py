# SPDX-License-Identifier: MIT
"""The factory of one build directory: nginx and the registry that last, a repository, keys and certificates.

All of it lies below build/factory but for the registry, which is that of scripts/registry.
"""

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from composeapps import durable
from composeapps.errors import RegistryError, UsageError
from composeapps.signing import documents, edit, keys
from composeapps.signing.repository import Repository
from gate.nginx import Nginx
from gate.pki import Pki
from hub import held, kept

DEFAULT_PORT = 8443
# nginx's own name for itself in certificates, for who has it in /etc/hosts.
NAME = "factory.demo.test"
STOP_SECONDS = 10
# It is nobody's duty to renew the metadata of a factory on a laptop every week.
DAYS = {"timestamp": 90, "snapshot": 90}


@dataclass(frozen=True)
class State:
    """How the factory is: ``pid`` is None when it does not run, ``port`` when it never did; ``registry`` is a
    hub.kept.State."""

    pid: int | None
    port: int | None
    registry: kept.State

    @property
    def url(self):
        """Where devices find it, or None."""
        return f"https://127.0.0.1:{self.port}" if self.port else None


class KeptFactory:
    """The factory of one build directory.

    Arguments:
        build: the directory for products.
    """

    def __init__(self, build):
        self.directory = Path(build).resolve() / "factory"
        self.registry = kept.KeptRegistry(build)
        self.pki = Pki(self.directory / "pki")
        self.repository = self.directory / "repo"
        self.keys = self.directory / "keys"
        self.phrase = self.directory / "passphrase"
        self.nginx = Nginx(self.directory, self.pki, self.repository, None, None)
        self._running = self.directory / "running"
        self._settings = self.directory / "factory.json"

    def state(self):
        """Return the State. Changes nothing."""
        return State(held.holder(self._running), kept.read_port(self._settings), self.registry.state())

    def up(self, port=None):
        """Start what does not run, make what is missing, renew the metadata; return the State.

        Arguments:
            port: of 127.0.0.1; 0 for a free one, None for the one that it had, else DEFAULT_PORT or a free one.

        Raises ComposeAppsError.
        """
        with self._alone():
            state = self.state()
            if state.pid and port not in (None, 0, state.port):
                raise UsageError(f"the factory listens on port {state.port}: end it with 'scripts/factory down' before "
                                 f"it can listen on port {port}")
            # A registry whose port is another one's now, too, may have been started anew meanwhile.
            before = state.registry
            registry = self.registry.up(None if before.pid else 0 if port == 0 and not before.port else None)
            # A clock that is behind would make certificates that have ended when it is set.
            documents.clock(documents.State())
            self.pki.make([NAME, "localhost"])
            self._renew()
            if state.pid and before.pid:
                return self.state()
            if state.pid:
                held.end(self._running, "nginx", STOP_SECONDS)
            chosen = kept.choose_port(port, state.port, DEFAULT_PORT, "factory")
            durable.write_file(self._settings, json.dumps({"port": chosen}).encode() + b"\n")
            with held.take(self._running) as mark:
                Nginx(self.directory, self.pki, self.repository, registry.url, secrets.token_hex(16)).start(
                    chosen, mark)
            return self.state()

    def down(self):
        """End it and the registry; tell whether either ran. Raises RegistryError."""
        if not self.directory.is_dir():
            return False
        with self._alone():
            ended = held.end(self._running, "nginx", STOP_SECONDS)
            return self.registry.down() or ended

    def _renew(self):
        """Make the keys and the repository, or sign its snapshot and timestamp anew."""
        if not self.phrase.exists():
            durable.write_file(self.phrase, secrets.token_hex(16).encode() + b"\n", 0o600)
        phrases = keys.PassPhrases([self.phrase])
        repository = Repository(self.repository)
        found = {}
        for role in ("root", "targets", "online"):
            path = self.keys / f"{role}.pem"
            found[role] = keys.find(path, phrases) if path.exists() else keys.make(path, phrases)
        with repository.alone():
            if repository.is_there():
                state = repository.read()
                repository.publish(state, {}, [found["online"]], documents.clock(state))
                return
            state = documents.State()
            now = documents.clock(state)
            made = edit.init({"root": [found["root"]], "targets": [found["targets"]], "snapshot": [found["online"]],
                              "timestamp": [found["online"]]}, {}, DAYS, now)
            documents.sign(state, made, list(found.values()))
            repository.publish(state, made, list(found.values()), now)

    @contextlib.contextmanager
    def _alone(self):
        """Keep two commands that start or end it apart; the second waits."""
        try:
            durable.make_directories(self.directory, mode=0o700, above=0o755)
            lock = open(os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600), "wb")  # noqa: SIM115
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except PermissionError as err:
            raise RegistryError(f"{err.filename or self.directory} belongs to another user: run this as that user, "
                                "or with sudo") from None
        except OSError as err:
            raise RegistryError(f"{err.filename or self.directory}: {err.strerror or err}") from None
