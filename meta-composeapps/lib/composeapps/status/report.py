# SPDX-License-Identifier: MIT
"""How the apps are: what runs, what an update is at, what went wrong last and what to do about it.

Takes no lock and changes nothing, so it can be asked at any time, also while an app is fetched or
switched. Each part that cannot be read, dockerd included, is reported as such and leaves the rest in
place. docs/status.schema.json describes the result, docs/agent.md explains it.
"""

import os
import time

from composeapps import beneath
from composeapps.errors import ComposeAppsError, EngineError, NotFoundError, UsageError
from composeapps.oci.digests import is_digest
from composeapps.oci.documents import parse_json
from composeapps.oci.names import AppName, from_file_stem, is_name
from composeapps.oci.reference import parse_pinned
from composeapps.records import history, lock, resetnote

SCHEMA = 1
# Seconds that dockerd may take for an answer: one that hangs must not hang this.
ENGINE_TIMEOUT = 10
# Seconds without a byte after which a download counts as standing still.
SILENCE = 5

# update_status, as balena's state report (version 3) names them.
DOWNLOADING, DOWNLOADED, APPLYING = "downloading", "downloaded", "applying changes"
DONE, ABORTED, REJECTED = "done", "aborted", "rejected"
_STEPS = {
    "fetching": DOWNLOADING, "fetched": DOWNLOADED, "installed": DOWNLOADED, "switching": APPLYING,
    "verifying": APPLYING, "rolling-back": APPLYING, "committed": DONE, "rolled-back": ABORTED,
}
# Exit status of an error -> what to do about it.
_REMEDIES = {
    4: "'composeapps pull --verify {target}' fetches what is damaged again; then run or update the app once more",
    5: "check the network and the login; 'composeapps update {target}' goes on at the byte where it stopped",
    6: "see whether docker.service runs, then 'composeapps update {target}'",
    7: "see to that file system (if it is full: 'composeapps prune'), then 'composeapps update {target}'",
    9: "wait for the other command",
    12: "free space ('composeapps prune --dry-run' tells how much it would), then 'composeapps update {target}'",
    13: "wait until the container releases its lock, or override it: 'composeapps update --force {target}'",
    14: "publish a version that works; 'composeapps update {target}' tries this one again",
    15: "publish a version that works, or 'composeapps allow {target}' and update again",
    16: "'composeapps update' goes on with it",
}
# The same of a version that the device is to blame for.
_EXCUSED = "see to what it says of the device, then 'composeapps update {target}'"
_REMEDY = "'composeapps update {target}' tries it again"


def collect(config, names=()):
    """Return the state of apps as JSON-ready data.

    Arguments:
        config: the Config.
        names: the apps' names; when empty, all that are installed, on their way, failed to be installed, or should
            run here (composeapps.installed.desired).

    Raises NotFoundError for a name of which nothing is known, and nothing else of its own.
    """
    device = _Device(config)
    known = device.names()
    for name in map(AppName, names):
        if name not in known:
            have = ", ".join(sorted(known)) or "none"
            raise NotFoundError(f"app '{name}' is neither installed nor on its way; apps: {have}")
    apps = [_app(device, name) for name in sorted(set(names) or known)]
    holder = device.holder
    return {
        "schema": SCHEMA,
        "time": history.timestamp(),
        # What should run runs: nothing less.
        "ok": all(app["ok"] for app in apps) and not device.problems,
        "at_work": {"pid": holder[0], "holder": holder[1]} if holder else None,
        "problems": device.problems,
        "factory_reset": resetnote.read(config.state_dir),
        "apps": apps,
    }


