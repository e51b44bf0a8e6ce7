# SPDX-License-Identifier: MIT
"""Installing a Target: all its apps in one version, with one journal, one commit and one way back.

One record, ``<state_dir>/delivery/target.json`` with a copy (composeapps.records.sealed), says which Target is
installed, which was before it, and how far the installation of another one has come:

fetching     all apps are fetched and loaded, and nothing that runs is touched; it can be given up
switching    one app after the other is brought to its version, each by an update of its own
going-back   one of them failed: those that were switched are brought back, what was not there before goes
removing     the Target is installed; apps that the one before it had, and it has not, are removed

A record is on the disk before the first thing that its step does, and each step can be repeated, so the next run goes
on wherever the last one was cut off. From "switching" on that needs no network. A going back or a removal that does not
come to its end is given up for another Target, which takes over what was still to be done.
"""

import contextlib
import os
import time

from composeapps.delivery import refresh, selection, stored
from composeapps.delivery.record import (
    FETCHING,
    GOING_BACK,
    REMOVING,
    SWITCHING,
    Installed,
    Record,
    Rollout,
    current,
    find,
    installed,
    read,
    write,
)
from composeapps.errors import (
    ComposeAppsError,
    NotFoundError,
    RejectedError,
    UnfinishedError,
    UpdateLockedError,
)
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, rejection, reports
from composeapps.update import advance, process
from composeapps.update.work import Work, reachable, result

__all__ = ["allow", "install", "installed", "is_in_place", "recover", "refused", "resume", "roll_back", "waiting",
           "withdraw"]
# Targets that somebody went back from; more than a factory publishes while one is thought about.
_DECLINED = 50


def refused(parts, target):
    """Return the sentence that says why a Target does not come by itself, "" when it does."""
    if target.name in read(parts.states).declined:
        return (f"somebody went back from Target {target.name}: 'composeapps update --target {target.name}' installs "
                "it all the same")
    for uri in selection.shortlist(target, parts.config.apps).values():
        try:
            rejection.check(parts.states, uri, parts.config.max_failures)
        except RejectedError as err:
            return f"Target {target.name} is not installed: {err}"
    return ""


def is_in_place(parts, target):
    """Tell whether all apps of a Target are installed in its versions; a registry's name may differ."""
    return all(_is_at(parts, app, uri) for app, uri in selection.shortlist(target, parts.config.apps).items())


def install(parts, target, force=False, soak=None, hold="", kind=journal.UPDATE):
    """Bring the device to a Target, from where an earlier run left it.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        target: the selection.Target.
        force: override the update locks of containers.
        soak: seconds of each health gate, None for the configuration's.
        hold: the step of the apps' journals before the switch (FETCHED, INSTALLED) at which all of it is left.
        kind: journal.ROLLBACK for what a user goes back to.

    Yields (app, what came of it), a mapping as of process.update or a ComposeAppsError. When an error was yielded, the
    apps are at the versions they had, or the record says that it goes on: UnfinishedError.
    """
    wanted = _installed(parts, target)
    under_way, left = read(parts.states).rollout, None
    if under_way and under_way.target != wanted:
        if under_way.step == FETCHING:
            _drop(parts, under_way)
        else:
            unfinished = False
            for app, ended in resume(parts, force, soak):
                unfinished = unfinished or isinstance(ended, UnfinishedError)
                yield app, ended
            if unfinished:
                left = _way_out(parts, wanted) if kind == journal.UPDATE else None
                if left is None:
                    return
    record = read(parts.states)
    under_way = None if left else record.rollout
    if under_way is None:
        if record.current is None:
            # What the device was preloaded with is what it goes back to.
            record = record._replace(current=current(parts))
        before = left.source if left and left.step != REMOVING else {}
        source = {**{app: _uri(parts, app) for app in wanted.apps}, **before}
        gone = {*(record.current.apps if record.current else ()), *(left.removed if left else ()), *before}
        gone = tuple(sorted(app for app in gone.difference(wanted.apps) if _uri(parts, app)))
        under_way = Rollout(wanted, source, removed=gone, kind=kind, started=time.time(),
                            identifier=os.urandom(8).hex())
        if not gone and all(_is_at(parts, app, uri) for app, uri in wanted.apps.items()):
            write(parts, record._replace(current=wanted, previous=_before(record, wanted), rollout=None))
            for app, uri in wanted.apps.items():
                yield app, result(app, source[app], uri, process.UNCHANGED)
            return
        write(parts, record._replace(rollout=under_way))
    yield from _Installation(parts, under_way, force, soak).run(hold)


