# SPDX-License-Identifier: MIT
"""Making a dockerd's store for the tests, and looking at it afterwards."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import hostsetup
from support.engine import DockerDaemon
from support.images import make_image, sha256

# What dockerd itself mounts into a container's /etc is left out.
DUMP = ["/bin/busybox", "sh", "-c", "cd / && "
        "for f in $(find etc opt srv ! -name 'hos*' ! -name resolv.conf | sort); do stat -c '%n %a %u:%g %F %N' $f; "
        "[ -L $f ] || [ ! -f $f ] || md5sum $f; done; echo the-end"]
# The last line of what a container says: dockerd may write what it heard only after it has told of the end.
END = "the-end\r\n"


def layer(*entries):
    """Return a tar; an entry is (path, content or None for a directory, {TarInfo attributes})."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content, more in entries:
            info = tarfile.TarInfo(path)
            info.mode = 0o755 if content is None else 0o644
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            for name, value in more.items():
                setattr(info, name, value)
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def layers():
    """Return the tars that the images are made of, by name."""
    busybox = Path(hostsetup.TOOLS, "bin", "busybox").read_bytes()
    return {
        "base": layer(("bin", None, {}), ("bin/busybox", busybox, {"mode": 0o4755}), ("etc", None, {}),
                      ("etc/gone", b"covered later", {}), ("etc/name", b"base\n", {}), ("opt", None, {}),
                      ("opt/full", None, {}), ("opt/full/old", b"hidden", {}), ("srv", None, {"mode": 0o1777})),
        "middle": layer(("etc", None, {}), ("etc/.wh.gone", b"", {}), ("opt/full", None, {}),
                        ("opt/full/.wh..wh..opq", b"", {}), ("opt/full/new", b"seen" * 2000, {"uid": 7, "gid": 8}),
                        ("etc/link", b"", {"type": tarfile.SYMTYPE, "linkname": "name"}),
                        ("etc/" + "long" * 40, b"x" * 5000, {})),
        "top-one": layer(("etc", None, {}), ("etc/one", b"one\n" * 500, {}),
                         ("etc/same", b"", {"type": tarfile.LNKTYPE, "linkname": "etc/one"})),
        "top-two": layer(("etc", None, {}), ("etc/two", b"two\n" * 500, {"mode": 0o600})),
        "other": layer(("bin", None, {}), ("bin/busybox", busybox, {"mode": 0o755}), ("etc", None, {}),
                       ("etc/other", b"other\n", {}), ("opt", None, {}), ("srv", None, {})),
        "other-top": layer(("etc", None, {}), ("etc/more", b"more\n" * 100, {})),
    }


# Image -> its layers; "local" is in no restorable store.
IMAGES = {"one": ("base", "middle", "top-one"), "two": ("base", "middle", "top-two"), "local": ("other", "other-top")}
# Container -> its image.
CONTAINERS = {"app-one": "one", "app-two": "two", "app-local": "local"}


@dataclass
class Template:
    """A store as dockerd left it. ``slot`` is where it has to be used, ``saved`` the intact copy.

    ``images`` is {name: support.images.Image}, ``tags`` {name: tag}, ``dumps`` {name: what a container
    of the image sees}, ``containers`` {name: id}.
    """

    base: Path
    slot: Path
    saved: Path
    images: dict
    tags: dict
    dumps: dict = field(default_factory=dict)
    containers: dict = field(default_factory=dict)


def make_template(base, slot, saved):
    """Let a real dockerd make the store."""
    tars = layers()
    images = {name: make_image(layers=[tars[each] for each in names]) for name, names in IMAGES.items()}
    tags = {name: f"hub.demo.test/t/{name}:{image.digest[7:14]}" for name, image in images.items()}
    template = Template(base, slot, saved, images, tags)
    slot.mkdir(parents=True)
    for name in ("one", "two"):
        add_to_store(slot / "store", images[name], f"hub.demo.test/t/{name}")
    device = Device(template)
    device.start()
    for name in images:
        device.load(name)
        template.dumps[name] = device.dump(name)
    device.call("POST", "/volumes/create", {"Name": "data"})
    for name, image in CONTAINERS.items():
        script = f"echo {name} >> /srv/own; echo {name} >> /data/kept; cat /srv/own; echo the-end"
        template.containers[name] = device.create(image, ["/bin/busybox", "sh", "-c", script], name, ["data:/data"])
        device.run(template.containers[name])
    device.stop()
    (slot / "dockerd.log").unlink()
    slot.rename(saved)
    return template


