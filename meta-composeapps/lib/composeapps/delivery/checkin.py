# SPDX-License-Identifier: MIT
"""One check-in: ask the factory's server what it signed, take the Target that is for this device, tell what was done.

In this order, and what fails ends it, but for reports, which wait:

1. a renewal of the certificate that was begun, or is due
2. the metadata, verified; the Target for this device is chosen
3. what waits to be told: events, states of the apps, the device's hardware and network
4. the Target is installed, in a maintenance window; outside of it, it is fetched
5. what came of it is told

One connection serves all. When the metadata is what it was and nothing waits, that is two requests, nothing is verified
anew, and nothing is written. While the server is spoken with, the lock of the apps is free. A server that hangs, or
whatever else does, is ended by a watchdog.
"""

import contextlib
import os
import sys
import threading
import time

from composeapps.delivery import clock, posting, record, renewal, window
from composeapps.delivery.gateway import Blobs, Gateway
from composeapps.delivery.memory import Memory
from composeapps.delivery.refresh import refresh
from composeapps.delivery.selection import decide
from composeapps.delivery.stored import of_device
from composeapps.delivery.trust import NothingHereError, TrustError
from composeapps.errors import ComposeAppsError, CorruptError, RegistryError, UnfinishedError
from composeapps.records import journal, reports
from composeapps.update import callback

# Seconds that the talk with the server may take, without the download of apps.
WATCHDOG = 900
CHECK_PRE, CHECK_POST = "check-for-update-pre", "check-for-update-post"


class Found:
    """What a check-in found: the ``target`` (selection.Target) to install, None for nothing, and a ``sentence``.

    ``signed`` are the names of all Targets that are signed for this device, None when nothing is known of them.
    """

    def __init__(self, sentence, target=None, signed=None):
        self.sentence, self.target, self.signed = sentence, target, signed


