# SPDX-License-Identifier: MIT
"""What belongs to the user while the agent works: files in mounted directories, an older app's directory, records."""

import json
import os
import time

from composeapps import durable
from composeapps.records import history, journal, rejection, sealed
from composeapps.records.state import AppState, StateDirectory
from crash import trees
from crash.contents import BUSYBOX
from crash.errors import CrashError
from crash.workloads.agent import UpdateApp, store_problems, versions_of
from crash.workloads.base import Workload, expect, sync

APP = "app0"
_SECONDS = 60
# Replaces a file by rename again and again, as a database or an editor does.
_WRITER = (f"n=0; while :; do n=$((n + 1)); echo $n whole > /data/new && /{BUSYBOX} sync /data/new && "
           f"/{BUSYBOX} mv /data/new /data/state; /{BUSYBOX} usleep 30000; done")


def _service(script, *more):
    command = json.dumps([f"/{BUSYBOX}", "sh", "-c", script.replace("$", "$$")])
    return ("network_mode: none", "stop_signal: SIGKILL", f"command: {command}", *more)


def _fill(directory, draw):
    """Write a user's files into a directory, durably; return what ``trees.sums`` says of it."""
    for name in ("rows", "deep/er/rows", "conf"):
        durable.make_directories((directory / name).parent)
        durable.write_file(directory / name, draw.randbytes(draw.randrange(1, 60_000)))
    return trees.sums(directory)


def _differences(where, directory, wanted):
    """Return a sentence for each file of the user's that is not as it was."""
    found = trees.sums(directory) if directory.is_dir() else {}
    return [f"{where}: the user's file {path} {'has other content' if path in found else 'is gone'}"
            for path, digest in wanted.items() if found.get(path) != digest]


class UserData(UpdateApp):
    """Updates and a rollback of an app whose service replaces a file by rename in its mounted directory."""

    name = "userdata-update"
    size = {"count": 1, "versions": 3, "small": 8, "large": 0, "image_each": True, "services": [
        _service(f": {version}; {_WRITER}", 'volumes: ["./data:/data"]') for version in (1, 2, 3)]}

    def _data(self, place):
        return place.layout.compose_root / APP / "data"

    def fill_daemon(self, place):
        place.world.user_files.update(_fill(self._data(place), place.draw("user")))
        super().fill_daemon(place)
        deadline = time.monotonic() + _SECONDS
        while not (self._data(place) / "state").exists():
            if time.monotonic() > deadline:
                raise CrashError("the service does not write into its mounted directory")
            # Only the file itself tells of it.
            time.sleep(0.05)
        sync(place.layout.root)

    def record(self, place):
        _first, second, third = versions_of(place)
        place.agent("update", "--soak", "0", second)
        place.agent("rollback", "--soak", "0", APP)
        place.agent("update", "--soak", "0", third)

    def oracle(self, place):
        problems = store_problems(place) + _differences("its directory", self._data(place), place.world.user_files)
        try:
            said = (self._data(place) / "state").read_text()
        except OSError as err:
            return [*problems, f"the file that the service replaces is gone: {err.strerror}"]
        return problems if said.endswith(" whole\n") else [*problems,
                                                           f"the service's file is neither old nor new: {said!a}"]

    def finish(self, place):
        return super().finish(place) + self.oracle(place)


class FirstUpdate(Workload):
    """A first update that fails, where an older app's directory lies: what was there comes back."""

    name = "userdata-first"
    size = {"count": 1, "small": 6, "large": 0, "versions": 1, "services": [
        _service("exit 3", 'volumes: ["./data:/data", "./conf:/conf:ro"]')]}

    def _directory(self, place):
        return place.layout.compose_root / APP

    def prepare(self, place):
        super().prepare(place)
        old, draw = self._directory(place), place.draw("old")
        durable.make_directories(old)
        for name in ("docker-compose.yml", "conf/part0.txt", "conf/own.txt", "data/db/rows", "data/seed", "notes"):
            durable.make_directories((old / name).parent)
            durable.write_file(old / name, b"services: {}\n" if name.endswith(".yml")
                               else draw.randbytes(draw.randrange(1, 60_000)))
        place.world.user_files.update(trees.sums(old))
        sync(place.layout.root)

    def record(self, place):
        status, _out, err = place.agent("update", "--soak", "2", *versions_of(place), check=False)
        if status != 14:
            raise CrashError(f"a first update that cannot be well ended with status {status}: {err[-600:]}")

    def oracle(self, place):
        """Wherever each file lies meanwhile, its content is there."""
        everywhere = set(trees.sums(place.layout.compose_root).values())
        return [f"the content of the older app's {path} is gone"
                for path, digest in place.world.user_files.items() if digest not in everywhere]

    def finish(self, place):
        # The update may not have been begun, or be at its end: then there is nothing to go on with.
        status, _out, err = place.agent("update", check=False)
        problems = [] if status in (0, 14) else [f"the next run ended with status {status}: {err[-600:]}"]
        if StateDirectory(place.layout.state).get(APP) is not None:
            problems.append("a version that was never well is installed")
        return problems + _differences("the older app", self._directory(place), place.world.user_files)


