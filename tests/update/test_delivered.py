# SPDX-License-Identifier: MIT
"""The whole way on a real dockerd: a check-in finds a signed Target, its blobs come from the factory's server, its apps
run, and the factory is told.
"""

import json
import shutil

import pytest

from composeapps.cli.main import main
from composeapps.records import lock, reports
from support import pki
from support.metadata import Repository
from support.updateserver import UpdateServer, status
from support.updating import SICK, WELL, service

pytestmark = pytest.mark.root
INSTALLED = [reports.INIT_STARTED, reports.INIT_COMPLETED, reports.DOWNLOAD_STARTED, reports.DOWNLOAD_COMPLETED,
             reports.INSTALLATION_STARTED, reports.APPLIED, reports.INSTALLATION_COMPLETED]


@pytest.fixture(scope="module")
def server():
    with UpdateServer(pki.Factory()) as running:
        yield running


class Factory:
    """Signs Targets for one device and gives out what they need."""

    def __init__(self, device, server, publisher, place):
        self.device, self.server, self.publisher, self.place = device, server, publisher, place
        self.name = f"device-{place.name}"
        server.factory.identity(place / "identity", self.name)
        self.repository = Repository("ats", pki.now())
        (place / "tuf").mkdir()
        (place / "tuf/1.root.json").write_bytes(self.repository.files["1.root.json"])
        server.stores.append(place / "served")

    def configure(self, **more):
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
        self.device.configure(
            f'[delivery]\nserver = "{self.server.url}"\nhardware_id = "intel"\nroot_dir = "{self.place}/tuf"\n{lines}',
            identity_dir=str(self.place / "identity"), health_timeout=15)
        text = self.device.config.read_text()
        self.device.config.write_text(text.replace("[pacman]\n", '[pacman]\ntags = "main"\n', 1))

    def publish(self, version, apps):
        """Sign a Target of {app: services}; its blobs are the server's alone. Returns {app: pinned reference}."""
        uris = {app: self.publisher.version(app, services) for app, services in apps.items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COMPOSEAPPS_ENDPOINTS", self.device.endpoint)
            for uri in uris.values():
                assert main(["pull", uri, "--store", str(self.place / "served"), "--state-dir",
                             str(self.place / "other")]) == 0
        self.repository.add(version, uris, hardware=("intel",))
        self.repository.publish()
        self.server.roll_out(self.name, "main", "update", self.repository.files)
        return uris

    def events(self):
        """Return (kind, Target, success) of what was told since it was asked last, but for the metadata."""
        return [(each["eventType"]["id"], each["event"]["targetName"], each["event"].get("success"))
                for each in self.server.events.pop(self.name, []) if each["eventType"]["id"] != reports.METADATA]


@pytest.fixture
def factory(device, server, publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    found = Factory(device, server, publisher, tmp_path)
    found.configure()
    yield found
    for name in device.states.names():
        assert main(device.argv("rm", name)) == 0
    # Each factory counts its versions from the beginning.
    for place in ("delivery", "copies/delivery"):
        shutil.rmtree(device.states.root / place, ignore_errors=True)


def test_signed_apps_come_from_the_server_and_go_back_when_they_are_not_well(factory, device, run, name, no_registry,
                                                                             server):
    apps = (f"{name}a", f"{name}b")
    first = factory.publish(1, {app: {"web": service(f"{app} 1", healthcheck=WELL)} for app in apps})
    no_registry()
    status_, out, err = run("update", "--json")
    assert status_ == 0, err
    assert {each["app"]: each["target"] for each in json.loads(out)} == first
    assert all(device.problems(app, first[app]) == [] for app in apps)
    events = factory.events()
    assert [kind for kind, _target, _success in events] == INSTALLED and events[-1][2] is True
    assert {target for _kind, target, _success in events} == {"device-1"}
    # The last event comes under the state that it tells of.
    told = [each for each in server.requests if each.path == "/events"][-1]
    assert told.headers["x-ats-target"] == "device-1"
    assert set(told.headers["x-ats-dockerapps"].split(",")) == set(apps)
    states = server.states[factory.name][-1]["apps"]
    assert {app: states[app]["uri"] for app in apps} == first
    assert states[apps[0]]["state"] == "healthy" and states[apps[0]]["services"][0]["name"] == "web"
    before = len(server.requests)
    assert run("update")[:2] == (0, "nothing new: Target device-1 is installed\n")
    assert len(server.requests) == before + 2

    # A release of which one app is not well.
    factory.publish(2, {apps[0]: {"web": service("good 2", healthcheck=WELL)},
                        apps[1]: {"web": service("bad 2", healthcheck=SICK)}})
    no_registry()
    status_, _out, err = run("update")
    assert status_ == 14, err
    events = factory.events()
    assert events[-1] == (reports.INSTALLATION_COMPLETED, "device-2", False)
    assert len({kind for kind, _target, _success in events}) == len(events)
    assert server.requests[-1].headers["x-ats-target"] == "device-1"


def test_what_is_fetched_outside_of_the_window_is_installed_in_it(factory, device, run, name, no_registry, monkeypatch):
    from composeapps.delivery import window

    factory.configure(window="01:00-02:00")
    uris = factory.publish(1, {name: {"web": service("1", healthcheck=WELL)}})
    no_registry()
    # It is open when the download begins, and closed when it ends.
    answers = iter((True, False))
    monkeypatch.setattr(window, "is_open", lambda allowed: next(answers, False))
    assert run("update")[0] == 0
    assert device.installed(name) is None and str(next(iter(device.store.list_apps()))) == uris[name]
    assert factory.events()[-1][:2] == (reports.DOWNLOAD_COMPLETED, "device-1")
    assert run("update")[0] == 0 and device.installed(name) is None
    monkeypatch.setattr(window, "is_open", lambda allowed: True)
    assert run("update")[0] == 0
    assert device.problems(name, uris[name]) == []
    assert factory.events()[-1] == (reports.INSTALLATION_COMPLETED, "device-1", True)


def test_blobs_that_the_server_takes_away_leave_the_app_and_come_later(factory, device, run, name, no_registry, server):
    factory.publish(1, {name: {"web": service("1", healthcheck=WELL)}})
    no_registry()
    server.misbehave("/registry/v2/.*/blobs", status(404, "no such blob"))
    status_, _out, err = run("update")
    assert status_ == 3 and "Traceback" not in err
    assert factory.events()[-1] == (reports.DOWNLOAD_COMPLETED, "device-1", False)
    server.behave()
    assert run("update", "--now")[0] == 0
    assert device.installed(name)
    text = run("metrics")[1]
    assert 'composeapps_target_version{target="device-1"} 1\n' in text and "composeapps_checkin_failures 0\n" in text


def stick(factory, place, name):
    """Make the bundle of a Target, as a factory would; return its directory."""
    import shutil as files

    repository = factory.repository
    (place / "tuf").mkdir(parents=True)
    for each, data in repository.files.items():
        (place / "tuf" / each).write_bytes(data)
    signed = {"_type": "Targets", "version": 1, "expires": repository.targets["expires"], "targets": {},
              "x-fio-offline-bundle": {"type": "prod", "tag": "main", "targets": [name]}}
    (place / "tuf/bundle-targets.json").write_bytes(repository.document(signed, repository.keys["targets"]))
    files.copytree(factory.place / "served", place / "apps")
    return place


def pack(place):
    """Return a bundle in one file, as 'composeapps bundle create' packs one."""
    import tarfile

    packed = place.with_suffix(".tar")
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as tar:
        for top in ("tuf", "apps/blobs", "apps/apps"):
            for path in sorted((place / top).rglob("*")):
                tar.add(path, path.relative_to(place).as_posix(), recursive=False)
    return packed


def test_a_bundle_on_a_stick_is_as_good_as_the_server(factory, device, run, name, no_registry, server, tmp_path):
    first = factory.publish(1, {name: {"web": service("1", healthcheck=WELL)}})
    second = factory.publish(2, {name: {"web": service("2", healthcheck=WELL)}})
    place = stick(factory, tmp_path / "stick", "device-2")
    no_registry()
    before = len(server.requests)
    status_, _out, err = run("update", "--bundle", str(place))
    assert status_ == 0, err
    assert device.problems(name, second[name]) == [] and len(server.requests) == before
    assert run("update", "--bundle", str(place))[1] == "nothing new: Target device-2 is installed\n"
    # One that is not what was signed, and one that is older.
    (place / "tuf/targets.json").write_bytes((place / "tuf/targets.json").read_bytes().replace(b'"2"', b'"9"'))
    shutil.rmtree(device.states.root / "delivery/tags", ignore_errors=True)
    shutil.rmtree(device.states.root / "copies/delivery/tags", ignore_errors=True)
    status_, _out, err = run("update", "--bundle", str(place))
    assert status_ == 17 and "not believed" in err
    assert device.problems(name, second[name]) == []
    old = stick(factory, tmp_path / "old", "device-1")
    status_, out, _err = run("update", "--bundle", str(old))
    assert status_ == 0 and "is older: it is not installed by itself" in out
    # By its name it comes, from one file as well as from a directory.
    packed = pack(old)
    assert run("update", "--bundle", str(packed), "--target", "device-1")[0] == 0
    assert device.problems(name, first[name]) == []
    packed.write_bytes(packed.read_bytes()[:-3000])
    status_, _out, err = run("update", "--bundle", str(packed), "--target", "device-2")
    assert status_ in (3, 4) and "Traceback" not in err


def test_a_stick_that_is_drawn_out_half_way_leaves_the_app_as_it_was(factory, device, run, name, no_registry, tmp_path):
    factory.publish(1, {name: {"web": service("1", healthcheck=WELL)}})
    assert run("update")[0] == 0
    installed = device.installed(name)
    uris = factory.publish(2, {name: {"web": service("2", healthcheck=WELL)}})
    place = stick(factory, tmp_path / "stick", "device-2")
    no_registry()
    new = [path for path in (place / "apps/blobs/sha256").iterdir()
           if device.store.size_of(f"sha256:{path.name}") is None]
    # The app's own list is read first, and is what a store has twice.
    gone = [path.rename(tmp_path / path.name) for path in new[1:]]
    status_, out, err = run("update", "--bundle", str(place))
    assert status_ in (3, 4, 7) and "Traceback" not in err, (out, err)
    assert device.problems(name, installed) == []
    for path in gone:
        path.rename(place / "apps/blobs/sha256" / path.name)
    assert run("update", "--bundle", str(place))[0] == 0
    assert device.problems(name, uris[name]) == []


def test_a_version_that_nobody_signed_comes_by_no_door(factory, device, run, name, publisher):
    factory.publish(1, {name: {"web": service("1", healthcheck=WELL)}})
    assert run("update")[0] == 0
    installed = device.installed(name)
    unsigned = publisher.version(name, {"web": service("unsigned", healthcheck=WELL)})
    other = publisher.version(f"{name}other", {"web": service("unsigned", healthcheck=WELL)})
    assert run("pull", unsigned)[0] == run("pull", other)[0] == 0
    for words in (("update", unsigned), ("run", unsigned), ("install", unsigned), ("update", other), ("run", other),
                  ("install", other), ("run", f"{name}other"), ("update", "fetch", unsigned)):
        status_, _out, err = run(*words)
        assert status_ == 17 and "no Target that the factory signed" in err, words
    assert device.problems(name, installed) == [] and device.installed(f"{name}other") is None
    factory.configure(unsigned=True)
    assert run("update", unsigned)[0] == 0
    # What is there may stay and run, whatever the image says of others afterwards.
    factory.configure()
    assert run("run", name)[0] == 0 and device.problems(name, unsigned) == []
    assert run("rollback", name)[0] == 0 and device.problems(name, installed) == []


def test_a_user_goes_back_to_the_target_before(factory, device, run, name):
    first = factory.publish(1, {name: {"web": service("1", healthcheck=WELL)}})
    assert run("update")[0] == 0
    assert run("rollback")[0] == 3
    second = factory.publish(2, {name: {"web": service("2", healthcheck=WELL)}})
    assert run("update")[0] == 0 and device.problems(name, second[name]) == []
    assert run("rollback")[0] == 0 and device.problems(name, first[name]) == []
    status_, out, _err = run("update")
    assert status_ == 0 and "somebody went back from Target device-2" in out
    assert run("allow", "--target", "device-3")[0] == 3 and run("allow", "--target", "device-2")[0] == 0
    assert run("update")[0] == 0 and device.problems(name, second[name]) == []