class CheckIn:
    """A check-in of the device that has ``parts``.

    Arguments:
        parts: the update.parts.Parts.
        now: ask at once, and install outside of a maintenance window, too.
        target: the name of a Target that is wanted, "" for the one that is newest.
        environ: where a proxy is looked up.

    A context manager, within which the ``gateway`` and ``parts.place`` are of use; raises LockedError when another
    check-in is under way.
    """

    def __init__(self, parts, now=False, target="", environ=None):
        self.parts, self.config, self.notify = parts, parts.config, parts.notify
        self._current, self._now, self._wanted = record.current(parts), now, target
        self._root = parts.states.root
        self.memory = Memory(self._root)
        self.stored = of_device(self.config, parts.states, self.notify)
        self._floor = clock.now(self.stored.signed()).timestamp()
        self.gateway = Gateway(self.config, self._floor, environ=environ)
        self._tell_state()
        self._end = contextlib.ExitStack()
        self._reporter = reports.Reporter(self._root, self.notify)

    def __enter__(self):
        self._end.enter_context(self.memory.alone())
        self._end.callback(self.memory.save)
        # Before anybody shows the certificate.
        renewal.resume(self.config.identity_dir)
        self._end.enter_context(self.gateway)
        self.parts.place = Blobs(self.gateway)
        return self

    def __exit__(self, *_error):
        self.parts.place = None
        self._end.close()

    def _tell_state(self):
        """Have all requests from now on tell which Target is installed and which apps run."""
        states = self.parts.states
        self.gateway.target = self._current.name if self._current else None
        self.gateway.apps = tuple(name for name in states.names() if (state := states.get(name)) and not state.stopped)

    def waits(self):
        """Return the sentence that says why it is not time for a check-in, "" when it is."""
        seconds = 0 if self._now or self._wanted else self.memory.wait()
        if not seconds:
            return ""
        return (f"the last {self.memory.get('failures', 1)} check-ins failed, the next one is due in {seconds:.0f} s; "
                "'composeapps update --now' asks at once")

    def look(self):
        """Ask the server, and tell it what waits; return what was Found.

        Raises RegistryError when it cannot be asked, TrustError or CorruptError for what is not believed, StorageError.
        """
        self._callback(CHECK_PRE)
        try:
            with self.parts.unlocked(), watched(WATCHDOG):
                found = self._look()
        except ComposeAppsError as err:
            self.memory.failed(getattr(err, "after", None))
            self._callback(CHECK_POST, f"{callback.FAILED}: {err}")
            raise
        self.memory.succeeded()
        self.memory["reached"] = int(time.time())
        self._callback(CHECK_POST, callback.OK, found.target.name if found.target else "")
        return found

    def _look(self):
        self._renew()
        before = self._version()
        try:
            refreshed = refresh(self.stored, self.gateway.fetch, self.notify)
        except NothingHereError:
            found = Found("the factory has nothing for this device")
        except (TrustError, CorruptError) as err:
            # What is wrong, without what changes from one check-in to the next: the time, for example.
            self._metadata(False, before, str(err), getattr(err, "rule", "") + str(err).partition(": ")[0])
            with contextlib.suppress(RegistryError):
                self.tell()
            raise
        else:
            self.memory.pop("metadata", None)
            if self._version() != before:
                self._metadata(True, before)
            target, sentence = decide(refreshed.targets, self.config, self._current, self._wanted)
            found = Found(sentence, target, {each.name for each in refreshed.targets
                                             if each.fits(self.config.hardware_id, self.config.tags)})
        self.tell(quietly=True)
        return found

    def _version(self):
        seen = self.stored.seen("targets")
        return seen.version if seen else -1

    def _metadata(self, success, before, reason="", kind=""):
        """Have the factory told of the metadata; a failure of one ``kind`` once."""
        if kind and self.memory.get("metadata") == kind:
            return
        self.memory["metadata"] = kind
        identifier = reports.correlation(time.time(), os.urandom(8).hex())
        details = {"from_version": before, "to_version": self._version(), **({"reason": reason} if reason else {})}
        name, version = (self._current.name, self._current.version) if self._current else ("", "")
        self._reporter.tell(reports.METADATA, f"meta-{identifier}", name, version, success, details)

    def _renew(self):
        now = clock.now(self.stored.signed())
        if not renewal.is_due(self.config, now):
            return
        try:
            if renewal.renew(self.config, self._floor, self._reporter, self.notify):
                self.gateway.renewed()
        except ComposeAppsError as err:
            # An identity on a disk that is full or read-only is no reason to go without updates.
            self.notify(f"the device's certificate cannot be renewed now: {err}")

    def tell(self, quietly=False):
        """Tell the server what waits and what has changed; ``quietly`` have what fails wait for the next check-in."""
        try:
            self._tell()
        except RegistryError as err:
            if not quietly:
                raise
            self.notify(f"the factory is told at the next check-in: {err}")

    def _tell(self):
        if self.memory.get("deaf"):
            return
        takes = True
        if reports.are_waiting(self._root):
            takes = posting.events(self.gateway, self._root, self.notify)
        takes = takes and posting.States(self.config, self.memory).tell(self.gateway)
        if takes:
            posting.device(self.gateway, self.memory)
        else:
            # A server of static files is not asked again before the next boot.
            self.memory["deaf"] = True

    def after(self):
        """Tell what came of an installation."""
        self._current = record.current(self.parts)
        self._tell_state()
        with self.parts.unlocked(), watched(WATCHDOG):
            self.tell(quietly=True)

    def hold(self):
        """Return the step of the journal at which an update waits for the maintenance window, "" for none."""
        allowed = self.config.window
        if self._now or allowed is None or not self.gateway.is_behind() and window.is_open(allowed):
            return ""
        return journal.FETCHED

    def _callback(self, message, result="", target=""):
        source = self._current.name if self._current else ""
        callback.call(self.config, message, result, source=source, target=target, notify=self.notify)


@contextlib.contextmanager
def watched(seconds):
    """End the process when what is in the block takes longer: what it has made durable is what the next run finds."""
    def end():
        sys.stderr.write(f"composeapps: the check-in took longer than {seconds} s, and is ended; the next one begins "
                         "anew\n")
        sys.stderr.flush()
        os._exit(UnfinishedError.exit_code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
