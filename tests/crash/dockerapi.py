# SPDX-License-Identifier: MIT
"""As much of dockerd's HTTP API as the harness needs, apart from the product's own client."""

import http.client
import json
from urllib.parse import quote, urlencode

from support.unixconnection import UnixConnection

API = "/v1.41"


class DockerError(Exception):
    """dockerd refused, failed or went away."""


class Docker:
    """A dockerd at the socket ``path``; every method raises DockerError."""

    def __init__(self, path, timeout=120):
        self._path, self._timeout = str(path), timeout

    def _call(self, method, path, body=None, **query):
        connection = UnixConnection(self._path, self._timeout)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        target = API + path + ("?" + urlencode(query) if query else "")
        try:
            connection.request(method, target, data, {"Content-Type": kind})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as err:
            raise DockerError(f"{method} {path}: {err or type(err).__name__}") from None
        finally:
            connection.close()
        if response.status >= 400:
            raise DockerError(f"{method} {path}: {answer.decode(errors='replace').strip()[:500]}")
        return answer

    def _json(self, method, path, body=None, **query):
        answer = self._call(method, path, body, **query)
        return json.loads(answer) if answer else None

    def images(self):
        """Return the list of images, those without a tag too."""
        return self._json("GET", "/images/json")

    def image(self, name):
        """Return what dockerd tells of an image."""
        return self._json("GET", f"/images/{quote(name, safe=':@/')}/json")

    def containers(self):
        """Return the list of containers, stopped ones too."""
        return self._json("GET", "/containers/json", all="1")

    def load(self, archive):
        """Load images from the bytes of a tar as ``docker save`` writes it."""
        answer = self._call("POST", "/images/load", archive, quiet="1")
        for line in answer.splitlines():
            message = json.loads(line)
            if message.get("error"):
                raise DockerError(f"load: {message['error']}")

    def remove_image(self, name, force=False):
        """Remove an image."""
        self._call("DELETE", f"/images/{quote(name, safe=':@/')}", force=str(int(force)))

    def prune_images(self):
        """Remove all images that no container uses."""
        self._call("POST", "/images/prune", filters=json.dumps({"dangling": ["false"]}))

    def pull(self, repository, reference):
        """Pull an image by tag or digest."""
        joined = f"{repository}@{reference}" if ":" in reference else f"{repository}:{reference}"
        answer = self._call("POST", "/images/create", fromImage=joined)
        for line in answer.splitlines():
            message = json.loads(line)
            if message.get("error"):
                raise DockerError(f"pull of {joined}: {message['error']}")

    def create_volume(self, name):
        """Make a named volume."""
        self._call("POST", "/volumes/create", {"Name": name})

    def volumes(self):
        """Return the names of the volumes that dockerd knows."""
        return sorted(each["Name"] for each in self._json("GET", "/volumes").get("Volumes") or [])

    def create(self, image, name=None, command=None, binds=()):
        """Make a container without a network; return its ID."""
        body = {"Image": image, "Tty": True, "NetworkDisabled": True,
                "HostConfig": {"NetworkMode": "none", "Binds": list(binds)}}
        if command:
            body["Cmd"] = command
        return self._json("POST", "/containers/create", body, **({"name": name} if name else {}))["Id"]

    def start(self, container):
        """Start a container."""
        self._call("POST", f"/containers/{container}/start")

    def stop(self, container):
        """Stop a container, at once."""
        self._call("POST", f"/containers/{container}/stop", t="0")

    def wait(self, container):
        """Wait for a container's end; return its exit status."""
        return self._json("POST", f"/containers/{container}/wait")["StatusCode"]

    def logs(self, container):
        """Return what a container printed, as text."""
        return self._call("GET", f"/containers/{container}/logs", stdout="1", stderr="1").decode(errors="replace")

    def remove(self, container):
        """Remove a container, running or not."""
        self._call("DELETE", f"/containers/{container}", force="1", v="0")
