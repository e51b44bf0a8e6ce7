# SPDX-License-Identifier: MIT
"""What the factory is to be told: events, kept in order until its server has taken them.

``<state_dir>/events.jsonl``, a record by lines with a second copy (composeapps.records.lines); it is not there while
there is nothing to tell. An event is on the disk before the step after it is done, and goes when the server has
answered, so it may be told twice, but is never lost by a cut. Of more than MOST the oldest go: a device may be
offline for months.

The form is that of device gateways in the line of aktualizr: {"id", "deviceTime", "eventType": {"id", "version"},
"event": {"correlationId", "targetName", "version", "success", "details"}}.
"""

import contextlib
import fcntl
import hashlib
import json
import os

from composeapps import durable
from composeapps.errors import StorageError
from composeapps.records import history, lines, sealed

RECORD, LOCK = "events.jsonl", "events.lock"
MOST = 300
# Bytes of an event's details; the server's own client cuts there.
LONGEST_DETAILS = 2048

METADATA = "MetadataUpdateCompleted"
INIT_STARTED, INIT_COMPLETED = "UpdateInitStarted", "UpdateInitCompleted"
DOWNLOAD_STARTED, DOWNLOAD_COMPLETED = "EcuDownloadStarted", "EcuDownloadCompleted"
INSTALLATION_STARTED, APPLIED = "EcuInstallationStarted", "EcuInstallationApplied"
INSTALLATION_COMPLETED = "EcuInstallationCompleted"
ROTATION_STARTED, ROTATION_STEP = "CertRotationStarted", "CertRotationStep"
ROTATION_COMPLETED = "CertRotationCompleted"

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def correlation(started, identifier):
    """Return the id (a ULID) of an update attempt, the same one whenever it is asked for.

    Arguments:
        started: when it was begun, in seconds since 1970.
        identifier: what tells it from every other one, a text that is random.
    """
    milliseconds = min(max(int(started * 1000), 0), 2**48 - 1)
    number = milliseconds << 80 | int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:10])
    return "".join(_CROCKFORD[number >> 5 * place & 31] for place in range(25, -1, -1))


def event(kind, correlation_id, target="", version="", success=None, details=None):
    """Return an event.

    Arguments:
        kind: one of the constants above.
        correlation_id: what belongs together has the same, of A-Z, a-z, 0-9, _ and -.
        target: the Target's name.
        version: its version, as a text.
        success: True or False, None where there is nothing to say.
        details: a text, or what JSON is made of.
    """
    told = {"correlationId": correlation_id, "targetName": target, "version": str(version)}
    if success is not None:
        told["success"] = success
    if details:
        text = details if isinstance(details, str) else json.dumps(details)
        told["details"] = text.encode(errors="replace")[:LONGEST_DETAILS].decode(errors="ignore")
    number = os.urandom(16).hex()
    # RFC 9562, version 4.
    variant = "89ab"[int(number[16], 16) % 4]
    identifier = f"{number[:8]}-{number[8:12]}-4{number[13:16]}-{variant}{number[17:20]}-{number[20:]}"
    return {"id": identifier, "deviceTime": history.timestamp(), "eventType": {"id": kind, "version": 0}, "event": told}


def append(root, *events):
    """Keep events below the state directory ``root``, in order. Raises StorageError."""
    with durable.storage_errors("keeping what the factory is to be told"), _locked(root):
        known = {_same(each) for each in lines.read(root, RECORD, _is_event).values}
        for each in events:
            # A step that was cut off is done once more, and told once.
            if _same(each) not in known:
                lines.append(root, RECORD, each, lambda found: found[-MOST:], _is_event)


def waiting(root):
    """Return the events that were not told yet, the oldest first. Takes no lock; raises nothing."""
    return lines.read(root, RECORD, _is_event).values[-MOST:]


def are_waiting(root):
    """Return whether there are any, which costs next to nothing."""
    return any(os.path.lexists(path) for path in (root / RECORD, sealed.copy_of(root, RECORD)))


def told(root, events):
    """Forget events that the server has answered. Raises StorageError."""
    gone = {each["id"] for each in events}
    with durable.storage_errors("forgetting what the factory was told"), _locked(root):
        left = [each for each in waiting(root) if each["id"] not in gone]
        if left:
            lines.replace(root, RECORD, left)
        else:
            sealed.remove(root, RECORD)


class Reporter:
    """Keeps events about one update after the other.

    Arguments:
        root: the state directory.
        notify: called with a sentence when an event cannot be kept: what it is about goes on without.
    """

    def __init__(self, root, notify):
        self._root, self._notify = root, notify
        self._subject, self._told = None, set()

    def about(self, correlation_id, target, version):
        """Have what is told of single apps from now on be about a Target, each kind once.

        How its installation ended, ``tell`` says of all apps at once.
        """
        self._subject, self._told = (correlation_id, target, str(version)), set()

    @property
    def has_failed(self):
        """Whether a step of single apps was told to have failed, before anything was installed."""
        return any(success is False for _kind, success in self._told)

    def tell(self, *args, **options):
        """Keep the event that ``event`` makes of the arguments, and note it in systemd's journal with its fields."""
        made = event(*args, **options)
        _note(made)
        try:
            append(self._root, made)
        except StorageError as err:
            self._notify(str(err))

    def tell_of_app(self, kind, correlation_id, uri, success=None, details=None):
        """Keep an event about the version ``uri`` of one app, or about the Target that it is a part of."""
        if self._subject is None:
            self.tell(kind, correlation_id, uri, "", success, details)
        elif kind != INSTALLATION_COMPLETED and (kind, success) not in self._told:
            self._told.add((kind, success))
            self.tell(kind, *self._subject, success, details)


def _note(made):
    from composeapps.records import journald

    kind, about = made["eventType"]["id"], made["event"]
    ended = {True: ": done", False: ": failed", None: ""}[about.get("success")]
    journald.send(f"{kind} {about['targetName']}{ended}", journald.WARNING if about.get("success") is False
                  else journald.INFO, COMPOSEAPPS_EVENT=kind, COMPOSEAPPS_TARGET=about["targetName"],
                  COMPOSEAPPS_VERSION=about["version"], COMPOSEAPPS_CORRELATION=about["correlationId"],
                  COMPOSEAPPS_SUCCESS=about.get("success"), COMPOSEAPPS_DETAILS=about.get("details"))


def _same(value):
    told = value["event"]
    return value["eventType"]["id"], told.get("correlationId"), told.get("targetName"), told.get("success"), told.get(
        "details")


def _is_event(value):
    return (isinstance(value.get("id"), str) and isinstance(value.get("event"), dict)
            and isinstance(value.get("eventType"), dict) and "id" in value["eventType"])


@contextlib.contextmanager
def _locked(root):
    """Hold the lock of the queue, which nobody has for long."""
    durable.make_directories(root)
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
