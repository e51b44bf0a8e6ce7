# SPDX-License-Identifier: MIT
"""An app as docker compose's project: running compose on it, and finding what is its own in dockerd.

compose is given the app's compose file and an override, which names each service's image by what
dockerd knows it by, and labels each container with the fingerprint of all that its definition
refers to: so compose replaces a container when a file that it mounts has changed, too.
"""

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import time

from composeapps import COMPOSE_FILE, durable
from composeapps.app import compose, composecheck
from composeapps.engine.labels import (
    FINGERPRINT,
    NETWORK,
    NETWORK_DEFINITION,
    ONE_OFF,
    PROJECT,
    SERVICE,
    WORKING_DIR,
    label,
    number,
    project_name,
)
from composeapps.errors import EngineError
from composeapps.installed.install import app_directory

# Seconds that a compose without an agent gets to end by itself.
_PATIENCE = 10
# The first argument becomes compose's process ID, for the agent that comes after one that was killed.
_LAUNCH = 'echo $$ > "$1" && shift && exec "$@"'


def compose_command(config):
    """Return the argument list that starts docker compose; raises EngineError when there is none."""
    if config.compose_command:
        return list(config.compose_command)
    program = composecheck.find()
    if program:
        return [program]
    raise EngineError("docker compose is not installed: install it, or set compose_command in the configuration")


class Project:
    """An app's project.

    Arguments:
        app: the App; its bundle is unpacked before compose is run.
        images: {service: name of its image in dockerd}.
        states: the StateDirectory.
        config: the Config.
        engine: the Engine.
        definition: the app's switching.definition.Definition; without it containers get no fingerprint,
            which will do for what creates none.
    """

    def __init__(self, app, images, states, config, engine, definition=None):
        self.app, self.images, self.definition = app, images, definition
        self.engine = engine
        self._states, self._config = states, config
        self.directory = app_directory(config, app.ref)
        self.name = project_name(self.app_name, compose.pinned(app.compose, f"app {app.ref}").get("name"))

    @property
    def app_name(self):
        """The app's name."""
        return self.app.ref.app_name

    def containers(self):
        """Return {service: [container, …]} of the project, each as dockerd describes it, by their numbers.

        Containers of ``docker compose run`` are nobody's, and left out. Raises EngineError.
        """
        found = {}
        for listed in self.engine.containers(f"{WORKING_DIR}={self.directory}"):
            # The list lags behind a container's own state for a moment after each change.
            container = self.engine.container(listed["Id"])
            if container is not None and label(container, ONE_OFF).lower() != "true":
                found.setdefault(label(container, SERVICE), []).append(container)
        return {service: sorted(each, key=number) for service, each in found.items()}

    def network(self, key):
        """Return what dockerd lists of one of the project's networks, or None when it has none."""
        networks = self.engine.networks(f"{PROJECT}={self.name}")
        return next((each for each in networks if (each.get("Labels") or {}).get(NETWORK) == key), None)

    def network_definition(self, key):
        """Return the mark of a network's definition."""
        return hashlib.sha256(self.definition.networks.get(key, "{}").encode()).hexdigest()

    def compose(self, *arguments):
        """Run docker compose on the project; raises EngineError with its own last words.

        A compose that outlived its agent is ended before.
        """
        override = self._states.write_override(self.app_name, self._override())
        argv = [
            *compose_command(self._config), "--ansi", "never", "--progress", "plain",
            *(("--project-name", self.name) if self.name else ()), "--project-directory", str(self.directory),
            "--file", str(self.directory / COMPOSE_FILE), "--file", str(override), *arguments,
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
        environment["DOCKER_HOST"] = self._config.docker_host
        lock = self._lock_file()
        with self._alone(lock) as descriptor:
            try:
                done = subprocess.run(
                    ["/bin/sh", "-c", _LAUNCH, "sh", str(lock), *argv], cwd=self.directory, env=environment,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    errors="replace", check=False, pass_fds=[descriptor])
            except OSError as err:
                raise EngineError(f"app {self.app_name}: docker compose cannot be run in {self.directory}: "
                                  f"{err.strerror}") from None
            # It came to its end, well or not.
            os.ftruncate(descriptor, 0)
        if done.returncode:
            words = [line.strip() for line in done.stdout.splitlines() if line.strip()]
            tail = "; ".join(words[-3:]) or f"exit status {done.returncode}"
            raise EngineError(f"app {self.app_name}: docker compose {arguments[0]} failed: {tail}")

    def was_cut_off(self):
        """Tell whether the last docker compose did not come to its end, or its agent did not see that.

        dockerd may then still be at what it was asked for.
        """
        try:
            return self._lock_file().stat().st_size > 0
        except FileNotFoundError:
            return False

    def _lock_file(self):
        return self._states.root / "compose" / f"{self.app_name.file_stem}.lock"

    def _override(self):
        services, networks = {}, {}
        for service, image in self.images.items():
            services[service] = {"image": image, "pull_policy": "never"}
            if self.definition:
                mark = self.definition.fingerprint(self.definition.services[service])
                services[service]["labels"] = {FINGERPRINT: mark}
        for key in sorted(self.definition.managed_networks()) if self.definition else ():
            present = self.network(key)
            mark = (present.get("Labels") or {}).get(NETWORK_DEFINITION) if present else self.network_definition(key)
            # One that is there keeps the labels it has: a newer compose replaces a network for a label.
            if mark:
                networks[key] = {"labels": {NETWORK_DEFINITION: mark}}
        return {"services": services, **({"networks": networks} if networks else {})}

    @contextlib.contextmanager
    def _alone(self, path):
        """Hold the lock that compose inherits, so that it is held for as long as compose lives."""
        with durable.storage_errors(f"taking the lock of app {self.app_name}"):
            durable.make_directories(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            begun, sent = time.monotonic(), None
            while not _locked(descriptor):
                # Its agent was killed, and nobody reads what it says. What it leaves is tidied up anyway.
                wanted = signal.SIGTERM if time.monotonic() < begun + _PATIENCE else signal.SIGKILL
                if wanted != sent:
                    sent = wanted if _signal_holder(path, wanted) else None
                if time.monotonic() > begun + 6 * _PATIENCE:
                    raise EngineError(f"app {self.app_name}: a docker compose that was left behind does not end: "
                                      f"end the process that has {path} open")
                time.sleep(0.05)
            yield descriptor
        finally:
            os.close(descriptor)


def _locked(descriptor):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal_holder(path, number):
    """Signal the process that the lock file names if it has the file open; return whether it has."""
    try:
        process = int(path.read_text())
        entries = [os.path.join(f"/proc/{process}/fd", name) for name in os.listdir(f"/proc/{process}/fd")]
        if not any(os.path.samefile(entry, path) for entry in entries if os.path.exists(entry)):
            return False
        os.kill(process, number)
    except (OSError, ValueError):
        return False
    return True