class _Device:
    """What is read once for all apps. What cannot be read is told in ``problems``."""

    def __init__(self, config):
        from composeapps.engine.client import Engine
        from composeapps.engine.look import Look
        from composeapps.installed import desired
        from composeapps.records import journal, preloaded, rejection
        from composeapps.records.state import StateDirectory
        from composeapps.store.store import Store

        self.config, self.problems = config, []
        self.states, self.store = StateDirectory(config.state_dir), Store(config.store)
        self.look, self._engine_failed = Look(Engine(config.docker_host, timeout=ENGINE_TIMEOUT)), False
        # Asked twice: an update that begins or ends meanwhile must not look like one that nobody goes on with.
        before = self._holder()
        self.files = {kind: self._files(kind) for kind in ("apps", "updates", "progress")}
        if self.files["apps"]:
            self.look.ahead(self.look.containers, self.look.ended)
        self.journals = {each.app: each for each in journal.pending(self.states)}
        self.holder = self._holder() or before
        self.downloads, self.unreadable = {}, {}
        for name, path in self.files["progress"].items():
            self._read_progress(name, path)
        for name, path in self.files["updates"].items():
            # Still there: else it came to its end since it was listed.
            if journal.find(self.states, name).lost and path.exists():
                self.unreadable[name] = f"the journal of its update, {path}, cannot be read"
        self.failures = rejection.failures(self.states)
        found = rejection.find(self.states)
        if found.problem:
            more = "what the history tells of failures counts" if found.lost else "the next update makes it anew"
            self.problems.append(f"the list of failed versions: {found.problem}; {more}")
        found = preloaded.find(self.states)
        if found.problem:
            self.problems.append(f"the list of preloaded versions: {found.problem}")
        entries, problem = history.read(self.states)
        if problem:
            self.problems.append(problem)
        self.last = {entry["app"]: entry for entry in entries if entry.get("result") != history.REPAIRED}
        # The image's apps that are not here yet, and what a lost state directory leaves behind.
        self.awaited, errors = desired.awaited(self)
        self.problems += [str(err) for err in errors]

    def _holder(self):
        """Return (process, words) of who changes apps, else of who downloads, else None."""
        return lock.holder(self.states.lock_file) or lock.holder(self.states.download_lock_file)

    def names(self):
        """Return the names of the apps that there is something to tell of."""
        failed = {name for name, entry in self.last.items()
                  if is_name(name) and entry.get("result") not in history.GOOD}
        return {*self.files["apps"], *self.journals, *self.unreadable, *self.downloads, *failed, *self.awaited}

    def states_of(self, ref, services):
        """Return the ServiceStatus of each of the app's compose.Services, or None when dockerd does not tell."""
        from composeapps.switching import runtime

        if self._engine_failed or not services:
            return None
        try:
            return runtime.service_states(ref, services, self.look, self.config)
        except EngineError as err:
            self._engine_failed = True
            if str(err) not in self.problems:
                self.problems.append(str(err))
            return None

    def _files(self, kind):
        """Return {app's name: path} of the files of a kind."""
        try:
            with os.scandir(self.states.root / kind) as found:
                stems = [entry.name.removesuffix(".json") for entry in found if entry.name.endswith(".json")]
                return {name: self.states.root / kind / f"{name.file_stem}.json"
                        for name in map(from_file_stem, stems) if name}
        except FileNotFoundError:
            return {}
        except OSError as err:
            self.problems.append(f"{err.filename} cannot be read: {err.strerror}")
            return {}

    def _read_progress(self, name, path):
        """Take note of a download that is under way."""
        from composeapps.pull import progress

        value = progress.read_snapshot(self.config.state_dir, name)
        try:
            if value is None:
                # Nobody is at it any more, unless nobody can read it.
                parse_json(beneath.read_regular(path), str(path))
                return
            blobs = {str(blob["digest"]): (int(blob["received"]), int(blob["size"])) for blob in value["blobs"]}
            blobs = {digest: (self._received(digest, *counts), counts[1]) for digest, counts in blobs.items()}
            silent = time.time() - float(value["updated"]) > SILENCE
            self.downloads[name] = {
                "uri": str(value["uri"]), "bytes": sum(received for received, _size in blobs.values()),
                "of": sum(size for _received, size in blobs.values()), "rate": 0 if silent else int(value["rate"]),
                "blobs": blobs}
        except FileNotFoundError:
            return
        except (OSError, ComposeAppsError, ValueError, TypeError, KeyError, OverflowError):
            self.problems.append(f"{path} cannot be read: the progress of app {name} is not known")

    def _received(self, digest, told, size):
        """Return how much of a blob is here: the snapshot is written now and then, and not when nothing arrives."""
        from composeapps.store import partial

        return max(0, min(size, max(told, partial.received(self.store, digest))))


