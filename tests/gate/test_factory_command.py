# SPDX-License-Identifier: MIT
"""scripts/factory as a person uses it, and as a device finds it: the device's own client against real nginx."""

import contextlib
import io
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from composeapps.cli import main as agent
from composeapps.cli.config import Config
from composeapps.delivery import record
from composeapps.delivery.checkin import CheckIn
from composeapps.delivery.gateway import Gateway, Refused
from composeapps.errors import RegistryError
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse
from composeapps.records import lock, reports
from composeapps.registry.client import ACCEPT
from composeapps.update.parts import Parts
from gate.command import main
from gate.kept import KeptFactory
from signing.conftest import Device
from support import images, registries

CODE = "import sys; from gate.command import main; sys.exit(main(sys.argv[2:], sys.argv[1]))"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def run(build, *words):
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([*map(str, words)], build)
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def up(build, *words):
    done = run(build, "up", "--json", *(words or ("--port", "0")))
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A directory for products, whose factory runs; it ends with the tests of this file."""
    place = tmp_path_factory.mktemp("build")
    up(place)
    yield place
    assert run(place, "down").returncode == 0


@pytest.fixture
def state(build):
    return up(build, "--port", "0")


@pytest.fixture
def config(build, state, tmp_path, capsys):
    """The Config of a device that made its own key and got a certificate by scripts/factory sign."""
    identity = tmp_path / "identity"
    file = tmp_path / "config.toml"
    file.write_text(f'[composeapps]\nidentity_dir = "{identity}"\n')

    def identify(*words):
        capsys.readouterr()
        assert agent.main(["identity", "--config", str(file), *map(str, words)]) == 0
        return capsys.readouterr().out

    identify("--new-key", "--device", "shop-0001")
    (tmp_path / "device.csr").write_text(identify("--csr", "--unit", "shops"))
    assert run(build, "sign", tmp_path / "device.csr", "--output", tmp_path / "client.pem").returncode == 0
    identify("--certificate", tmp_path / "client.pem", "--authority", state["server_ca"])
    settings = state["settings"]
    return Config(server=settings["delivery"]["server"], hardware_id=settings["delivery"]["hardware_id"],
                  tags=(settings["pacman"]["tags"],), identity_dir=identity, state_dir=tmp_path / "state",
                  store=tmp_path / "store", compose_root=tmp_path / "compose")


def test_a_device_finds_what_is_signed_for_it(build, state, config, tmp_path):
    place = Path(state["repository"])
    assert agent.main(["target", "create", str(place), "--keys", state["keys"], "--passphrase-file",
                       state["passphrase_file"], "--name", "shop", "--hardware", "qemux86-64", "--tag", "main", "--app",
                       f"hub.demo.test/factory/web@sha256:{'0' * 64}", "--unchecked"]) == 0
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with Gateway(config) as gateway:
        for path in place.iterdir():
            (mirror / path.name).write_bytes(gateway.fetch(path.name, 1_000_000))
        assert gateway.fetch("9.root.json", 1000) is None and gateway.fetch("../keys/root.pem", 1000) is None
    device = Device(tmp_path / "device", mirror, Path(state["root"]).read_bytes())
    assert device.find("shop-1")["tags"] == ["main"]
    # Another start renews the timestamp, which devices follow.
    up(build)
    with Gateway(config) as gateway:
        (mirror / "timestamp.json").write_bytes(gateway.fetch("timestamp.json", 1_000_000))
    assert device.find("shop-1")


def test_a_device_checks_in(build, state, config, tmp_path, monkeypatch):
    """The whole talk with a real server: what is signed is found, and what the device tells is written down."""
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    assert agent.main(["target", "create", state["repository"], "--keys", state["keys"], "--passphrase-file",
                       state["passphrase_file"], "--name", "checked", "--hardware", "qemux86-64", "--tag", "main",
                       "--app", f"hub.demo.test/factory/web@sha256:{'1' * 64}", "--unchecked"]) == 0
    (tmp_path / "tuf").mkdir()
    (tmp_path / "tuf" / "1.root.json").write_bytes(Path(state["root"]).read_bytes())
    parts = Parts(config._replace(root_dir=tmp_path / "tuf", docker_host=f"unix://{tmp_path}/none"), print)
    for first in (True, False):
        with parts.locked(), CheckIn(parts) as check:
            assert check.look().target.name.startswith("checked-")
            # The second one finds the same timestamp, and has nothing to tell.
            assert first or check.gateway.requests == 2
    assert not reports.are_waiting(config.state_dir)
    told = [report["path"] for report in json.loads(run(build, "status", "--json").stdout)["last_reports"]]
    assert told[-3:] == ["/events", "/system_info", "/system_info/network"]


def test_a_device_gets_blobs_by_the_place_that_it_is_told(state, config):
    registry = registries.Registry(config.state_dir / "unused")
    registry.address = state["registry"]["endpoint"].partition("://")[2]
    image = images.multi_platform("gate")
    pinned = parse(images.push_image(registry, "hub.demo.test/gate/hello:1", image))
    with Gateway(config) as gateway:
        place = gateway.send("POST", "app-proxy-url", "the place", None, good=(201,)).body.decode()
        base, _query, token = place.partition("?")
        context = gateway.anonymous()
        url = f"{base}/v2/{pinned.path}/manifests/{pinned.digest}"
        asked = urllib.request.Request(f"{url}?{token}", headers={"Accept": ACCEPT})
        with urllib.request.urlopen(asked, context=context, timeout=30) as answer:
            assert sha256(answer.read()) == pinned.digest
        for wrong in (url, f"{url}?token=", f"{url}?token=x", f"{url}?{token}0"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(wrong, context=context, timeout=30)
            assert refused.value.code == 401
        # Nobody publishes by this way.
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}?{token}", method="DELETE"), context=context,
                                   timeout=30)
        assert refused.value.code == 403
    # No token is written down.
    for path in (state["requests"], state["reports"], state["log"]):
        assert not Path(path).exists() or token.partition("=")[2] not in Path(path).read_text()


def test_what_a_device_reports_is_written_down(build, config):
    with Gateway(config) as gateway:
        gateway.target = "shop-1"
        events = json.dumps([{"id": "1", "event": {"correlationId": "c", "details": 'a "quoted" é\n'}}])
        gateway.send("POST", "events", "events", events.encode())
        gateway.send("PUT", "system_info/network", "the network", b'{"hostname": "shop"}')
        gateway.send("POST", "apps-states", "states", b"x" * 90_000)
        with pytest.raises(Refused):
            gateway.send("POST", "apps-states", "states", b"x" * 110_000)
        assert gateway.get("config", "the configuration", good=(204,)).body == b""
        with pytest.raises(Refused):
            gateway.get("device", "the device")
    state = json.loads(run(build, "status", "--json").stdout)
    last = state["last_reports"][-3:]
    assert [report["path"] for report in last] == ["/events", "/system_info/network", "/apps-states"]
    assert last[0]["device"] == "CN=shop-0001,OU=shops" and json.loads(last[0]["body"]) == json.loads(events)
    assert "CN=shop-0001" in run(build, "status").stdout


def test_without_a_certificate_of_this_factory_nothing_is_given(build, state, config, tmp_path):
    context = ssl.create_default_context(cafile=state["server_ca"])
    for path in ("/repo/timestamp.json", "/", "/events", "/app-proxy-url", "/config", "/keys/root.pem"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(state["url"] + path, context=context, timeout=30)
        assert refused.value.code == 403
    # That of another factory's authority.
    KeptFactory(tmp_path / "other").pki.make(["other.test"])
    request = config.identity_dir.parent / "device.csr"
    done = run(tmp_path / "other", "sign", request)
    (config.identity_dir / "client.pem").write_text(done.stdout)
    with Gateway(config) as gateway, pytest.raises(RegistryError):
        gateway.fetch("timestamp.json", 1_000_000)


def test_a_certificate_says_what_was_asked_for_and_no_more(build, state, config):
    request = config.identity_dir.parent / "device.csr"
    made = x509.load_pem_x509_certificate(run(build, "sign", request, "--days", "7").stdout.encode())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(Path(state["device_ca"]).read_bytes()))
    assert made.subject.rfc4514_string() == "CN=shop-0001,OU=shops"
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert 6 <= (made.not_valid_after_utc - made.not_valid_before_utc).days - 1 <= 7
    for name, content, said in (("none", None, "does not exist"), ("odd", b"hello", "no certificate signing request"),
                                ("empty", b"", "no certificate signing request"),
                                ("long", b"x" * 70_000, "too large"),
                                ("cut", request.read_bytes()[:-60], "no certificate signing request"),
                                ("ours", Path(state["device_ca"]).read_bytes(), "no certificate signing request")):
        path = request.with_name(name)
        if content is not None:
            path.write_bytes(content)
        done = run(build, "sign", path)
        assert done.returncode in (2, 3) and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert done.stdout == ""


def test_up_twice_is_one_factory_and_another_port_is_refused(build, state, free_port):
    assert up(build)["pid"] == state["pid"]
    done = run(build, "up", "--port", str(free_port))
    assert done.returncode == 2 and "scripts/factory down" in done.stderr


def test_one_that_was_killed_comes_back_at_its_port_with_its_keys(build, state, config):
    root = Path(state["root"]).read_bytes()
    handle = os.pidfd_open(state["pid"])
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 30)[0]
    os.close(handle)
    done = run(build, "status", "--json")
    assert done.returncode == 3 and not json.loads(done.stdout)["running"]
    again = up(build, "--port", str(state["port"]))
    assert again["pid"] != state["pid"] and again["url"] == state["url"]
    assert Path(again["root"]).read_bytes() == root
    with Gateway(config) as gateway:
        assert gateway.fetch("1.root.json", 1_000_000) == root


def test_down_ends_all_of_it_and_twice_at_once_is_one(tmp_path):
    words = [sys.executable, "-B", "-c", CODE, str(tmp_path), "up", "--port", "0", "--json"]
    with ThreadPoolExecutor(2) as pool:
        states = [json.loads(done.stdout) for done in pool.map(
            lambda _: subprocess.run(words, capture_output=True, text=True, check=True, env=ENVIRONMENT), range(2))]
    assert len({(state["pid"], state["port"]) for state in states}) == 1
    assert run(tmp_path, "down").returncode == 0
    done = run(tmp_path, "status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 3 and not found["running"] and not found["registry"]["running"]
    for port in (states[0]["port"],):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port))


@pytest.mark.parametrize(("words", "said"), [
    (["sign"], "sign takes the file of a request"), (["up", "x.csr"], "unrecognized arguments: x.csr"),
    (["down", "--port", "1"], "--port goes with up"), (["sign", "x", "--days", "0"], "not a number"),
    (["sideways"], "invalid choice"), (["status", "--output", "x"], "--output goes with sign")])
def test_wrong_usage(tmp_path, words, said):
    done = run(tmp_path, *words)
    assert done.returncode == 2 and said in done.stderr and not (tmp_path / "factory").exists()


def test_a_path_that_nginx_cannot_have_is_a_sentence(tmp_path):
    done = run(tmp_path / "a;b", "up", "--port", "0")
    assert done.returncode == 5 and "COMPOSEAPPS_BUILD" in done.stderr
    assert run(tmp_path / "a;b", "down").returncode == 0


def test_a_check_in_finds_what_was_signed_and_costs_little_when_nothing_is_new(build, state, config, tmp_path,
                                                                               monkeypatch):
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "1.root.json").write_bytes(Path(state["root"]).read_bytes())
    config = config._replace(root_dir=seeds, docker_host=f"unix://{tmp_path}/no.sock")
    words = ["target", "create", state["repository"], "--keys", state["keys"], "--passphrase-file",
             state["passphrase_file"], "--name", "checked", "--hardware", "qemux86-64", "--tag", "main", "--app",
             f"hub.demo.test/factory/web@sha256:{'1' * 64}", "--unchecked"]
    assert agent.main(words) == 0

    def look():
        parts = Parts(config)
        with parts.locked(), CheckIn(parts, now=True) as check:
            return check.look()

    chosen = look().target
    assert chosen.name.startswith("checked-") and chosen.tags == ("main",)
    record.write(Parts(config), record.Record(record.Installed(chosen.name, chosen.version, "main", chosen.apps)))
    look()
    before = len(Path(state["requests"]).read_text().splitlines())
    assert look().sentence == f"nothing new: Target {chosen.name} is installed"
    asked = [json.loads(line) for line in Path(state["requests"]).read_text().splitlines()[before:]]
    assert 1 <= len(asked) <= 2 and len({each["connection"] for each in asked}) == 1
    assert sum(each["bytes"] for each in asked) < 10_000
    assert {(each["device"], each["target"], each["tag"]) for each in asked} == {
        ("CN=shop-0001,OU=shops", chosen.name, "main")}
