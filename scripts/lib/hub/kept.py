# SPDX-License-Identifier: MIT
"""The registry that lasts: started once, found again by every command, its data kept below build/registry.

The process holds the file ``running`` (see hub.held), into which it wrote its id before it became docker-registry.
Its port is written down before it starts.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from composeapps import durable
from composeapps.errors import RegistryError, UsageError
from composeapps.registry.client import parse_endpoints
from factory.localregistry import DEMO_HOST, LocalRegistry
from hub import held

DEFAULT_PORT = 5000
STOP_SECONDS = 10
ENDPOINTS = "COMPOSEAPPS_ENDPOINTS"


@dataclass(frozen=True)
class State:
    """How the registry is: ``pid`` is None when it does not run, ``port`` when it never did."""

    pid: int | None
    port: int | None

    @property
    def url(self):
        """Where it listens when it runs, or None."""
        return f"http://127.0.0.1:{self.port}" if self.port else None

    @property
    def endpoint(self):
        """The ``host=url`` pair for COMPOSEAPPS_ENDPOINTS, ``--endpoint`` and OCI_ENDPOINTS, or None."""
        return f"{DEMO_HOST}={self.url}" if self.port else None


class KeptRegistry:
    """The registry of one build directory.

    Arguments:
        build: the directory for products.

    What is below ``directory`` may be removed as a whole while the registry does not run.
    """

    def __init__(self, build):
        self.directory = Path(build).resolve() / "registry"
        self.storage = self.directory / "data"
        self.log = self.directory / "registry.log"
        self._running = self.directory / "running"
        self._settings = self.directory / "registry.json"

    def state(self):
        """Return the State. Changes nothing, and asks the registry nothing."""
        return State(held.holder(self._running), read_port(self._settings))

    def up(self, port=None):
        """Start the registry unless it runs, and return its State when it answers.

        Arguments:
            port: of 127.0.0.1; 0 for a free one, None for the one that it had before, else DEFAULT_PORT,
                or a free one where another program has that.

        Raises UsageError when it runs on another port than the one that is asked for, RegistryError when the
        port is taken, it does not start, or its files belong to another user.
        """
        with self._alone():
            state = self.state()
            if state.pid:
                if port not in (None, 0, state.port):
                    raise UsageError(f"the registry listens on port {state.port}: end it with 'scripts/registry down' "
                                     f"before it can listen on port {port}")
                return state
            self._start(choose_port(port, state.port, DEFAULT_PORT, "registry"))
            return self.state()

    def down(self):
        """End the registry, if it runs; its data stays. Tell whether it ran.

        Raises RegistryError when it belongs to another user or does not end.
        """
        if not self.directory.is_dir():
            return False
        with self._alone():
            return held.end(self._running, "the registry", STOP_SECONDS)

    def _start(self, port):
        with self._own_files():
            durable.make_directories(self.storage)
            durable.write_file(self._settings, json.dumps({"port": port}).encode() + b"\n")
            with held.take(self._running) as mark:
                registry = LocalRegistry(self.storage, log=self.log, port=port, lasting=mark)
                try:
                    registry.start()
                except RegistryError as err:
                    if "address already in use" in str(err):
                        raise _taken(port, "registry") from None
                    raise

    @contextlib.contextmanager
    def _alone(self):
        """Keep two commands that start or end it apart; the second waits."""
        with self._own_files():
            durable.make_directories(self.directory)
            lock = open(os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o644), "wb")  # noqa: SIM115
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _own_files(self):
        try:
            yield
        except PermissionError as err:
            raise RegistryError(f"{err.filename or self.directory} belongs to another user: run this as that user, "
                                "or with sudo") from None
        except OSError as err:
            raise RegistryError(f"{err.filename or self.directory}: {err.strerror or err}") from None


def read_port(settings):
    """Return the port that a file of settings (a Path) names, None for none: the next start writes another."""
    try:
        port = json.loads(settings.read_bytes())["port"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return port if isinstance(port, int) and 0 < port < 65536 else None


def choose_port(wanted, before, usual, command):
    """Return the port of 127.0.0.1 at which something is to listen.

    Arguments:
        wanted: the one that is asked for, 0 for any free one, None for ``before``, else ``usual`` or a free one.
        before: the one that it had, None for none.
        command: of scripts/, for the error.

    Raises RegistryError when it is taken.
    """
    if wanted == 0:
        return _free_port()
    if wanted or before:
        port = wanted or before
        if not _is_free(port):
            raise _taken(port, command)
        return port
    return usual if _is_free(usual) else _free_port()


def _taken(port, command):
    return RegistryError(f"port {port} of 127.0.0.1 is taken by another program: end that, or choose another "
                         f"port, 'scripts/{command} up --port 0' for any free one")


def _is_free(port):
    with socket.socket() as probe:
        # As docker-registry does: connections that ended lately are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except PermissionError:
            raise RegistryError(f"port {port} is for root only: choose one above 1023") from None
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise RegistryError(f"port {port} of 127.0.0.1: {err.strerror}") from None
            return False
    return True


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def provide(build, environ=os.environ):
    """Let the commands that follow find the registry of ``build`` under its name, by COMPOSEAPPS_ENDPOINTS.

    Arguments:
        build: the directory for products.
        environ: what is changed; an endpoint that it names for that registry stays.
    """
    with contextlib.suppress(UsageError):
        if DEMO_HOST in parse_endpoints(environ.get(ENDPOINTS)):
            return
    endpoint = KeptRegistry(build).state().endpoint
    if endpoint:
        environ[ENDPOINTS] = f"{environ.get(ENDPOINTS, '')} {endpoint}".strip()


def hint(build, text, environ=os.environ):
    """Return what to do when ``text``, an error or a command line, is about a registry that does not run, or None."""
    state = KeptRegistry(build).state()
    if DEMO_HOST not in text or state.pid:
        return None
    with contextlib.suppress(UsageError):
        if parse_endpoints(environ.get(ENDPOINTS)).get(DEMO_HOST, state.url) != state.url:
            # Somebody said that it is elsewhere.
            return None
    return f"{DEMO_HOST} is the registry of this machine, which does not run: start it with 'scripts/registry up'"