def _app(device, name):
    """Return one app's part of the state."""
    record, journal = device.states.find(name), device.journals.get(name)
    state = record.value
    download = device.downloads.get(name)
    problems = []
    if record.lost:
        problems.append(_problem(f"its state cannot be read: {record.problem}",
                                 f"'composeapps run {name}' finds it from what is unpacked and runs"))
    elif record.problem:
        problems.append(_problem(f"its state: {record.problem}", f"'composeapps run {name}' makes it anew"))
    if name in device.unreadable:
        problems.append(_problem(device.unreadable[name], "'composeapps update' sets it aside"))
    uri = state.uri if state else ""
    target = journal.target if journal else download["uri"] if download else ""
    begun = journal is not None and journal.begun
    services = _services(device, state, target if target != uri else "", begun, download, problems)
    rejected = _rejected(device, uri, journal)
    error = _last_error(device, name, journal)
    left = journal is not None and not journal.waits and device.holder is None
    if left and (error is None or error["uri"] != journal.target):
        problems.append(_problem(f"its {journal.kind} to {journal.target} is unfinished, and nobody goes on with it",
                                 "'composeapps update' does"))
    awaited = device.awaited.get(name)
    if awaited and not left:
        remedy = "wait for the command that is at work" if device.holder else awaited.remedy
        remedy = "'composeapps update start' does" if journal and journal.waits else remedy
        problems.append(_problem(awaited.text, remedy))
    status = _update_status(journal, download, error, rejected, state is not None and name not in device.unreadable)
    if status == ABORTED and error is None and awaited and awaited.uri:
        status = DOWNLOADED
    stopped = bool(state and state.stopped)
    for service in services:
        if not service["ok"] and not stopped and service["state"] != "unknown":
            problems.append(_service_problem(name, service))
    # What is only fetched, and nothing says that it should run, need not.
    well = all(service["ok"] or stopped for service in services) and (state is not None or download is not None)
    return {
        "name": name, "uri": uri, "digest": _digest(uri), "previous": state.previous if state else "",
        "stopped": stopped, "ok": well and not problems and error is None, "update_status": status,
        "update": _update(journal), "download": _download(download), "rejected": rejected, "last_error": error,
        "problems": problems, "services": services,
    }


def _problem(text, remedy):
    return {"text": text, "remedy": remedy}


def _digest(uri):
    digest = uri.rpartition("@")[2]
    return digest if is_digest(digest) else ""


def _update_status(journal, download, error, rejected, known):
    if journal is not None:
        return _STEPS[journal.step]
    if download is not None:
        return DOWNLOADING
    if error is None:
        return DONE if known else ABORTED
    return REJECTED if any(each["uri"] == error["uri"] for each in rejected) else ABORTED


def _update(journal):
    if journal is None:
        return None
    return {"action": journal.kind, "source": journal.source, "target": journal.target,
            "digest": _digest(journal.target), "step": journal.step, "attempt": journal.attempt,
            "started": history.timestamp(journal.started), "reason": journal.reason}


def _download(download):
    if download is None:
        return None
    return {"uri": download["uri"], "bytes": download["bytes"], "of": download["of"],
            "percent": _percent(download["bytes"], download["of"]), "rate": download["rate"]}


