# SPDX-License-Identifier: MIT
"""dockerd's HTTP API on its unix socket: what the agent needs of it, no more.

The standard library and not the docker package: that one costs the device megabytes and a
start-up several times our budget.

The version of the API is the newest that both sides know, which dockerd says in a header of each answer:
``NEWEST`` is old enough for every dockerd of today (Docker 29.0 takes 1.44 and later, Docker 20.10 up to 1.41),
and what is asked for here has been the same since 1.41. So the first thing is asked for in that version, and
only a dockerd that does not take it is asked which one it does.
"""

import io
import json
import time
from urllib.parse import quote, urlencode

from composeapps.engine import unixhttp
from composeapps.errors import EngineError, LoadRefusedError, UsageError

NEWEST = (1, 44)
_FIRST = f"/v{NEWEST[0]}.{NEWEST[1]}"
_BAD_REQUEST = 400
# What a tar archive is made of.
_BLOCK = 512
# Seconds between two tries of what dockerd answers with 500: of a container that is just ending it knows
# nothing for a moment.
_PAUSES = (0.1, 0.2, 0.4, 0.8)
# Seconds that dockerd may be silent where nothing else is said.
SILENCE = 600
# So many requests are made at a time.
_AT_ONCE = 8
# The part of containers' last words that is read, in bytes.
_LOGS = 256 * 1024
# The longest line of dockerd's words on a load that is read, in bytes.
_MESSAGE = 64 * 1024
# Socket -> the first part of all paths, once its dockerd has said what it takes.
_paths = {}


