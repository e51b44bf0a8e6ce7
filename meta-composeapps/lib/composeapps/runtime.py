# SPDX-License-Identifier: MIT
"""Running installed apps with docker compose, and asking dockerd how they are."""

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from composeapps import COMPOSE_FILE, compose
from composeapps.errors import EngineError
from composeapps.install import app_directory

# The plugin also works as a program of its own; distributions put it in different places.
PLUGINS = ("/usr/libexec/docker/cli-plugins/docker-compose", "/usr/lib/docker/cli-plugins/docker-compose",
           "/usr/local/lib/docker/cli-plugins/docker-compose")
WORKING_DIR = "com.docker.compose.project.working_dir"
SERVICE = "com.docker.compose.service"


@dataclass(frozen=True)
class ServiceStatus:
    """One service of an app as dockerd sees it now.

    ``state`` is the container's (running, exited, …) or "missing"; ``health`` is healthy, unhealthy,
    starting or "" for a service without a check; ``current`` tells whether the container was made
    from the installed version's definition; ``finished`` whether it did its work and may rest: it
    ended with status 0, and its restart policy leaves it so. ``expected`` is False for a service that
    a start leaves out.
    """

    name: str
    image: str
    state: str
    health: str
    status: str
    container: str
    current: bool
    finished: bool = False
    expected: bool = True

    @property
    def good(self):
        """Whether it runs and is not unhealthy, or is finished, and is of the installed version."""
        if self.state == "missing":
            return not self.expected
        return (self.finished or self.state == "running" and self.health != "unhealthy") and self.current


def compose_command(config):
    """Return the argument list that starts docker compose; raises EngineError when there is none."""
    if config.compose_command:
        return list(config.compose_command)
    if found := shutil.which("docker-compose"):
        return [found]
    for plugin in PLUGINS:
        if Path(plugin).exists():
            return [plugin]
    raise EngineError("docker compose is not installed: install it, or set compose_command in the configuration")


def start(app, state, states, config):
    """Start an installed app's services, or bring them to the installed version; return when they started.

    Raises EngineError with compose's own last words.
    """
    name = app.ref.app_name
    _compose(app.ref, state, states, config, "up", "--detach", "--remove-orphans", "--no-build", "--quiet-pull")
    if state.stopped:
        states.put(name, replace(state, stopped=False))


def stop(app, state, states, config):
    """Stop an app's services and remember that it should stay stopped."""
    # First the wish, then the deed: after a power cut in between, the app stays stopped.
    if not state.stopped:
        states.put(app.ref.app_name, replace(state, stopped=True))
    _compose(app.ref, state, states, config, "stop")


def _compose(ref, state, states, config, *arguments):
    directory = app_directory(config, ref)
    override = states.write_override(ref.app_name, state.images)
    argv = [
        *compose_command(config), "--ansi", "never", "--progress", "plain", "--project-directory", str(directory),
        "--file", str(directory / COMPOSE_FILE), "--file", str(override), *arguments,
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
    environment["DOCKER_HOST"] = config.docker_host
    try:
        done = subprocess.run(argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    except OSError as err:
        raise EngineError(f"app {ref.app_name}: {argv[0]} cannot be run in {directory}: {err.strerror}") from None
    if done.returncode:
        words = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        tail = "; ".join(words[-3:]) or f"exit status {done.returncode}"
        raise EngineError(f"app {ref.app_name}: docker compose {arguments[0]} failed: {tail}")


def status(app, engine, config):
    """Return the ServiceStatus of each of an app's services, in the compose file's order."""
    return service_states(app.ref, compose.services(app.compose, f"app {app.ref}"), engine, config)


def service_states(ref, services, engine, config):
    """Return the ServiceStatus of each of the compose.Services of the app ``ref``; raises EngineError."""
    directory = app_directory(config, ref)
    containers = {}
    for listed in engine.containers(f"{WORKING_DIR}={directory}"):
        # The list lags behind a container's own state for a moment after each change.
        container = engine.container(listed["Id"])
        if container is not None:
            labels = container["Config"].get("Labels") or {}
            containers.setdefault(labels.get(SERVICE), []).append((container, labels, listed.get("Status") or ""))
    result = []
    for service in services:
        # Several replicas: the one in the worst state speaks for the service.
        found = sorted(containers.get(service.name, []), key=lambda each: each[0]["State"]["Status"] == "running")
        if not found:
            result.append(ServiceStatus(service.name, service.image, "missing", "", "", "", False,
                                        expected=service.expected))
            continue
        container, labels, text = found[0]
        state = container["State"]
        health = (state.get("Health") or {}).get("Status") or ""
        current = labels.get(compose.CONFIG_HASH, "") == service.config_hash
        policy = ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
        finished = state["Status"] == "exited" and state.get("ExitCode") == 0 and policy in ("no", "on-failure")
        result.append(ServiceStatus(service.name, service.image, state["Status"], "" if health == "none" else health,
                                    text, container["Id"][:12], current, finished, service.expected))
    return result