class Removal(Workload):
    """``composeapps rm`` of one of two apps that run, whose data is set aside, while the other stays as it is."""

    name = "userdata-removal"
    preloaded = 0
    size = {"count": 2, "small": 6, "large": 0, "services": [
        _service("exec /bin/busybox sleep 100000", 'volumes: ["./data:/data"]')]}

    def fill_daemon(self, place):
        super().fill_daemon(place)
        for name in ("app0", "app1"):
            found = _fill(place.layout.compose_root / name / "data", place.draw(name))
            place.world.user_files.update({f"{name}/data/{path}": digest for path, digest in found.items()})
        place.agent("run", "app0", "app1")

    def record(self, place):
        place.agent("rm", "app0")

    def oracle(self, place):
        everywhere = set(trees.sums(place.layout.compose_root).values())
        mine = {path: digest for path, digest in place.world.user_files.items() if path.startswith("app0/")}
        other = {path: digest for path, digest in place.world.user_files.items() if path.startswith("app1/")}
        return [f"the user's file {path} is gone" for path, digest in mine.items() if digest not in everywhere] + \
            _differences("the other app", place.layout.compose_root, other)

    def restock(self, place):
        from crash import contents

        contents.fill_store(place.factory, place.layout.store)

    def finish(self, place):
        status, _out, err = place.agent("rm", "app0", check=False)
        problems = [] if status in (0, 3) else [f"the removal cannot be done again: status {status}, {err[-600:]}"]
        problems += expect(place, "run", "app1") + self.oracle(place)
        if StateDirectory(place.layout.state).get("app0") is not None:
            problems.append("the removed app is still installed")
        if (place.layout.compose_root / "app0").exists():
            problems.append("the removed app's directory is still there")
        return problems


class Records(Workload):
    """All kinds of records are replaced again and again; each has a second copy, and one of both always counts."""

    name = "records"
    daemon = False
    rounds = 6
    size = {"count": 1, "small": 4, "large": 0}

    @staticmethod
    def _uri(number):
        return f"hub.demo.test/crash/app@sha256:{number:064x}"

    def _write(self, place, number):
        states, uri = StateDirectory(place.layout.state), self._uri(number)
        states.put("app", AppState(uri, {"main": f"sha256:{number:064x}"}, number % 2 == 1))
        journal.write(states, journal.new("app", uri, self._uri(number + 1), kind="update"), step=journal.FETCHING)
        rejection.reject(states, self._uri(0), f"round {number}", 3)
        history.append(states, {"app": "app", "target": uri, "result": "committed", "started": float(number)})

    def prepare(self, place):
        durable.make_directories(place.layout.state)
        self._write(place, 0)

    def record(self, place):
        for number in range(1, self.rounds):
            self._write(place, number)

    def oracle(self, place):
        return self._problems(place)

    def _problems(self, place):
        states = StateDirectory(place.layout.state)
        known, problems = {self._uri(number) for number in range(self.rounds)}, []
        state = states.get("app")
        if state is None or state.uri not in known:
            problems.append(f"the app's state is none that was written: {state}")
        begun = journal.read(states, "app")
        if begun is None or begun.source not in known:
            problems.append(f"the journal is none that was written: {begun}")
        if self._uri(0) not in rejection.failures(states):
            problems.append("the rejection is forgotten")
        if not history.entries(states, "app"):
            problems.append("the history is forgotten")
        return problems

    def finish(self, place):
        """The cut took one of both copies besides, whichever: the other counts."""
        problems, root = [], place.layout.state
        copies = sorted(path for path in (root / sealed.COPIES).rglob("*") if path.is_file())
        for lost in (copies, [root / path.relative_to(root / sealed.COPIES) for path in copies]):
            kept = {path: path.read_bytes() for path in lost if path.exists()}
            for path in kept:
                os.truncate(path, 0)
            problems += self._problems(place)
            for path, data in kept.items():
                path.write_bytes(data)
        self._write(place, 1)
        return problems + self._problems(place)


UserDataWorkloads = (UserData, FirstUpdate, Removal, Records)
