# SPDX-License-Identifier: MIT
"""A device, a registry and an app's directory whose commands are measured, of any size."""

import gzip
import io
import json
import os
import shutil
import tarfile

from composeapps.app import pinning
from composeapps.app.tree import StoreSource, load_app
from composeapps.oci.reference import parse_pinned
from support.apps import App, make_app, push_app
from support.engine import busybox_image
from support.images import dump, make_image, push_image, sha256, tar
from support.unixconnection import UnixConnection
from support.updating import Device, service

HOST = "hub.demo.test"


class Place:
    """A device with its own directories on a dockerd, and a factory's repositories in a registry.

    Arguments:
        root: a directory below the daemon's, which is made.
        daemon: a support.engine.DockerDaemon.
        registry: a support.registries.Registry.
        stepper: a support.steps.Stepper.
        name: what this place's apps, images and repositories have in their names.
    """

    def __init__(self, root, daemon, registry, stepper, name):
        self.root, self.registry, self.name, self._stepper = root, registry, name, stepper
        self.device = Device(root, daemon, registry.endpoint)
        self.host = registry.host
        self.app = f"{name}shop"
        self.image = busybox_image(make_image, tar, {"content": name})
        self._pushed, self._containers = {}, []

    def run(self, *words, **options):
        """Run a command to its end; return its Steps. It must succeed."""
        done = self.measure(*words, counted=False, **options)
        assert done.status == 0, (words, done.status, done.err)
        return done

    def measure(self, *words, **options):
        """Run a command; return its Steps."""
        return self._stepper.run(*self.device.argv(*words), endpoints=self.registry.endpoint, home=self.root,
                                 **options)

    def put(self, services, files=None, app=None, images=None, links=None, **top):
        """Put a version of an app into the store; return its pinned reference.

        Arguments:
            services: {name: what support.updating.service returned}; all have the same image by default.
            files: {path: content} of its bundle.
            app: its name.
            images: {service: support.images.Image} of those that have another one.
            links: {path: ("symbolic" or "hard", target)} of its bundle.
            top: further keys of the compose file.
        """
        made = self._made(services, files, images or {}, top, links)
        store = self.device.store
        for data in (made.manifest, b"{}", made.bundle, made.bundle_index, made.layers_meta):
            store.add_blob(sha256(data), [data])
        for image in (self.image, *(images or {}).values()):
            blobs = {**image.blobs, **{digest: data for digest, (_type, data) in image.manifests.items()}}
            for digest, data in {**blobs, image.digest: image.content}.items():
                store.add_blob(digest, [data])
        loaded = load_app(StoreSource(store), parse_pinned(f"{self.host}/{self.name}/{app or self.app}@{made.digest}"))
        store.add_app(loaded)
        return str(loaded.ref)

    def push(self, services, files=None, app=None, images=None, **top):
        """Push a version of an app to the registry, as ``put`` has it; return its pinned reference."""
        for image in (self.image, *(images or {}).values()):
            self.push_image(image)
        made = self._made(services, files, images or {}, top)
        return push_app(self.registry, f"{self.host}/{self.name}/{app or self.app}:v", made)

    def push_image(self, image):
        """Push an image unless it is there; return its reference by a tag."""
        name = f"{self.host}/{self.name}/base{image.digest[7:15]}:1"
        if image.digest not in self._pushed:
            self._pushed[image.digest] = push_image(self.registry, name, image)
        return name

    def _made(self, services, files, images, top, links=None):
        value = {"services": {}, **top}
        for name, given in services.items():
            definition = {key: entry for key, entry in given.items() if key != "content"}
            image = images.get(name, self.image)
            definition["image"] = f"{self.host}/{self.name}/base{image.digest[7:15]}:1@{image.digest}"
            value["services"][name] = definition
        pinning.pin(value, lambda ref: ref.digest, "the compose file")
        made = make_app(pinning.dump(value).decode(), files)
        return with_bundle(made, linked(made.bundle, links)) if links else made

    def directory(self, text=None, files=None, links=None, services=("web",)):
        """Make the directory of an app to be published; return its path.

        Arguments:
            text: of its compose file; by default one with ``services``. "IMAGE" stands for an image's name.
            files: {path: content}; links: {path: target}.
        """
        place = self.root / "source"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        text = text or "services:\n" + "".join(f"  {name}:\n    image: IMAGE\n" for name in services)
        (place / "docker-compose.yml").write_text(text.replace("IMAGE", self.push_image(self.image)))
        for path, content in (files or {}).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(content)
        for path, target in (links or {}).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, place / path)
        return place

    def create_container(self, name, image):
        """Create a container that is nobody's; ``clear`` removes it."""
        connection = UnixConnection(str(self.device.daemon.socket), 60)
        config = {"Image": image, "Cmd": ["/bin/busybox", "true"], "Labels": {"of": name},
                  "HostConfig": {"NetworkMode": "none"}}
        connection.request("POST", f"{self.device.engine.api}/containers/create?name={name}", json.dumps(config),
                           {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        self._containers.append(answer["Id"])

    def factory(self, uris):
        """Let these be the apps that the device came with."""
        apps = {parse_pinned(uri).app_name: uri for uri in uris}
        (self.root / "factory.json").write_text(json.dumps({"apps": apps}))

    def forget_store(self):
        """Empty the store, as a device has it that pulls for the first time."""
        shutil.rmtree(self.device.store.root, ignore_errors=True)

    def clear(self):
        """Remove the containers and the directories."""
        self.device.remove_containers()
        for container in self._containers:
            self.device.engine.remove("containers", container, force="1")
        shutil.rmtree(self.root)


def linked(bundle, links):
    """Return a bundle with links added: {path: ("symbolic" or "hard", target)}."""
    out = io.BytesIO(gzip.decompress(bundle))
    with tarfile.open(fileobj=out, mode="a") as archive:
        for path, (kind, target) in links.items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE if kind == "symbolic" else tarfile.LNKTYPE, target
            archive.addfile(info)
    return gzip.compress(out.getvalue(), 6, mtime=0)


def with_bundle(made, bundle):
    """Return an App with another bundle."""
    manifest = json.loads(made.manifest)
    manifest["layers"][0] |= {"digest": sha256(bundle), "size": len(bundle)}
    return App(dump(manifest), bundle, made.bundle_index, made.layers_meta)


def plain(**keys):
    """Return a service that runs for ever."""
    return service(**keys)
