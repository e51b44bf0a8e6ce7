# SPDX-License-Identifier: MIT
"""Who is told of an update's steps: the callback program, which may put some off, the history, the factory."""

import time

from composeapps.errors import UnfinishedError
from composeapps.records import history, journal, reports
from composeapps.update import callback


class Telling:
    """Tells of updates on the device that has ``parts``. Each method's ``entry`` is the update's Journal."""

    def __init__(self, parts):
        self._parts = parts

    def call(self, entry, message, result="", reason=""):
        """Run the callback program; return the sentence by which it puts the step off, "" to go on."""
        return callback.call(self._parts.config, message, result, app=entry.app, source=entry.source,
                             target=entry.target, reason=reason, notify=self._parts.notify,
                             attempt=entry.attempt or None)

    def ask(self, entry, message):
        """Run the callback program before a step that it may put off; raises UnfinishedError when it does."""
        put_off = self.call(entry, message)
        if put_off:
            raise UnfinishedError(f"{entry.app}: {put_off}; the next 'composeapps update' asks again")

    def note(self, entry, result, reason="", code=None):
        """Write into the history what came of it; ``code`` is the exit status of an error.

        A version that went back through no fault of its own is ``excused``.
        """
        known = {"app": entry.app, "action": entry.kind, "source": entry.source, "target": entry.target,
                 "result": result, "reason": reason, "code": code, "attempt": entry.attempt or None,
                 "started": _timestamp(entry.started),
                 "excused": True if result == "rolled-back" and not entry.counts else None}
        history.append(self._parts.states, {key: value for key, value in known.items() if value not in ("", None)},
                       self._parts.notify)

    def report(self, entry, kind, success=None, **details):
        """Have the factory told of an event, a kind that composeapps.records.reports has."""
        if self._parts.reporter is not None:
            known = {"from": entry.source, "to": entry.target, **details}
            details = {key: value for key, value in known.items() if value not in ("", None)}
            self._parts.reporter.tell_of_app(kind, reports.correlation(entry.started, entry.identifier), entry.target,
                                             success, details)

    def failed(self, entry, err):
        """Tell of an update that this run leaves before its end."""
        if not entry.begun and not isinstance(err, UnfinishedError):
            kind = (reports.DOWNLOAD_COMPLETED if entry.step == journal.FETCHING else reports.INSTALLATION_COMPLETED)
            self.report(entry, kind, False, reason=str(err))
        if entry.begun:
            self.call(entry, callback.INSTALL_POST, callback.NEEDS_COMPLETION, str(err))
            return
        self.note(entry, "deferred" if isinstance(err, UnfinishedError) else "failed", str(err), err.exit_code)
        message = callback.DOWNLOAD_POST if entry.step == journal.FETCHING else callback.INSTALL_POST
        self.call(entry, message, callback.FAILED, str(err))


def _timestamp(seconds):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
