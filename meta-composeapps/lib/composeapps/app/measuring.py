# SPDX-License-Identifier: MIT
"""Measuring an app's layers in their registry: several at once, and none twice on one machine."""

import queue
import threading
import time

from composeapps.app import layers
from composeapps.sizes import human_size

# Connections to the registry. More helps little: each keeps a good part of a processor busy.
AT_ONCE = 4
# Seconds between two lines about layers that take long.
_SAY_AFTER = 5


def measure_all(wanted, client, cache, notify=lambda text: None):
    """Measure layers.

    Arguments:
        wanted: {Descriptor of a layer: the Reference of an image that has it}.
        client: a RegistryClient; what is done at once is done by twins of it.
        cache: a measured.Measured.
        notify: called with a line of text about what is being done.

    Returns ({digest: (size, usage)}, {digest: why it could not be measured}). Raises CorruptError for a layer that is
    none, NotFoundError for one that is not in the registry, RegistryError.
    """
    sizes = {layer.digest: found for layer in wanted if (found := cache.get(layer)) is not None}
    # The largest first, so that none of them is left for the end.
    rest = [layer for layer in wanted if layer.digest not in sizes]
    rest.sort(key=lambda layer: (-layer.size, layer.digest))
    reasons = {}
    if not rest:
        return sizes, reasons
    known = f"; {len(sizes)} were measured before" if sizes else ""
    total = sum(layer.size for layer in rest)
    notify(f"measuring {len(rest)} layers ({human_size(total)}){known}")
    work = _Work(rest, wanted, client, total, notify)
    for layer, found in work.results():
        if isinstance(found, str):
            reasons[layer.digest] = found
            notify(f"layer {layer.digest} of {wanted[layer]} is not measured: {found}; devices estimate what it takes")
        else:
            sizes[layer.digest] = found
            cache.put(layer, *found)
    return sizes, reasons


class _Stopped(Exception):
    """The others have failed, or there is nobody any more to measure for."""


class _Work:
    """The threads that measure, and what they have read so far."""

    def __init__(self, rest, wanted, client, total, notify):
        self._waiting, self._ended, self._stop = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
        self._count, self._wanted, self._total, self._notify = len(rest), wanted, total, notify
        self._lock, self._received, self._said = threading.Lock(), 0, time.monotonic()
        for layer in rest:
            self._waiting.put(layer)
        self._clients = [client.twin() for _ in range(min(AT_ONCE, self._count))]

    def results(self):
        """Yield (layer, (size, usage) or why it has none) as they come; raises what a thread ended with."""
        threads = [threading.Thread(target=self._measure, args=(client,), name="measure", daemon=True)
                   for client in self._clients]
        try:
            for thread in threads:
                thread.start()
            for _ in range(self._count):
                layer, found = self._ended.get()
                if isinstance(found, BaseException):
                    raise found
                yield layer, found
        finally:
            self._stop.set()
            for client in self._clients:
                client.abort()
            for thread in threads:
                if thread.ident:
                    # One that waits for its registry to be asked again need not be waited for.
                    thread.join(timeout=0.2)
            for client in self._clients:
                client.close()

    def _measure(self, client):
        layer = None
        try:
            while not self._stop.is_set():
                layer = self._waiting.get_nowait()
                ref = self._wanted[layer]
                what = f"layer {layer.digest} of {ref}"
                try:
                    found = layers.measure(self._counted(client.blob(ref, layer.digest, layer.size)), what)
                except layers.Unmeasurable as err:
                    found = str(err)
                self._ended.put((layer, found))
        except (queue.Empty, _Stopped):
            pass
        except BaseException as err:
            self._ended.put((layer, err))

    def _counted(self, chunks):
        for chunk in chunks:
            if self._stop.is_set():
                raise _Stopped
            with self._lock:
                self._received += len(chunk)
                if time.monotonic() - self._said >= _SAY_AFTER:
                    self._said = time.monotonic()
                    self._notify(f"measured {human_size(self._received)} of {human_size(self._total)}")
            yield chunk