def _installed(parts, target):
    """Return the Installed that a selection.Target is on this device."""
    tag = next((tag for tag in parts.config.tags if tag in target.tags), "")
    return Installed(target.name, target.version, tag, selection.shortlist(target, parts.config.apps))


def _way_out(parts, wanted):
    """Return the Rollout that is unfinished, and is given up for the Target that is wanted; None when it is not.

    What does not go back, or an app that cannot be removed, would keep every Target away for ever, also the one that
    mends it. A dockerd that is away is no reason to give it up, nor is a container that holds its lock.
    """
    left = read(parts.states).rollout
    if left is None or not reachable(parts.engine):
        return None
    steps = {entry.step for entry in journal.pending(parts.states) if entry.app in left.target.apps}
    if left.step not in (GOING_BACK, REMOVING) and journal.ROLLING_BACK not in steps:
        return None
    parts.notify(f"Target {left.target.name} is unfinished ({left.step}), and is given up for Target {wanted.name}")
    return left


def resume(parts, force=False, soak=None, hold=None):
    """Go on with the installation of a Target that has begun to switch, to its end; yields as ``install`` does.

    One that still fetches waits for the next check-in, but where a user says by ``hold`` how far it is to come.
    """
    under_way = read(parts.states).rollout
    if under_way is None or under_way.step == FETCHING and hold is None:
        return
    parts.notify(f"going on with Target {under_way.target.name} ({under_way.step})")
    yield from _Installation(parts, under_way, force, soak).run(hold or "")


def recover(parts):
    """Make the record anew where both copies of it cannot be read: by what is installed, and what was signed."""
    found = find(parts.states)
    if not found.lost:
        return
    signed = ()
    with contextlib.suppress(ComposeAppsError):
        signed = refresh.known(stored.of_device(parts.config, parts.states, parts.notify))
    here = [target for target in signed if target.fits(parts.config.hardware_id, parts.config.tags)
            and target.apps and is_in_place(parts, target)]
    best = selection.choose(here, parts.config.hardware_id, parts.config.tags)
    write(parts, Record(best and _installed(parts, best)))
    now = f"by what is installed it is {best.name}" if best else "what is installed is none of those that were signed"
    parts.notify(f"which Target this device has is lost ({found.problem}): {now}; from which ones somebody went back "
                 "is not known any more")


def waiting(parts):
    """Return the names of apps that wait for the others of a Target, and are not to go on by themselves."""
    under_way = read(parts.states).rollout
    return [entry.app for entry in journal.pending(parts.states)
            if not entry.begun and entry.app in under_way.target.apps] if under_way else []


def withdraw(parts, signed):
    """Give up a Target that has touched nothing yet, and is not among the names of those that are ``signed`` any more.
    """
    under_way = read(parts.states).rollout
    if under_way and under_way.step == FETCHING and under_way.kind == journal.UPDATE \
            and under_way.target.name not in signed:
        parts.notify(f"the factory has taken Target {under_way.target.name} back: it is given up")
        _drop(parts, under_way)


