# SPDX-License-Identifier: MIT
"""dockerd's HTTP API on its unix socket: what the agent needs of it, no more.

The standard library and not the docker package: that one costs the device megabytes and a
start-up several times our budget. API: Docker Engine 1.41 and later.
"""

import base64
import io
import json
from urllib.parse import quote, urlencode

from composeapps.engine import unixhttp
from composeapps.errors import EngineError, LoadRefusedError, UsageError

API = "/v1.41"
# What a tar archive is made of.
_BLOCK = 512


class Engine:
    """A dockerd.

    Arguments:
        host: ``unix:///path/of/the/socket``.
        timeout: seconds dockerd may take for an answer; loading an image may take long between two.

    ``ruled_out`` and ``load_way`` are what composeapps.engine.loading has found out about this dockerd.

    Every method raises EngineError when dockerd cannot be reached or fails.
    """

    def __init__(self, host, timeout=600):
        if not host.startswith("unix://"):
            raise UsageError(f"docker_host '{host}' is not of the form unix:///PATH")
        self.host = host
        self._path = host.removeprefix("unix://")
        self._timeout = timeout
        self.ruled_out, self.load_way = set(), None

    def image(self, name):
        """Return what dockerd tells of an image, by ID or by reference, or None when it has none."""
        status, answer = self._json("GET", f"/images/{quote(name, safe=':@/')}/json")
        return None if status == 404 else answer

    def data_root(self):
        """Return dockerd's data directory, as dockerd sees it."""
        return self._json("GET", "/info")[1].get("DockerRootDir") or "/var/lib/docker"

    def images(self):
        """Return what dockerd lists of every image that has a name or is one's parent."""
        return self._json("GET", "/images/json?all=1")[1]

    def containers(self, label=None):
        """Return the containers, running or not, that have a label (``key=value``), all by default."""
        query = urlencode({"all": "1", **_labelled(label)})
        return self._json("GET", f"/containers/json?{query}")[1]

    def networks(self, label):
        """Return the networks that have a label."""
        return self._json("GET", f"/networks?{urlencode(_labelled(label))}")[1]

    def volumes(self, label):
        """Return the named volumes that have a label."""
        return self._json("GET", f"/volumes?{urlencode(_labelled(label))}")[1].get("Volumes") or []

    def stop(self, container):
        """Stop a container, giving it its own time for that; return when it is stopped or gone."""
        self._json("POST", f"/containers/{quote(container)}/stop")

    def rename(self, container, name):
        """Give a container another name; raises EngineError when that is taken."""
        self._json("POST", f"/containers/{quote(container)}/rename?{urlencode({'name': name})}")

    def network(self, identifier):
        """Return what dockerd tells of one network, with the containers on it, or None when it has none."""
        status, answer = self._json("GET", f"/networks/{quote(identifier)}")
        return None if status == 404 else answer

    def file_status(self, container, path):
        """Return {"name", "size", "mode", "mtime", "linkTarget"} of a path in a container, None when it has none.

        Works for any container, running or not, and sees its volumes, but no tmpfs in it.
        """
        status, headers, data = self._request_all("HEAD", _archive_of(container, path))
        if status == 404:
            return None
        try:
            if status >= 400:
                raise ValueError(status)
            return json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
        except (KeyError, ValueError):
            raise EngineError(f"dockerd at {self.host} does not tell of {path} in container {container[:12]}: "
                              f"HTTP {status}") from None

    def file_head(self, container, path, limit):
        """Return the first ``limit`` bytes of a regular file in a container, b"" when there is no such file."""
        import tarfile

        status, _headers, data = self._request_all("GET", _archive_of(container, path), limit + 4 * _BLOCK)
        if status != 200:
            return b""
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
                info = archive.next()
                content = archive.extractfile(info) if info is not None and info.isreg() else None
                return content.read(min(limit, info.size)) if content else b""
        except (tarfile.TarError, EOFError):
            return b""

    def remove(self, kind, name, **options):
        """Remove one thing, without force.

        Arguments:
            kind: "images", "containers", "networks" or "volumes".
            name: its ID or its name; the tag of an image takes away the image only when it is its last name.
            options: parameters of the request.

        Returns False when there is none.
        """
        query = f"?{urlencode(options)}" if options else ""
        return self._json("DELETE", f"/{kind}/{quote(name, safe=':@/')}{query}")[0] != 404

    def container(self, identifier):
        """Return what dockerd tells of one container, or None when it has none."""
        status, answer = self._json("GET", f"/containers/{quote(identifier)}/json")
        return None if status == 404 else answer

    def logs(self, identifier, count):
        """Return the last ``count`` lines that a container wrote, none where its log driver keeps nothing."""
        query = urlencode({"stdout": "1", "stderr": "1", "tail": str(count)})
        status, data = self._request("GET", f"/containers/{quote(identifier)}/logs?{query}")
        return [] if status >= 400 else _unframed(data).decode(errors="replace").splitlines()

    def load(self, manifest, blobs):
        """Load images.

        Arguments:
            manifest: the list that ``docker load`` reads as manifest.json.
            blobs: (name in the archive, size in bytes, chunks) of each file that it names. An error
                raised by the chunks ends the load and is passed on; dockerd then drops it all. The
                next one is asked for when the one before has been sent.

        Raises LoadRefusedError when dockerd answered that it could not load them.
        """
        try:
            status, _headers, data = unixhttp.exchange(
                self._path, "POST", f"{API}/images/load?quiet=1", {"Content-Type": "application/x-tar"},
                _archive(manifest, blobs), self._timeout)
        except OSError as err:
            raise self._unreachable(err) from None
        lines = data.decode(errors="replace").splitlines()
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            text = message.get("error") or (message.get("message") if status >= 300 else None)
            if text:
                raise LoadRefusedError(f"dockerd did not load the image: {text}")
        if status >= 300:
            raise LoadRefusedError(f"dockerd did not load the image: HTTP {status}")

    def _json(self, method, path):
        status, data = self._request(method, path)
        try:
            answer = json.loads(data) if data else {}
        except ValueError:
            raise EngineError(f"dockerd at {self.host} answered {method} {path} with HTTP {status}") from None
        if status >= 400 and status != 404:
            raise EngineError(f"dockerd refused {method} {path}: {answer.get('message', status)}")
        return status, answer

    def _request(self, method, path):
        status, _headers, data = self._request_all(method, path)
        return status, data

    def _request_all(self, method, path, limit=None):
        try:
            return unixhttp.exchange(self._path, method, API + path, timeout=self._timeout, limit=limit)
        except OSError as err:
            raise self._unreachable(err) from None

    def _unreachable(self, err):
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return EngineError(f"dockerd at {self.host} cannot be reached: {reason}; is docker.service running?")


def _archive_of(container, path):
    return f"/containers/{quote(container)}/archive?{urlencode({'path': path})}"


def _labelled(label):
    return {"filters": json.dumps({"label": [label]})} if label else {}


def _unframed(data):
    """Return what a container wrote, out of the frames that dockerd puts around it unless it has a terminal.

    A frame: the stream's number, three zero bytes, the length as four bytes, the content (Docker Engine API,
    "Attach to a container").
    """
    parts, at = [], 0
    while at < len(data):
        if data[at] > 2 or data[at + 1:at + 4] != b"\0\0\0":
            return data
        length = int.from_bytes(data[at + 4:at + 8], "big")
        parts.append(data[at + 8:at + 8 + length])
        at += 8 + length
    return b"".join(parts)


def _archive(manifest, blobs):
    """Yield a tar archive as dockerd's load endpoint reads it, the manifest last to need no rewinding."""
    for name, size, chunks in blobs:
        yield _header(name, size)
        yield from chunks
        yield b"\0" * (-size % _BLOCK)
    data = json.dumps(manifest).encode()
    yield _header("manifest.json", len(data)) + data + b"\0" * (-len(data) % _BLOCK)
    yield b"\0" * (2 * _BLOCK)


def _header(name, size):
    import tarfile

    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)
