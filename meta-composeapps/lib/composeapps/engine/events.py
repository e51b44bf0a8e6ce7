# SPDX-License-Identifier: MIT
"""What happens to containers, told by dockerd as it happens: one request for as long as somebody watches.

Format: the Docker Engine API's ``/events``, an object of JSON a line without end. It is asked for by HTTP/1.0,
whose answer needs no taking apart.
"""

import json
import socket
import time
from urllib.parse import urlencode

from composeapps.errors import EngineError

# The longest line that is waited for, in bytes; dockerd's events have all labels of a container in them.
_LONGEST = 1024 * 1024
_PIECE = 64 * 1024


class Events:
    """A stream of events; a context manager.

    Arguments:
        engine: the Engine.
        label: ``key=value``, which the containers have.
        kinds: the events, as dockerd names them; "health_status" stands for all that begin so.
        timeout: seconds that dockerd may take to begin.

    Raises EngineError when dockerd does not give one.
    """

    def __init__(self, engine, label, kinds, timeout=60):
        self._engine, self._rest = engine, b""
        filters = json.dumps({"type": ["container"], "event": list(kinds), "label": [label]})
        # dockerd begins to answer before it listens to itself: what happens in between is in what it kept.
        query = urlencode({"since": f"{time.time():.9f}", "filters": filters})
        target = f"{engine.api}/events?{query}"
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.settimeout(timeout)
            self._connection.connect(engine.host.removeprefix("unix://"))
            self._connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while b"\r\n\r\n" not in self._rest:
                self._receive()
            head, _end, self._rest = self._rest.partition(b"\r\n\r\n")
            if not head.split(b"\r\n")[0].endswith(b" 200 OK"):
                raise self._broken(head.split(b"\r\n")[0].decode(errors="replace"))
        except OSError as err:
            self._connection.close()
            raise self._broken(err.strerror or "it is silent") from None
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._connection.close()

    def wait(self, seconds):
        """Return the events (mappings) that come within some seconds, as soon as there are any; raises EngineError."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                self._receive()
            except TimeoutError:
                return []
        *lines, self._rest = self._rest.split(b"\n")
        try:
            events = [json.loads(line) for line in lines if line.strip()]
        except (ValueError, RecursionError):
            events = [None]
        if not all(isinstance(event, dict) for event in events):
            raise self._broken("what it says is no JSON of events")
        return events

    def _receive(self):
        try:
            piece = self._connection.recv(_PIECE)
        except TimeoutError:
            raise
        except OSError as err:
            raise self._broken(err.strerror) from None
        if not piece or len(self._rest) > _LONGEST:
            raise self._broken("it ended")
        self._rest += piece

    def _broken(self, why):
        return EngineError(f"dockerd at {self._engine.host} does not tell any more what happens: {why}")