def _percent(part, whole):
    return 100 if whole <= 0 else max(0, min(100, part * 100 // whole))


def _rejected(device, uri, journal):
    """Return the versions of an app that are rejected, the last one last."""
    try:
        repositories = {parse_pinned(each).repository for each in (uri, journal.target if journal else "") if each}
    except UsageError:
        return []
    return [{"uri": each.uri, "failures": each.count, "reason": each.reason, "time": history.timestamp(each.time)}
            for each in device.failures.values()
            if each.count >= device.config.max_failures and each.uri.partition("@")[0] in repositories]


def _last_error(device, name, journal):
    """Return why the app's last update did not succeed, or None when it did."""
    entry = device.last.get(name, {})
    if journal is not None and journal.reason:
        entry = {"result": "unfinished", "reason": journal.reason, "target": journal.target, "code": 16,
                 "time": history.timestamp(journal.started)}
    if entry.get("action") == "recovery" and entry.get("result") == "committed":
        entry = {**entry, "result": "rolled-back", "code": 14, "target": entry.get("source")}
    if entry.get("result") in (None, *history.GOOD):
        return None
    target, code = str(entry.get("target") or ""), entry.get("code")
    code = code if isinstance(code, int) else 1
    remedy = _EXCUSED if entry.get("excused") is True else _REMEDIES.get(code, _REMEDY)
    remedy = remedy.format(target=target or name)
    return {"time": str(entry.get("time") or ""), "uri": target, "result": str(entry["result"]),
            "text": str(entry.get("reason") or "no reason was recorded"), "code": code, "remedy": remedy}


def _services(device, state, target, begun, download, problems):
    """Return the services of the installed version, and those of ``target``, to which an update goes, "" for none.

    ``begun`` tells whether that update may have touched services.
    """
    result = {}
    if state is not None:
        for service, status in _of_version(device, state.uri, state.images, problems):
            result[service.name] = _service(service, status)
    if not target:
        return list(result.values())
    app, updated = _arriving(device, target, download), {}
    progress = _progress(app, download) if app else {}
    # The same containers, held against the definitions of the other version.
    for service, status in _of_version(device, target, {}, None, app):
        entry = updated[service.name] = result.setdefault(service.name, {**_service(service, status), "current": False})
        entry["updated"] = bool(status and status.current)
        entry["ok"] = entry["ok"] or bool(status and status.good)
        entry["download_progress"] = progress.get(service.image)
    for name, entry in result.items():
        if updated and begun and name not in updated and entry["state"] == "missing":
            entry["ok"] = True
    return list(result.values())


def _of_version(device, uri, images, problems, app=None):
    """Return (compose.Service, ServiceStatus or None) of each service of a version, as its ``app`` or the store says.

    When the store cannot tell its services, ``problems`` is told and the names in ``images`` do.
    """
    from composeapps.app import compose
    from composeapps.store import appdir

    try:
        ref = parse_pinned(uri)
    except UsageError as err:
        if problems is not None:
            problems.append(_problem(f"its recorded version makes no sense: {err}", "update it to a version"))
        return []
    path = device.store.app_dir(ref)
    try:
        text = app.compose if app else appdir.compose_file(device.store, ref.digest, path)
        services = compose.services(text, f"app {ref}")
    except (OSError, ComposeAppsError, RecursionError) as err:
        if problems is None:
            return []
        reason = err.strerror if isinstance(err, OSError) else err
        problems.append(_problem(f"the store does not tell its services ({path}: {reason})",
                                 f"'composeapps update {uri}' fetches what is missing"))
        services = [compose.Service(str(name), "") for name in images]
    found = device.states_of(ref, services)
    return [(service, found[number] if found else None) for number, service in enumerate(services)]


def _service(service, status):
    """Return one service's part of the state; without a ServiceStatus it is not known."""
    entry = {"name": service.name, "image": service.image, "state": "unknown", "health": "", "status": "",
             "container": "", "current": None, "updated": None, "download_progress": None, "ok": False}
    if status is not None:
        # A definition that is not known cannot be held against the container's.
        known = bool(service.config_hash)
        entry.update(state=status.state, health=status.health, status=status.status, container=status.container,
                     current=status.current if known else None,
                     ok=status.good if known else status._replace(current=True).good)
    return entry


def _service_problem(name, service):
    what = "has no container" if service["state"] == "missing" else f"is {service['state']}"
    if service["health"] == "unhealthy":
        what += ", and unhealthy"
    if service["current"] is False and service["state"] != "missing":
        what += ", made from another version"
    return _problem(f"service {service['name']} {what} {service['status'] and '(' + service['status'] + ')'}".strip(),
                    f"'composeapps run {name}' starts it; its log may say more: docker logs {service['container']}"
                    if service["container"] else f"'composeapps run {name}' starts it")


def _arriving(device, target, download):
    """Return the App that is being fetched, None when nobody fetches it or its documents are not here yet."""
    if download is None or download["uri"] != target:
        return None
    from composeapps.app.tree import UNREAD
    from composeapps.installed.install import load_from_store

    try:
        return load_from_store(device.store, parse_pinned(target), reading=UNREAD)
    except (ComposeAppsError, OSError):
        return None


def _progress(app, download):
    """Return {pinned image: percent of its blobs that are here} of the App that is being fetched."""
    result = {}
    for key, image in app.images.items():
        blobs = {blob.descriptor.digest: blob.descriptor.size for blob in image.blobs()}
        here = sum(download["blobs"].get(digest, (size, size))[0] for digest, size in blobs.items())
        result[key] = _percent(here, sum(blobs.values()))
    return result