def roll_back(parts, force=False, soak=None):
    """Go back to the Target before the installed one, which does not come again by itself; yields as ``install`` does.

    Raises NotFoundError when there is none.
    """
    record = read(parts.states)
    if record.rollout and record.rollout.step != FETCHING:
        yield from resume(parts, force, soak)
        record = read(parts.states)
    if record.previous is None or record.current is None:
        raise NotFoundError("there is no Target to go back to: name the apps to roll back, or see 'composeapps status'")
    left, back = record.current, record.previous
    declined = tuple(dict.fromkeys((*record.declined, left.name)))[-_DECLINED:]
    write(parts, record._replace(declined=declined))
    target = selection.Target(back.name, back.version, back.apps, tags=(back.tag,))
    yield from install(parts, target, force, soak, kind=journal.ROLLBACK)


def allow(parts, name):
    """Have a Target come by itself again; returns whether it did not."""
    record = read(parts.states)
    if name in record.declined:
        write(parts, record._replace(declined=tuple(each for each in record.declined if each != name)))
        return True
    return False


class _Installation:
    """One run of an installation; ``run`` yields what came of each app."""

    def __init__(self, parts, rollout, force, soak):
        self._parts, self._rollout, self._force, self._soak = parts, rollout, force, soak
        self._options = {"kind": rollout.kind, "force": force, "soak": soak}
        target = rollout.target
        self._subject = reports.correlation(rollout.started, rollout.identifier), target.name, str(target.version)
        if parts.reporter is not None:
            parts.reporter.about(*self._subject)

    def run(self, hold=""):
        if self._rollout.step == FETCHING:
            ready = yield from self._fetch(hold)
            if not ready:
                return
        if self._rollout.step == SWITCHING:
            yield from self._switch()
        if self._rollout.step == GOING_BACK:
            yield from self._go_back()
        if self._rollout.step == REMOVING:
            yield from self._remove()

    def _record(self, **changes):
        self._rollout = self._rollout._replace(**changes)
        write(self._parts, read(self._parts.states)._replace(rollout=self._rollout))

    def _waiting(self):
        return {app: uri for app, uri in self._rollout.target.apps.items() if not _is_at(self._parts, app, uri)}

    def _fetch(self, hold):
        """Fetch and load all of it; return whether the switch may begin."""
        apps, failed = self._waiting(), False
        for app, uri in apps.items():
            try:
                ended = process.update(self._parts, parse_pinned(uri), hold=hold or journal.INSTALLED, **self._options)
            except ComposeAppsError as err:
                failed = True
                yield app, err
                if isinstance(err, RejectedError):
                    self._told(False, str(err))
                    _drop(self._parts, self._rollout)
                    return False
            else:
                if hold:
                    yield app, ended
        if failed or hold:
            return False
        for app in apps:
            try:
                self._ask(app)
            except ComposeAppsError as err:
                # Nothing is touched before all of it may be.
                yield app, err
                return False
        now = read(self._parts.states).rollout
        if now is None or now.identifier != self._rollout.identifier:
            # While bytes come, others have the lock: a user may have gone back to the Target before.
            yield "", ComposeAppsError(f"another command gave Target {self._rollout.target.name} up while it was "
                                       "fetched: it is not installed")
            return False
        self._record(step=SWITCHING)
        return True

    def _ask(self, app):
        entry = journal.read(self._parts.states, app)
        if entry is not None and not entry.begun:
            advance.check_locks(Work(self._parts, entry._replace(force=self._force)))

    def _switch(self):
        for app, uri in self._rollout.target.apps.items():
            if _is_at(self._parts, app, uri) and journal.read(self._parts.states, app) is None:
                yield app, result(app, self._rollout.source.get(app, ""), uri, process.UPDATED if
                                  self._rollout.source.get(app) != uri else process.UNCHANGED)
                continue
            try:
                yield app, process.update(self._parts, parse_pinned(uri), **self._options)
            except UpdateLockedError as err:
                # A lock that was taken after all were asked: what was switched waits for the others.
                yield app, UnfinishedError(f"Target {self._rollout.target.name} is unfinished: {err}; "
                                           "'composeapps update' goes on with it")
                return
            except UnfinishedError as err:
                yield app, err
                return
            except ComposeAppsError as err:
                self._parts.notify(f"Target {self._rollout.target.name} is taken back: {err}")
                self._record(step=GOING_BACK, reason=str(err))
                yield app, err
                return
        self._commit()

    def _commit(self):
        record, target = read(self._parts.states), self._rollout.target
        self._rollout = self._rollout._replace(step=REMOVING)
        write(self._parts, record._replace(
            current=target, previous=_before(record, target), rollout=self._rollout,
            declined=tuple(name for name in record.declined if name != target.name)))
        self._parts.notify(f"Target {target.name} is installed")

    def _go_back(self):
        """Bring back what was switched, the last first; what waits to be switched is given up."""
        # Also what a Target that was given up for this one had not brought back.
        for app in reversed({**self._rollout.source, **self._rollout.target.apps}):
            source, uri = self._rollout.source.get(app, ""), self._rollout.target.apps.get(app)
            try:
                entry = journal.read(self._parts.states, app)
                if entry is not None and not entry.begun:
                    process.drop(self._parts, entry)
                elif entry is not None:
                    for _app, ended in process.resume(self._parts, {app}, begun=True):
                        if isinstance(ended, UnfinishedError):
                            raise ended
                if source and not _is_at(self._parts, app, source):
                    process.update(self._parts, parse_pinned(source), force=True, soak=0, kind=journal.ROLLBACK)
                elif not source and (_is_at(self._parts, app, uri) if uri else _uri(self._parts, app)):
                    _take_away(self._parts, [app])
            except ComposeAppsError as err:
                yield app, UnfinishedError(f"app {app} could not be brought back from Target "
                                           f"{self._rollout.target.name}: {err}; 'composeapps update' tries it again")
                return
        reason, name = self._rollout.reason, self._rollout.target.name
        record = read(self._parts.states)
        self._told(False, reason)
        write(self._parts, record._replace(rollout=None))
        now = f"Target {record.current.name} runs again" if record.current else "the apps are as they were before"
        self._parts.notify(f"Target {name} did not come: {reason}; {now}")

    def _remove(self):
        """Take away what only the Target before had."""
        for app, ended in _take_away(self._parts, [app for app in self._rollout.removed if _uri(self._parts, app)]):
            yield app, UnfinishedError(f"app {app}, which Target {self._rollout.target.name} has not, could not be "
                                       f"removed: {ended}; 'composeapps update' tries it again")
            return
        # First, or a cut between the two would have nobody tell it.
        self._told(True)
        write(self._parts, read(self._parts.states)._replace(rollout=None))

    def _told(self, success, reason=""):
        if self._parts.reporter is not None:
            self._parts.reporter.tell(reports.INSTALLATION_COMPLETED, *self._subject, success, reason)


def _take_away(parts, apps):
    """Remove apps, their volumes and their versions in the store excepted; return [(app, error)] of those that stay."""
    from composeapps.space import removal

    ended = removal.remove(apps, parts.store, parts.states, parts.config, parts.look, notify=parts.notify, keep=True)
    parts.look.forget()
    return [(app, found) for app, found in ended if isinstance(found, ComposeAppsError)
            and not isinstance(found, NotFoundError)]


def _drop(parts, rollout):
    """Give up an installation that has touched nothing."""
    for app, uri in rollout.target.apps.items():
        entry = journal.read(parts.states, app)
        if entry is not None and not entry.begun and entry.target == uri:
            process.drop(parts, entry)
    write(parts, read(parts.states)._replace(rollout=None))


def _uri(parts, app):
    state = parts.states.get(app)
    return state.uri if state else ""


def _is_at(parts, app, uri):
    """Tell whether an app is at a version: its digest is the version, whatever host it is named with."""
    have = _uri(parts, app)
    return bool(have) and have.rpartition("@")[2] == uri.rpartition("@")[2]


def _before(record, target):
    return record.previous if record.current == target else record.current
