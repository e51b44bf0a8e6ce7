# SPDX-License-Identifier: MIT
"""A device with a real dockerd for tests of updates, and versions of apps in a real registry."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from composeapps.cli.main import main
from composeapps.engine.client import Engine
from composeapps.installed.install import bundle_problems, load_from_store
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal
from composeapps.records.state import StateDirectory
from composeapps.store.store import Store
from support.apps import make_app, push_app
from support.engine import busybox_image
from support.images import make_image, push_image, tar

SLEEP = ("/bin/busybox", "sleep", "100000")
HASH = "io.compose-spec.config-hash"
WELL = {"test": ["CMD", "/bin/busybox", "true"], "interval": "1s"}
SICK = {"test": ["CMD", "/bin/busybox", "false"], "interval": "1s", "retries": 1}


def service(content="1", command=SLEEP, **keys):
    """Return the description of a service whose image has a layer with ``content``; ``keys`` go into the compose file.

    Keys that are no word of Python's are given with "_" for "-".
    """
    return {"content": content, "command": list(command), "network_mode": "none", "stop_signal": "SIGKILL", **keys}


def shell(script):
    """Return the command that runs ``script`` in busybox's shell."""
    return ("/bin/busybox", "sh", "-c", script)


class Publisher:
    """Publishes versions of apps to a registry.

    Arguments:
        registry: a support.registries.Registry.
        factory: the first part of its repositories.
    """

    def __init__(self, registry, factory):
        self.registry, self.factory = registry, factory
        self._images = {}

    def version(self, app, services, files=None, labels=None, **top):
        """Publish a version; return its pinned reference.

        Arguments:
            app: the app's name.
            services: {name: what ``service`` returned}.
            files: {path: content} of the bundle beside its compose file.
            labels: {service: {label: value}}.
            top: further keys of the compose file.
        """
        definitions, images = {}, []
        for name, description in services.items():
            definition = dict(description)
            content = definition.pop("content")
            pinned, image = self._image(name, content)
            images.append(image)
            definition = {"image": pinned, **definition, "labels": dict((labels or {}).get(name, {}))}
            definition["labels"][HASH] = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
            definitions[name] = definition
        compose = json.dumps({"services": definitions, **top}, indent=1)
        return push_app(self.registry, f"{self.registry.host}/{self.factory}/{app}:v",
                        make_app(compose, files, images))

    def image(self, name, content):
        """Return the support.images.Image of a service that was published with ``content``."""
        return self._images[name, content][1]

    def _image(self, name, content):
        if (name, content) not in self._images:
            image = busybox_image(make_image, tar, {"content": f"{self.factory} {name} {content}"})
            reference = push_image(self.registry, f"{self.registry.host}/{self.factory}/{name}:v", image)
            self._images[name, content] = reference, image
        return self._images[name, content]


