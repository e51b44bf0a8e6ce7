# SPDX-License-Identifier: MIT
"""composeapps status: at any time, with whatever is broken, and the same JSON as its schema says."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from composeapps.app.publish import publish
from composeapps.cli.config import Config, load
from composeapps.cli.main import main
from composeapps.engine.client import Engine
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse
from composeapps.pull import pull
from composeapps.records import history, journal, rejection
from composeapps.records.state import AppState, StateDirectory
from composeapps.status import report as status
from composeapps.store.store import Store
from support.engine import DockerDaemon, busybox_image
from support.faults import FaultyProxy
from support.images import make_image, push_image, tar

TOP = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((TOP / "meta-composeapps" / "docs" / "status.schema.json").read_text())
SERVICE = """\
  {name}:
    image: {image}
    command: ["/bin/busybox", "sh", "-c", "{command}"]
    network_mode: none
    stop_signal: SIGKILL
"""
HEALTHY = """\
    healthcheck:
      test: ["CMD", "/bin/busybox", "true"]
      interval: 1s
"""
URI = "hub.demo.test/factory/web@sha256:" + "ab" * 32
NEXT = "hub.demo.test/factory/web@sha256:" + "cd" * 32


@pytest.fixture(scope="module")
def dockerd(device_root, tmp_path_factory):
    """One dockerd for the module."""
    with DockerDaemon(device_root, tmp_path_factory.mktemp("dockerd")) as daemon:
        yield daemon


class Device:
    """A device's directories, its configuration file, and what its commands say.

    ``host`` is dockerd's socket, ``command`` what starts docker compose.
    """

    def __init__(self, root, host="unix:///nonexistent/docker.sock", command=("/nonexistent/compose",), more=""):
        self.root, self.states = root, StateDirectory(root / "state")
        self.store = Store(root / "store")
        self.config = root / "config.toml"
        root.mkdir(parents=True, exist_ok=True)
        self.config.write_text(f"""