def add_to_store(store, image, repository):
    """Put an image into a restorable store, as the agent lays it out."""
    blobs = store / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for digest, data in [*image.blobs.items(), (image.digest, image.content)]:
        (blobs / digest[7:]).write_bytes(data)
    version = hashlib.sha256(repository.encode()).hexdigest()
    home = store / "apps" / "app" / version / "images" / repository / image.digest[7:]
    home.mkdir(parents=True)
    (home / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": image.media_type, "digest": image.digest, "size": len(image.content)}]}))


class Device:
    """A data root at its place with its dockerd, which is down until ``start``."""

    def __init__(self, template):
        self.template = template
        self.daemon = DockerDaemon(template.base, template.slot)
        self.root, self.store = template.slot / "docker", template.slot / "store"
        self.layerdb = self.root / "image/overlay2/layerdb"

    # dockerd

    def start(self):
        """Start dockerd."""
        self.daemon.start()

    def stop(self):
        """Kill dockerd."""
        self.daemon.stop()

    def call(self, method, path, body=None):
        """Return dockerd's answer; raises AssertionError for an error."""
        status, data = self._request(method, path, json.dumps(body).encode() if body is not None else b"",
                                     "application/json")
        assert status < 400, (method, path, status, data[-2000:])
        return data

    def _request(self, method, path, data, media_type):
        import http.client

        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.daemon.socket))
        try:
            connection.request(method, "/v1.41" + path, data, {"Content-Type": media_type})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def load(self, name):
        """Load an image as the agent does."""
        image = self.template.images[name]
        config = image.document["config"]["digest"]
        packed = [each["digest"] for each in image.document["layers"]]
        manifest = json.dumps([{"Config": config[7:], "RepoTags": [self.template.tags[name]],
                                "Layers": [each[7:] for each in packed]}]).encode()
        members = [("manifest.json", manifest, {}), *((each[7:], image.blobs[each], {}) for each in (config, *packed))]
        status, data = self._request("POST", "/images/load?quiet=1", layer(*members), "application/x-tar")
        assert status == 200 and b"error" not in data, data

    def create(self, image, command, name=None, binds=()):
        """Create a container; return its id."""
        body = {"Image": self.template.tags[image], "Cmd": command, "Tty": True,
                "HostConfig": {"NetworkMode": "none", "Binds": list(binds)}}
        query = f"?name={name}" if name else ""
        return json.loads(self.call("POST", f"/containers/create{query}", body))["Id"]

    def run(self, container):
        """Start a container, wait for its end, return the last output; it must succeed."""
        before = self._said(container).count(END)
        self.call("POST", f"/containers/{container}/start")
        status = json.loads(self.call("POST", f"/containers/{container}/wait"))["StatusCode"]
        assert status == 0, self._said(container)
        deadline = time.monotonic() + 60
        while (output := self._said(container)).count(END) == before:
            assert time.monotonic() < deadline, output
            time.sleep(0.02)
        return output.replace(END, "")

    def _said(self, container):
        return self.call("GET", f"/containers/{container}/logs?stdout=1&stderr=1").decode()

    def dump(self, image):
        """Return what a new container of an image sees of its files."""
        container = self.create(image, DUMP)
        output = self.run(container)
        self.call("DELETE", f"/containers/{container}")
        return output

    # fsck

    def fsck(self, *options, store=True):
        """Run fsck as a user would; return (exit status, report)."""
        done = subprocess.run(self.command(*options, store=store), capture_output=True, text=True, check=False,
                              timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    def command(self, *options, store=True):
        """Return the argument list of an fsck."""
        home = self.store if store else self.root.parent / "no-store"
        return [sys.executable, "-m", "composeapps.cli.main", "--store", str(home), "fsck", "--data-root",
                str(self.root), "--json", *options]

    # what is in the store

    def chain(self, *names):
        """Return the chain id of the topmost of these layers."""
        tars = layers()
        current = None
        for name in names:
            diff = sha256(tars[name])
            current = diff if current is None else sha256(f"{current} {diff}".encode())
        return current[7:]

    def layer(self, *names):
        """Return the layerdb directory of the topmost of these layers."""
        return self.layerdb / "sha256" / self.chain(*names)

    def cache(self, *names):
        """Return the overlay2 directory of the topmost of these layers."""
        return self.root / "overlay2" / (self.layer(*names) / "cache-id").read_text()

    def mount(self, name):
        """Return the directory of a container's mount metadata."""
        return self.layerdb / "mounts" / self.template.containers[name]

    def writable(self, name):
        """Return the overlay2 directory of a container's writable layer."""
        return self.root / "overlay2" / (self.mount(name) / "mount-id").read_text()

    def container(self, name):
        """Return a container's directory."""
        return self.root / "containers" / self.template.containers[name]

    def config(self, name):
        """Return the path of an image's configuration."""
        identity = self.template.images[name].document["config"]["digest"][7:]
        return self.root / "image/overlay2/imagedb/content/sha256" / identity

    def volume(self):
        """Return what the containers wrote into the named volume."""
        return (self.root / "volumes/data/_data/kept").read_text()

    def kept(self):
        """Return the names of the containers that are there."""
        return {name for name, each in self.template.containers.items() if (self.root / "containers" / each).is_dir()}

    def aside(self):
        """Return the paths that were set aside, relative to the data root."""
        lost = self.root / "lost+fsck"
        return sorted(str(path.relative_to(lost)).partition("/")[2] for path in lost.rglob("*"))


def fingerprint(place, leave_out=()):
    """Return {path: (type, mode, owner, size or target or device, content's digest)} of a tree."""
    found = {}
    for directory, names, files in os.walk(place):
        relative = os.path.relpath(directory, place)
        names[:] = [name for name in names if os.path.normpath(f"{relative}/{name}") not in leave_out]
        for name in [*names, *files, "."]:
            path = os.path.join(directory, name)
            state = os.lstat(path)
            what = None
            if os.path.islink(path):
                what = os.readlink(path)
            elif os.path.isfile(path):
                what = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[os.path.normpath(f"{relative}/{name}")] = (state.st_mode, state.st_uid, state.st_gid, state.st_rdev,
                                                             what)
    return found


def remove(path):
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
