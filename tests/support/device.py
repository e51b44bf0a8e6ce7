# SPDX-License-Identifier: MIT
"""A device whose store gets versions of an app made in memory, to be switched by a real dockerd."""

import functools
import itertools
import json
import subprocess

from composeapps.app import pinning
from composeapps.app.tree import StoreSource, load_app
from composeapps.cli.config import Config
from composeapps.engine.client import Engine
from composeapps.engine.labels import NUMBER, SERVICE, WORKING_DIR, label
from composeapps.installed import install
from composeapps.oci.reference import parse_pinned
from composeapps.records.state import StateDirectory
from composeapps.store.store import Store
from composeapps.switching import changes, switch
from support.apps import make_app
from support.engine import busybox_image
from support.images import make_image, sha256, tar
from support.unixconnection import UnixConnection

SLEEP = ["/bin/busybox", "sleep", "3600"]
_counter = itertools.count(1)


def shell(script):
    """Return the command of a container that runs a script of busybox's shell and then stays."""
    return ["/bin/busybox", "sh", "-c", f"{script}; exec /bin/busybox sleep 3600"]


def service(command=SLEEP, **more):
    """Return a service that needs no network and ends at once."""
    alone = {} if "networks" in more else {"network_mode": "none"}
    return {"image": "base", "command": command, "stop_signal": "SIGKILL", **alone, **more}


@functools.cache
def _image(name, runnable):
    layer = {"etc/name": name}
    return busybox_image(make_image, tar, layer) if runnable else make_image(layer)


class Device:
    """A store, an agent's directories, and an app by the name ``name``."""

    def __init__(self, root, host="unix:///nowhere", compose_command=()):
        self.name = f"app{next(_counter)}"
        self.config = Config(store=root / "store", compose_root=root / "compose", state_dir=root / "state",
                             docker_host=host, compose_command=compose_command)
        self.store, self.states = Store(self.config.store), StateDirectory(self.config.state_dir)
        self.engine = Engine(host)
        self.directory = self.config.compose_root / self.name
        self.notes, self.runs_containers = [], bool(compose_command)
        self._images = {}

    def image(self, name):
        """Return the pinned reference of an image that is in the store; each name is another image."""
        if name not in self._images:
            image = _image(name, self.runs_containers)
            for digest, data in {**image.blobs, image.digest: image.content}.items():
                self.store.add_blob(digest, [data])
            # A name with a registry's, or with Docker Hub's repository, is as it is.
            repository = name if "/" in name else f"hub.demo.test/f/{name}"
            self._images[name] = f"{repository}@{image.digest}"
        return self._images[name]

    def version(self, services, files=None, **top):
        """Put a version of the app into the store; return the App. Images go by their short names."""
        value = {"services": {name: {**each} for name, each in services.items()}, **top}
        for each in value["services"].values():
            each["image"] = self.image(each["image"]).replace("@", ":x@")
        pinning.pin(value, lambda ref: ref.digest, "the test's compose file")
        made = make_app(pinning.dump(value).decode(), files)
        for data in (made.manifest, b"{}", made.bundle, made.bundle_index, made.layers_meta):
            self.store.add_blob(sha256(data), [data])
        app = load_app(StoreSource(self.store), parse_pinned(f"hub.demo.test/f/{self.name}@{made.digest}"))
        self.store.add_app(app)
        return app

    def between(self, old, new):
        """Return the Changes."""
        return changes.between(old, new, self.store)

    def apply(self, old, new, **options):
        """Load the images of a version and switch to it."""
        images = install.load_images(new, self.store, self.engine, certain=True)
        switch.apply(old, new, images, self.between(old, new), self.states, self.engine, self.config, self.store,
                     notify=self.notes.append, **options)
        self.states.put(self.name, install.state_of(new, images, self.states.get(self.name)))

    def containers(self):
        """Return {service: [container, …]} as dockerd describes them, by their numbers."""
        found = {}
        for listed in self.engine.containers(f"{WORKING_DIR}={self.directory}"):
            container = self.engine.container(listed["Id"])
            if container is not None:
                found.setdefault(label(container, SERVICE), []).append(container)
        return {name: sorted(each, key=lambda c: label(c, NUMBER)) for name, each in found.items()}

    def runs(self):
        """Return {service: [(ID, start), …]} of the containers that run: the same later if nothing was touched."""
        return {name: [(each["Id"], each["State"]["StartedAt"]) for each in found if each["State"]["Running"]]
                for name, found in self.containers().items()}

    def only(self, name):
        """Return the one container of a service."""
        (container,) = self.containers()[name]
        return container

    def sh(self, name, script, daemon):
        """Run a script in a service's container; return what it printed."""
        argv = [daemon.base / "usr/bin/docker", "--host", daemon.host, "exec", self.only(name)["Id"],
                "/bin/busybox", "sh", "-c", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, name, config):
        """Create a container as compose does, from what dockerd told of one like it; return its ID."""
        connection = UnixConnection(self.engine.host.removeprefix("unix://"), 60)
        connection.request("POST", f"{self.engine.api}/containers/create?name={name}", json.dumps(config),
                           {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["Id"]

    def clear(self):
        """Remove the app's containers."""
        for found in self.containers().values():
            for container in found:
                self.engine.remove("containers", container["Id"], force="1")