class Engine:
    """A dockerd.

    Arguments:
        host: ``unix:///path/of/the/socket``.
        timeout: seconds that dockerd may be silent.

    ``ruled_out`` and ``load_way`` are what composeapps.engine.loading has found out about this dockerd.

    Every method raises EngineError when dockerd cannot be reached or fails.
    """

    def __init__(self, host, timeout=SILENCE):
        if not host.startswith("unix://"):
            raise UsageError(f"docker_host '{host}' is not of the form unix:///PATH")
        self.host = host
        self._path = host.removeprefix("unix://")
        self._timeout = timeout
        self.ruled_out, self.load_way = set(), None

    @property
    def api(self):
        """The first part of all paths, with the version of the API; dockerd is asked for it if it has not said so."""
        if self._path not in _paths:
            self._learn(self._exchange("GET", "/_ping", limit=0))
        return _paths.get(self._path, _FIRST)

    def _learn(self, answer):
        if "api-version" in answer[1]:
            _paths[self._path] = f"/v{_common(answer[1]['api-version'])}"

    def image(self, name):
        """Return what dockerd tells of an image, by ID or by reference, or None when it has none."""
        status, answer = self._json("GET", f"/images/{quote(name, safe=':@/')}/json")
        return None if status == 404 else answer

    def image_id(self, name):
        """Return the ID of an image, or None when dockerd has none."""
        return (self.image(name) or {}).get("Id")

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

    def networks(self, label=None):
        """Return the networks that have a label, all by default."""
        return self._json("GET", f"/networks?{urlencode(_labelled(label))}")[1]

    def volumes(self, label):
        """Return the named volumes that have a label."""
        return self._json("GET", f"/volumes?{urlencode(_labelled(label))}")[1].get("Volumes") or []

    def stop(self, container):
        """Stop a container, giving it its own time for that; return when it is stopped or gone."""
        self._json("POST", f"/containers/{quote(container)}/stop")

    def start(self, container):
        """Start a container; one that runs is left alone."""
        if self._json("POST", f"/containers/{quote(container)}/start")[0] == 404:
            raise EngineError(f"dockerd has no container {container[:12]} any more")

    def unpause(self, container):
        """Let a paused container go on; raises EngineError for one that is not paused."""
        self._json("POST", f"/containers/{quote(container)}/unpause")

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
        import base64

        status, headers, data = self._request("HEAD", _archive_of(container, path))
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

        status, _headers, data = self._request("GET", _archive_of(container, path), limit + 4 * _BLOCK)
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

    def described_all(self, entries, inspect=()):
        """Return what dockerd tells of each of some containers that it lists, None of what is gone; see Look."""
        return each(lambda entry: self.container(entry["Id"]), entries)

    def changed(self, directory, project=""):
        """Do nothing: all is asked for each time; see Look."""

    def recently_ended(self, seconds, label=None):
        """Return the IDs of the containers, with a label, that were sent a signal, ended or were paused lately.

        Arguments:
            seconds: since when.
            label: ``key=value``, or None for all.
        """
        now = time.time()
        filters = {"type": ["container"], "event": ["kill", "die", "oom", "pause"], "label": [label] if label else []}
        query = urlencode({"since": f"{now - seconds:.9f}", "until": f"{now:.9f}", "filters": json.dumps(filters)})
        status, _headers, data = self._request("GET", f"/events?{query}")
        try:
            if status >= 400:
                raise ValueError(status)
            return frozenset(str(json.loads(line)["Actor"]["ID"]) for line in data.splitlines() if line.strip())
        except (ValueError, RecursionError, TypeError, KeyError):
            raise EngineError(f"dockerd at {self.host} does not tell what ended lately: HTTP {status}") from None

    def logs(self, identifier, count):
        """Return the last ``count`` lines that a container wrote, none where its log driver keeps nothing."""
        query = urlencode({"stdout": "1", "stderr": "1", "tail": str(count)})
        status, _headers, data = self._request("GET", f"/containers/{quote(identifier)}/logs?{query}", _LOGS)
        return [] if status >= 400 else _unframed(data).decode(errors="replace").splitlines()

    def load(self, manifest, blobs):
        """Load images.

        Arguments:
            manifest: the list that ``docker load`` reads as manifest.json.
            blobs: (name in the archive, size in bytes, chunks) of each file that it names. An error
                raised by the chunks ends the load and is passed on; dockerd then drops it all. The
                next one is asked for when the one before has been sent.

        It may take any time in which dockerd says how far it is, or takes what it is sent. Raises
        LoadRefusedError when dockerd answered that it could not load them.
        """
        said = _Progress()
        status, _headers, _data = self._exchange(
            "POST", f"{self.api}/images/load?quiet=0", {"Content-Type": "application/x-tar"},
            _archive(manifest, blobs), receive=said)
        said.end()
        text = said.error or (said.message if status >= 300 else None)
        if text or status >= 300:
            raise LoadRefusedError(f"dockerd did not load the image: {text or f'HTTP {status}'}")

    def _json(self, method, path):
        status, _headers, data = self._request(method, path)
        try:
            answer = json.loads(data) if data else {}
            message = answer.get("message", status) if status >= 400 else ""
        except (ValueError, RecursionError, AttributeError):
            raise EngineError(f"dockerd at {self.host} answered {method} {path} with HTTP {status}") from None
        if status >= 400 and status != 404:
            raise EngineError(f"dockerd refused {method} {path}: {message}")
        return status, answer

    def _request(self, method, path, limit=None):
        """Ask for something; all that is asked for in this way can be asked for again."""
        for pause in (*_PAUSES, None):
            answer = self._versioned(method, path, limit)
            if answer[0] != 500 or pause is None:
                return answer
            time.sleep(pause)

    def _versioned(self, method, path, limit):
        known = self._path in _paths
        answer = self._exchange(method, _paths.get(self._path, _FIRST) + path, limit=limit)
        if not known:
            self._learn(answer)
            # Which is what an older dockerd says to a version that it does not know.
            if answer[0] == _BAD_REQUEST and self.api != _FIRST:
                return self._exchange(method, self.api + path, limit=limit)
        return answer

    def _exchange(self, method, path, headers=None, body=None, **options):
        try:
            return unixhttp.exchange(self._path, method, path, headers, body, self._timeout, **options)
        except OSError as err:
            raise self._unreachable(err) from None

    def _unreachable(self, err):
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return EngineError(f"dockerd at {self.host} cannot be reached: {reason}; is docker.service running?")


def each(ask, values, most=_AT_ONCE):
    """Return what ``ask`` returns of each value, dockerd being asked for ``most`` at a time; raises the first error."""
    values = list(values)
    if len(values) < 2:
        return [ask(value) for value in values]
    # Which takes time to load.
    from composeapps import threads

    return threads.each(ask, values, most)


class _Progress:
    """What dockerd says while it loads: lines of JSON, of which only what went wrong counts.

    ``error`` and ``message`` are what the last line with such a key has.
    """

    def __init__(self):
        self.error = self.message = None
        self._rest = b""

    def __call__(self, piece):
        """Take the next piece of the answer."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._read(line)
        if len(self._rest) > _MESSAGE:
            self._rest = b""

    def end(self):
        """Take the last line, which need not end like one."""
        self._read(self._rest)

    def _read(self, line):
        try:
            value = json.loads(line)
            self.error, self.message = value.get("error") or self.error, value.get("message") or self.message
        except (ValueError, RecursionError, AttributeError):
            return


def _common(said):
    """Return the version of the API to be used with a dockerd that says which is its newest."""
    words = said.split(".")
    if len(words) == 2 and all(word.isascii() and word.isdigit() and len(word) < 9 for word in words):
        newest = min(NEWEST, (int(words[0]), int(words[1])))
    else:
        newest = NEWEST
    return f"{newest[0]}.{newest[1]}"


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