[pacman]
reset_apps_root = "{root}/store"
compose_apps_root = "{root}/compose"
[composeapps]
state_dir = "{root}/state"
docker_host = "{host}"
compose_command = {json.dumps(list(command))}
soak_time = 0
{more}
""")

    def status(self, *argv):
        """Return (exit status, the JSON), which keeps to its schema."""
        done = self.run("status", "--json", *argv)
        assert "Traceback" not in done.stderr, done.stderr
        found = json.loads(done.stdout)
        jsonschema.validate(found, SCHEMA)
        assert done.returncode == (0 if found["ok"] else 8)
        return SimpleNamespace(code=done.returncode, **found)

    def app(self, *argv):
        """Return (exit status, the only app)."""
        found = self.status(*argv)
        (app,) = found.apps
        return found.code, SimpleNamespace(**app, by_name={each["name"]: each for each in app["services"]})

    def run(self, *argv):
        """Run a command in a process of its own."""
        return subprocess.run(self.argv(*argv), capture_output=True, text=True, check=False)

    def argv(self, *argv):
        return [sys.executable, "-c", "from composeapps.cli.main import main; raise SystemExit(main())",
                "--config", str(self.config), *argv]

    @contextmanager
    def busy(self):
        """Have another process hold the agent's lock."""
        script = ("import sys; from composeapps.records import lock\n"
                  "with lock.exclusive(sys.argv[1]): print('held', flush=True); sys.stdin.read()")
        with subprocess.Popen([sys.executable, "-c", script, str(self.states.lock_file)], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == "held\n"
            yield holder.pid
            holder.stdin.close()


@pytest.fixture
def bare(tmp_path):
    """A device whose dockerd is down, with nothing on it."""
    return Device(tmp_path / "device")


@pytest.fixture
def device(dockerd, registry, client, factory_name, tmp_path_factory):
    """A device with a dockerd; its ``publish(services)`` returns the pinned reference of a version of its app."""
    device = Device(dockerd.directory / factory_name, dockerd.host, dockerd.compose_command)
    device.engine, device.name, versions = Engine(dockerd.host), f"shop{factory_name}", iter(range(100))

    def make(services, extra=b""):
        number = next(versions)
        directory = tmp_path_factory.mktemp("app")
        text = "services:\n"
        for name, (command, more) in services.items():
            files = {"name": f"{factory_name}-{name}", **({"extra": extra} if extra else {})}
            image = push_image(registry, f"{registry.host}/{factory_name}/{name}:{number}",
                               busybox_image(make_image, tar, files))
            text += SERVICE.format(name=name, image=image, command=command) + more
        (directory / "docker-compose.yml").write_text(text)
        return publish(directory, parse(f"{registry.host}/{factory_name}/{device.name}:{number}"), client).ref

    def fetch(ref):
        survey = pull.survey(ref, device.store, lambda: client, Platform.parse("linux/amd64"))
        return pull.fetch(survey, device.store, lambda: client, pull_progress())

    def run_app(ref):
        fetch(ref)
        done = device.run("run", str(ref))
        assert done.returncode == 0, done.stderr

    device.publish, device.fetch, device.run_app = make, fetch, run_app
    yield device
    main(["--config", str(device.config), "stop", "--all"])


def pull_progress():
    from composeapps.pull.progress import Progress

    return Progress()


SLEEP = "exec /bin/busybox sleep 3600"
SHOP = {"front": (SLEEP, ""), "back": (SLEEP, HEALTHY)}


def wait_for(device, service, state):
    """Have dockerd wait until a service's container is no longer running."""
    _, app = device.app()
    identifier = app.by_name[service]["container"]
    if state == "killed":
        device.engine._json("POST", f"/containers/{identifier}/kill")
    device.engine._json("POST", f"/containers/{identifier}/wait")


# A running app.


@pytest.mark.root
def test_a_running_app_is_shown_with_its_version_and_services(device):
    ref = device.publish(SHOP)
    device.run_app(ref)
    code, app = device.app()
    # Its first health check may still be under way, which is no fault.
    assert code == 0 and app.ok and app.update_status == "done"
    assert (app.name, app.uri, app.digest) == (device.name, str(ref), ref.digest)
    assert {name: (each["state"], each["current"], each["updated"]) for name, each in app.by_name.items()} == {
        "front": ("running", True, None), "back": ("running", True, None)}
    assert app.by_name["front"]["health"] == "" and app.by_name["back"]["health"] in ("starting", "healthy")
    assert all("@sha256:" in each["image"] for each in app.services)
    assert (app.update, app.download, app.last_error, app.problems, app.rejected) == (None, None, None, [], [])
    shown = device.run("status", device.name)
    assert shown.returncode == 0 and "installed" in shown.stdout and str(ref) in shown.stdout


@pytest.mark.root
def test_a_dead_service_is_a_problem_with_a_remedy_until_it_runs_again(device):
    device.run_app(device.publish(SHOP))
    wait_for(device, "front", "killed")
    code, app = device.app()
    (problem,) = app.problems
    assert code == 8 and not app.ok and app.by_name["front"]["state"] == "exited" and app.by_name["back"]["ok"]
    assert "front is exited" in problem["text"] and f"composeapps run {device.name}" in problem["remedy"]
    assert device.run("run", device.name).returncode == 0
    assert device.app()[0] == 0
    device.engine._json("DELETE", f"/containers/{app.by_name['back']['container']}?force=1")
    code, app = device.app()
    assert code == 8 and app.by_name["back"]["state"] == "missing" and "has no container" in app.problems[0]["text"]


@pytest.mark.root
def test_an_app_that_the_user_stopped_is_well(device):
    device.run_app(device.publish(SHOP))
    assert device.run("stop", device.name).returncode == 0
    code, app = device.app()
    assert code == 0 and app.stopped and {each["state"] for each in app.services} == {"exited"}


@pytest.mark.root
def test_a_service_that_did_its_work_is_well_and_one_that_failed_is_not(device):
    profile = "    profiles: [debug]\n"
    device.run_app(device.publish({"work": ("exit 0", ""), "fail": ("exit 3", ""), "tool": (SLEEP, profile)}))
    wait_for(device, "work", "ended")
    wait_for(device, "fail", "ended")
    code, app = device.app()
    assert code == 8 and app.by_name["work"]["ok"] and app.by_name["tool"]["ok"] and not app.by_name["fail"]["ok"]
    assert [problem["text"].split()[1] for problem in app.problems] == ["fail"]
    assert device.run("ps").returncode == 8


@pytest.mark.root
def test_containers_of_another_version_are_told_apart_while_an_update_switches(device):
    old = device.publish(SHOP)
    device.run_app(old)
    new = device.publish({"front": (SLEEP + " # new", ""), "back": SHOP["back"], "more": (SLEEP, "")})
    device.fetch(new)
    # What an update leaves when its device loses power after the first service.
    journal.write(device.states, journal.new(device.name, str(old), str(new)), step=journal.SWITCHING, attempt=1)
    state = device.states.get(device.name)
    assert device.run("run", str(new)).returncode in (0, 14, 16)
    device.states.put(device.name, state)
    journal.write(device.states, journal.new(device.name, str(old), str(new)), step=journal.SWITCHING, attempt=1)
    code, app = device.app()
    assert app.update_status == "applying changes" and app.update["step"] == "switching"
    assert (app.uri, app.update["target"], app.update["digest"]) == (str(old), str(new), new.digest)
    front, back, more = (app.by_name[name] for name in ("front", "back", "more"))
    assert (front["current"], front["updated"], front["ok"]) == (False, True, True)
    assert (back["current"], back["updated"]) == (True, True)
    assert (more["current"], more["updated"], more["state"]) == (False, True, "running")
    assert code == 8 and "nobody goes on with it" in app.problems[0]["text"]
    with device.busy():
        code, app = device.app()
        assert code == 0 and app.problems == []
    journal.remove(device.states, device.name)


# A download.


@pytest.mark.root
def test_during_a_download_another_process_sees_how_far_it_is(device, registry):
    old = device.publish({"front": (SLEEP, "")})
    device.run_app(old)
    ref = device.publish({"front": (SLEEP, ""), "data": (SLEEP, "")}, extra=os.urandom(2_000_000))
    with FaultyProxy(registry.url, hold_after=1_000_000) as proxy:
        environ = {**os.environ, "COMPOSEAPPS_ENDPOINTS": f"{registry.host}={proxy.url}"}
        with subprocess.Popen(device.argv("update", str(ref)), env=environ, stderr=subprocess.PIPE) as update:
            try:
                assert proxy.held.wait(60)
                # The documents, which tell the services, are written beside the first blobs.
                found = _until(device, update, lambda app: app.download and app.download["bytes"] and all(
                    each["download_progress"] is not None for each in app.services))
                seen = found.app
                assert seen.update_status == "downloading" and seen.update["step"] == "fetching"
                assert seen.download["uri"] == str(ref) and 0 < seen.download["percent"] < 100
                assert found.at_work["pid"] == update.pid
                progress = {name: each["download_progress"] for name, each in seen.by_name.items()}
                assert set(progress) == {"front", "data"} and all(0 <= value <= 100 for value in progress.values())
                assert min(progress.values()) < 100
                # What runs is the old version, and well.
                assert seen.uri == str(old) and seen.by_name["front"]["ok"] and seen.problems[:-1] == []
                shown = device.run("status").stdout
                # Bytes that were on their way may have come meanwhile.
                told = int(re.search(r"fetching, (\d+) %", shown)[1])
                assert seen.download["percent"] <= told < 100 and "at work: process" in shown
                # A download keeps nobody from the apps, but for another download.
                begun = set(device.store.ingest.iterdir())
                assert any(path.suffix == ".part" for path in begun)
                for words in (("stop", device.name), ("run", device.name), ("prune",)):
                    done = device.run(*words)
                    assert done.returncode in (0, 4), done.stderr
                assert set(device.store.ingest.iterdir()) >= {path for path in begun if path.suffix == ".part"}
                refused = device.run("pull", str(ref))
                assert refused.returncode == 9 and f"process {update.pid}" in refused.stderr
            finally:
                proxy.release.set()
                _, errors = update.communicate()
        assert update.returncode == 0, errors
    code, app = device.app()
    assert code == 0 and app.update_status == "done" and app.digest == ref.digest and app.download is None
    assert {each["download_progress"] for each in app.services} == {None}


def _until(device, process, wanted):
    """Ask for the state until the app is as ``wanted`` tells, or ``process`` has ended too early."""
    while True:
        assert process.poll() is None, process.communicate()[1]
        found = device.status()
        found.app = SimpleNamespace(**found.apps[0], by_name={each["name"]: each for each in found.apps[0]["services"]})
        if wanted(found.app):
            return found


def test_a_snapshot_whose_process_is_gone_is_no_download(bare):
    bare.states.put("web", AppState(URI))
    gone = subprocess.Popen(["true"])
    gone.wait()
    path = bare.states.root / "progress" / "web.json"
    path.parent.mkdir()
    snapshot = {"uri": NEXT, "bytes": 5, "of": 10, "rate": 7, "pid": gone.pid, "updated": 1.5,
                "blobs": [{"digest": "sha256:" + "ef" * 32, "received": 5, "size": 10}]}
    path.write_text(json.dumps(snapshot))
    _, app = bare.app()
    assert app.download is None and app.update_status == "done"
    path.write_text(json.dumps({**snapshot, "pid": os.getpid()}))
    _, app = bare.app()
    # The rate of long ago is not that of now.
    assert app.download == {"uri": NEXT, "bytes": 5, "of": 10, "percent": 50, "rate": 0}
    assert app.update_status == "downloading"


# What may be broken.


def test_without_dockerd_the_rest_is_told(bare):
    bare.states.put("web", AppState(URI, {"nginx": "sha256:1", "redis": "sha256:2"}, previous=NEXT))
    found = bare.status()
    assert found.code == 8 and "docker.sock" in found.problems[0] and "docker.service" in found.problems[0]
    (app,) = found.apps
    assert (app["uri"], app["previous"]) == (URI, NEXT)
    assert {each["name"]: each["state"] for each in app["services"]} == {"nginx": "unknown", "redis": "unknown"}
    # One sentence about dockerd, none about each service.
    assert len(found.problems) == 1 and not any("service" in each["text"].split()[:1] for each in app["problems"])


def test_a_dockerd_that_hangs_does_not_hang_it(bare, monkeypatch, capsys):
    monkeypatch.setattr(status, "ENGINE_TIMEOUT", 0.2)
    silent = bare.root / "silent.sock"
    bare.states.put("web", AppState(URI, {"nginx": "sha256:1"}))
    bare.states.put("db", AppState(URI.replace("/web@", "/db@"), {"redis": "sha256:2"}))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        listener.listen()
        assert main(["--config", str(bare.config), "--docker-host", f"unix://{silent}", "status", "--json"]) == 8
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 1 and "silent.sock" in found["problems"][0]


GARBAGE = {
    "empty": b"", "cut": b'{"uri": "hub', "list": b"[]", "number": b"7", "null": b"null", "nested": b"[" * 100000,
    "binary": bytes(range(256)), "types": b'{"uri": [], "images": 3, "stopped": {}, "app": {}, "step": [], "pid": "x"}',
    "text": b'{"uri": "x y", "images": {}, "stopped": false, "app": "web", "target": "", "blobs": {}, "pid": 1}',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("name", [
    "apps/web.json", "updates/web.json", "progress/web.json", "history.jsonl", "failures.json", "lock"])
def test_garbage_in_any_file_is_told_and_stops_nothing(bare, name, garbage, capsys):
    bare.states.put("good", AppState(URI.replace("/web@", "/good@")))
    path = bare.states.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(garbage)
    assert main(["--config", str(bare.config), "status"]) == 8
    shown = capsys.readouterr().out
    assert main(["--config", str(bare.config), "status", "--json"]) == 8
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, SCHEMA)
    assert "good" in [app["name"] for app in found["apps"]] and "good: hub.demo.test" in shown
    told = json.dumps(found["problems"]) + json.dumps([app["problems"] for app in found["apps"]])
    # A progress file without a process, and the empty forms of a file, say nothing that could be missed.
    harmless = name == "lock" or (name == "history.jsonl" and garbage in (b"", GARBAGE["text"])) or (
        name == "failures.json" and garbage.startswith(b"{") and b'"images"' in garbage) or (
        name == "progress/web.json" and garbage == GARBAGE["types"])
    assert harmless or str(path) in told or "makes no sense" in told


@pytest.mark.parametrize("kind", ["apps", "updates", "progress"])
def test_a_directory_that_is_a_file_is_told(bare, kind):
    bare.states.root.mkdir()
    (bare.states.root / kind).write_text("")
    found = bare.status()
    assert found.code == 8 and f"state/{kind}" in found.problems[0]


def test_an_app_whose_store_was_lost_is_shown_by_what_the_state_knows(bare):
    bare.states.put("web", AppState(URI, {"nginx": "sha256:1"}))
    _, app = bare.app()
    assert app.by_name["nginx"]["state"] == "unknown" and not app.ok
    assert "does not tell its services" in app.problems[0]["text"]
    assert f"composeapps update {URI}" in app.problems[0]["remedy"]


def test_nothing_at_all_is_well(bare):
    found = bare.status()
    assert found.code == 0 and found.apps == [] and not bare.states.root.exists()
    assert "no app is installed" in bare.run("status").stdout


# Updates and what became of them.


@pytest.mark.parametrize("step, expected", [
    (journal.FETCHING, "downloading"), (journal.FETCHED, "downloaded"), (journal.INSTALLED, "downloaded"),
    (journal.SWITCHING, "applying changes"), (journal.VERIFYING, "applying changes"), (journal.COMMITTED, "done"),
    (journal.ROLLING_BACK, "applying changes"), (journal.ROLLED_BACK, "aborted")])
def test_each_step_of_the_journal_has_a_status(bare, step, expected):
    bare.states.put("web", AppState(URI))
    journal.write(bare.states, journal.new("web", URI, NEXT), step=step, attempt=2)
    with bare.busy() as pid:
        found = bare.status("web")
    (app,) = found.apps
    assert app["update_status"] == expected and found.at_work["pid"] == pid
    update = app["update"]
    assert (update["source"], update["target"], update["step"], update["attempt"]) == (URI, NEXT, step, 2)


def test_every_step_that_there_is_has_a_status():
    assert set(status._STEPS) == set(journal.STEPS)


def test_a_first_installation_on_its_way_is_shown(bare):
    journal.write(bare.states, journal.new("web", "", URI), step=journal.FETCHING)
    _, app = bare.app()
    assert (app.name, app.uri, app.update_status, app.update["target"]) == ("web", "", "downloading", URI)


def _failed(states, code, result="failed", reason="the registry hub.demo.test does not answer", target=NEXT):
    history.append(states, {"app": "web", "action": "update", "source": URI, "target": target, "result": result,
                            "reason": reason, "code": code})


def test_the_last_error_is_told_with_what_to_do_until_an_update_succeeds(bare):
    bare.states.put("web", AppState(URI))
    _failed(bare.states, 5)
    code, app = bare.app()
    error = app.last_error
    assert code == 8 and app.update_status == "aborted"
    assert (error["uri"], error["code"], error["result"]) == (NEXT, 5, "failed") and error["time"]
    assert "does not answer" in error["text"] and f"composeapps update {NEXT}" in error["remedy"]
    shown = bare.run("status").stdout
    assert error["text"] in shown and error["remedy"] in shown
    history.append(bare.states, {"app": "web", "target": NEXT, "result": "committed"})
    _, app = bare.app()
    assert app.last_error is None and app.update_status == "done"


def test_each_error_of_an_update_has_a_remedy_of_its_own(bare):
    bare.states.put("web", AppState(URI))
    seen, config = {}, load(bare.config)
    for code in (4, 5, 6, 7, 9, 12, 13, 14, 15, 16):
        _failed(bare.states, code)
        seen[code] = status.collect(config)["apps"][0]["last_error"]["remedy"]
    assert len(set(seen.values())) == len(seen) and "prune" in seen[12] and "--force" in seen[13]


def test_nobody_is_told_to_publish_a_version_anew_for_what_the_device_did(bare):
    bare.states.put("web", AppState(URI))
    remedies = []
    for more in ({}, {"excused": True}):
        history.append(bare.states, {"app": "web", "source": URI, "target": NEXT, "result": "rolled-back", "code": 14,
                                     "reason": "unpacking the bundle (x): the file system is read-only", **more})
        remedies.append(bare.app()[1].last_error["remedy"])
    assert ["publish" in each for each in remedies] == [True, False]
    assert all(f"'composeapps update {NEXT}'" in each for each in remedies)


def test_a_rejected_version_is_told_as_such_until_it_is_allowed(bare):
    bare.states.put("web", AppState(URI))
    for number in range(3):
        rejection.count(bare.states, NEXT, "service nginx is unhealthy", f"update{number}")
        _failed(bare.states, 14, "rolled-back", "service nginx is unhealthy")
        expected = "rejected" if number == 2 else "aborted"
        assert bare.app()[1].update_status == expected
    _, app = bare.app()
    (rejected,) = app.rejected
    assert (rejected["uri"], rejected["failures"], rejected["reason"]) == (NEXT, 3, "service nginx is unhealthy")
    assert NEXT in bare.run("status").stdout
    rejection.forget(bare.states, NEXT)
    _, app = bare.app()
    assert app.update_status == "aborted" and app.rejected == []


def test_an_app_whose_first_installation_failed_is_not_forgotten(bare):
    _failed(bare.states, 5, target=URI)
    code, app = bare.app()
    assert code == 8 and app.uri == "" and app.last_error["uri"] == URI
    history.append(bare.states, {"app": "web", "result": "removed"})
    assert bare.status().apps == []


def test_an_app_of_which_only_a_failure_is_left_can_be_removed(bare):
    _failed(bare.states, 3, target=URI)
    journal.write(bare.states, journal.new("db", "", URI.replace("/web@", "/db@")), step=journal.FETCHING)
    for name in ("web", "db"):
        # What is only in the store, or is not there at all, is not uninstalled.
        assert bare.run("uninstall", name).returncode == 3
        done = bare.run("rm", name)
        assert done.returncode == 0, done.stderr
        assert bare.run("rm", name).returncode == 3
    assert bare.status().apps == [] and bare.run("status").returncode == 0


def test_only_the_apps_that_are_named(bare):
    for name in ("web", "db"):
        bare.states.put(name, AppState(URI.replace("/web@", f"/{name}@")))
    assert [app["name"] for app in bare.status("db").apps] == ["db"]
    refused = bare.run("status", "nothing")
    assert refused.returncode == 3 and "db, web" in refused.stderr


# The lock.


def test_it_neither_waits_for_the_lock_nor_takes_it(bare):
    bare.states.put("web", AppState(URI))
    with bare.busy() as pid:
        before = bare.states.lock_file.stat()
        found = bare.status().at_work
        assert found["pid"] == pid and found["holder"].startswith(f"process {pid} (")
        assert bare.states.lock_file.stat() == before
    assert bare.states.lock_file.stat() == before
    assert bare.status().at_work is None


def test_it_writes_nothing(bare):
    bare.states.put("web", AppState(URI))
    journal.write(bare.states, journal.new("web", URI, NEXT), step=journal.SWITCHING)

    def tree():
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in bare.root.rglob("*")}

    before = tree()
    bare.status()
    assert tree() == before


def test_follow_prints_each_change_once_until_it_is_interrupted(bare):
    bare.states.put("web", AppState(URI))
    with subprocess.Popen(bare.argv("status", "--json", "--follow"), stdout=subprocess.PIPE, text=True) as follower:
        assert json.loads(follower.stdout.readline())["apps"][0]["uri"] == URI
        bare.states.put("web", AppState(NEXT))
        assert json.loads(follower.stdout.readline())["apps"][0]["uri"] == NEXT
        follower.send_signal(signal.SIGINT)
        assert follower.stdout.read() == ""
    assert follower.returncode == 130


def test_the_schema_is_one(tmp_path):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    good = status.collect(Config(state_dir=tmp_path))
    for damage in ({"ok": 1}, {"apps": [{}]}, {"surplus": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **damage}, SCHEMA)