class Device:
    """A device: its directories and its configuration, around a DockerDaemon.

    Arguments:
        root: a directory below the daemon's.
        daemon: a running support.engine.DockerDaemon.
        endpoint: where the registry is, as COMPOSEAPPS_ENDPOINTS has it.
        settings: further keys of the section [composeapps].
    """

    def __init__(self, root, daemon, endpoint, **settings):
        self.root, self.daemon, self.endpoint = Path(root), daemon, endpoint
        self.root.mkdir(parents=True, exist_ok=True)
        self.store, self.states = Store(self.root / "store"), StateDirectory(self.root / "state")
        self.compose_root = self.root / "compose"
        self.engine = Engine(daemon.host)
        self.config = self.root / "config.toml"
        self.configure(**settings)

    def configure(self, more="", **settings):
        """Write the configuration; ``more`` is text at its end, of other sections."""
        values = {"soak_time": 0, "health_timeout": 60, "factory_file": f"{self.root}/factory.json",
                  "factory_store": f"{self.root}/factory",
                  "state_dir": str(self.states.root), "docker_host": self.daemon.host,
                  "compose_command": list(self.daemon.compose_command), **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        # A disk of the machine that runs the tests may be fuller than a device's should be.
        self.config.write_text(
            f'[pacman]\nreset_apps_root = "{self.store.root}"\ncompose_apps_root = "{self.compose_root}"\n'
            f"storage_watermark = 95\n[composeapps]\n" + "\n".join(lines) + f"\n{more}")

    def load_config(self):
        """Return the configuration as the agent has it."""
        from composeapps.cli import config

        return config.load(self.config)

    def argv(self, *words):
        """Return the command's arguments."""
        return ["--config", str(self.config), *words]

    def environment(self):
        """Return the environment for the agent as a process of its own."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        return {**os.environ, "COMPOSEAPPS_ENDPOINTS": self.endpoint, "PYTHONPATH": path}

    def process(self, *words, module="composeapps.cli.main", more=None, **options):
        """Start the agent as a process in a group of its own, ``more`` in its environment; return the Popen."""
        return subprocess.Popen([sys.executable, "-m", module, *self.argv(*words)], start_new_session=True, text=True,
                                env={**self.environment(), **(more or {})}, **options)

    def containers(self, app):
        """Return what dockerd tells of the containers of an app, {service: [container]}."""
        found = {}
        for listed in self.engine.containers(f"com.docker.compose.project.working_dir={self.compose_root}/{app}"):
            container = self.engine.container(listed["Id"])
            if container is not None:
                found.setdefault(container["Config"]["Labels"]["com.docker.compose.service"], []).append(container)
        return found

    def started(self, app):
        """Return {service: [(container's ID, when it was started)]}: equal as long as nothing was touched."""
        return {name: sorted((each["Id"], each["State"]["StartedAt"]) for each in containers)
                for name, containers in self.containers(app).items()}

    def installed(self, app):
        """Return the pinned reference of the installed version, None without one."""
        state = self.states.get(app)
        return state.uri if state else None

    def problems(self, app, uri, running=True):
        """Return what keeps an app from being exactly the version ``uri``, running; [] for nothing.

        Looked at are the state file, the journal, the unpacked bundle, each service's containers with their
        image and definition, and what killed writers leave.
        """
        found = []
        if self.installed(app) != uri:
            found.append(f"the state file says {self.installed(app)}")
        entry = journal.read(self.states, app)
        if entry is not None and entry.begun:
            found.append(f"a journal is left, at {entry.step}")
        loaded = load_from_store(self.store, parse_pinned(uri))
        found += bundle_problems(loaded, self.store, self.load_config())
        containers = self.containers(app)
        compose = json.loads(loaded.compose)["services"]
        for name, definition in compose.items():
            mine = containers.pop(name, [])
            if running and len(mine) != 1:
                found.append(f"service {name} has {len(mine)} containers")
            for container in mine:
                wanted = loaded.images[definition["image"]].variants[0].document.config.digest
                if container["Image"] != wanted:
                    found.append(f"service {name} runs image {container['Image']}, not {wanted}")
                if container["Config"]["Labels"].get(HASH) != definition["labels"][HASH]:
                    found.append(f"service {name} has another definition")
                if running and container["State"]["Status"] != "running":
                    found.append(f"service {name} is {container['State']['Status']}")
                number = container["Name"].rpartition("-")[2]
                if "container_name" not in definition and not number.isdecimal():
                    found.append(f"service {name} has the container {container['Name']}")
        found += [f"there are containers of {name}" for name in containers]
        found += [f"{path} is left" for pattern in (".staging-*", ".removed-*")
                  for path in self.compose_root.glob(pattern)]
        found += [f"{path} is left" for path in self.states.root.glob("**/.tmp-*")]
        return found

    def remove_containers(self):
        """Remove all containers of this device's apps."""
        for listed in self.engine.containers():
            labels = listed.get("Labels") or {}
            if labels.get("com.docker.compose.project.working_dir", "").startswith(f"{self.compose_root}/"):
                self.engine.remove("containers", listed["Id"], force="1", v="1")


def run_here(device, *words):
    """Run a command in this process, its environment being this one's; return the exit status."""
    return main(device.argv(*words))
