# SPDX-License-Identifier: MIT
"""``composeapps pull`` as a process: what it prints, its exit status, and what a kill costs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from composeapps.pull import progress
from composeapps.pull.pull import survey
from composeapps.records import lock
from composeapps.store.store import Store
from support.faults import FaultyProxy
from support.link import Link
from support.meter import Meter
from support.pulls import client_for, is_whole, layers, no_network, publish_app, pull

LIB = Path(__file__).resolve().parents[2] / "meta-composeapps" / "lib"
MIB = 1024 * 1024


@pytest.fixture
def device(tmp_path, registry):
    return Device(tmp_path, registry)


class Device:
    """A configuration in a directory, and the command with it."""

    def __init__(self, root, registry):
        self.root, self.registry, self.state = root, registry, root / "state"
        self.store = Store(root / "store")
        self.config = root / "config.toml"
        self.reach(registry.url)

    def reach(self, url):
        """Have the registry listen at ``url``."""
        self.config.write_text(f'[composeapps]\nstate_dir = "{self.state}"\n[pacman]\n'
                               f'reset_apps_root = "{self.store.root}"\nstorage_watermark = 95\n'
                               f'[registry."{self.registry.host}"]\nurl = "{url}"\n')

    def start(self, *args, prefix=(), **options):
        # -B: byte code in the layer's directory would be part of what BitBake hashes.
        argv = [*prefix, sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, {str(LIB)!r}); "
                "from composeapps.cli.main import main; raise SystemExit(main())", "--config", self.config, "pull"]
        return subprocess.Popen([*argv, *map(str, args)], **options)

    def run(self, *args, prefix=()):
        """Run ``composeapps pull``; return (exit status, standard output, standard error)."""
        with self.start(*args, prefix=prefix, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            out, err = child.communicate(timeout=120)
        return child.returncode, out, err


@pytest.fixture
def shop(registry, factory_name):
    return publish_app(registry, f"{factory_name}/shop", 1_500_000, 600_000, 200_000, seed=factory_name)


def test_for_people(device, shop):
    status, out, err = device.run(shop)
    assert status == 0 and out == ""
    assert re.search(r"^shop: 2\.\d MB in \d+ blobs fetched in \d+\.\d s$", err, re.MULTILINE)
    assert "\x1b" not in err, "this is no terminal"
    assert is_whole(device.store, shop)
    device.reach("http://127.0.0.1:9")
    status, out, err = device.run("shop", "--verify")
    assert (status, out, err) == (0, "", "shop: all of it is in the store\n")


def test_a_terminal_gets_bars_within_its_width(device, shop):
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    with device.start(shop, stderr=slave) as child:
        os.close(slave)
        seen = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            seen += data
    os.close(master)
    assert child.returncode == 0
    text = seen.decode()
    lines = [re.sub(r"\x1b\[[0-9]*[A-Z]", "", line).strip("\r") for line in text.split("\n")]
    assert all(len(line) < 60 for line in lines)
    digest = layers(survey(shop, device.store, no_network).app)[0].digest.partition(":")[2][:12]
    assert any(digest in line for line in lines) and any(line.startswith("shop ") for line in lines)


def test_json_lines(device, shop):
    status, out, _err = device.run(shop, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and events[0]["event"] == "expect" and events[0]["bytes"] == 0
    assert {event["uri"] for event in events} == {str(shop)}
    done = {event["digest"] for event in events if event["event"] == "done"}
    assert done == {blob["digest"] for blob in events[0]["blobs"]}
    assert events[-1] == {**events[-1], "event": "result", "ok": True, "bytes": events[0]["of"], "blobs": len(done)}


@pytest.mark.parametrize(("args", "status", "says"), [
    (["hub.demo.test/f/shop:1"], 2, "'hub.demo.test/f/shop:1' is neither an app in the store nor a pinned reference"),
    (["hub.demo.test/f/shop@sha256:12"], 2, "is not a digest"),
    (["--limit", "quick", "x"], 2, "--limit 'quick' is not a number of bytes a second"),
    (["--parallel", "0", "x"], 2, "--parallel 0 is not a number from 1 to 32"),
    (["hub.demo.test/f/nothing@sha256:" + "0" * 64], 3, "is not in the registry hub.demo.test"),
])
def test_refusals_are_one_sentence(device, args, status, says):
    found, out, err = device.run(*args)
    assert found == status and says in err and err.startswith("composeapps: ") and err.count("\n") == 1


def test_one_bad_app_does_not_keep_another_away(device, shop):
    missing = f"hub.demo.test/f/nothing@sha256:{'0' * 64}"
    status, out, err = device.run("--json", missing, shop)
    results = [json.loads(line) for line in out.splitlines() if '"result"' in line]
    assert status == 3 and [result["ok"] for result in results] == [False, True]
    assert results[0]["exit_code"] == 3 and "is not in the registry" in results[0]["error"]
    assert is_whole(device.store, shop)


@pytest.mark.root
def test_too_little_room_is_told_before_the_first_byte(small_disk, registry, shop):
    device = Device(small_disk, registry)
    device.config.write_text(device.config.read_text().replace("= 95", "= 20"))
    status, _out, err = device.run(shop)
    assert status == 12 and err.count("\n") == 1 and not device.store.root.exists()
    assert device.run(shop, "--no-space-check")[0] == 0 and is_whole(device.store, shop)


def test_killed_it_costs_little_and_the_next_one_goes_on(device, registry, factory_name):
    shop = publish_app(registry, f"{factory_name}/shop", 4_000_000, 3_000_000, 2_000_000, seed=factory_name)
    size = survey(shop, device.store, client_for(registry)).size
    sent = kills = 0
    for point in (1_000_000, 3_000_000, 700_000):
        with FaultyProxy(registry.url, hold_after=point) as proxy:
            device.reach(proxy.url)
            with device.start(shop, stderr=subprocess.DEVNULL) as child:
                proxy.held.wait()
                child.send_signal(signal.SIGKILL)
            assert child.returncode == -signal.SIGKILL and not is_listed(device, shop)
        sent, kills = sent + proxy.body_bytes, kills + 1
    with FaultyProxy(registry.url) as proxy:
        device.reach(proxy.url)
        assert device.run(shop)[0] == 0
    assert sent + proxy.body_bytes - size <= kills * MIB
    assert is_whole(device.store, shop) and list(device.store.ingest.iterdir()) == []


def is_listed(device, ref):
    return ref in device.store.list_apps()


@pytest.mark.root
def test_a_network_that_loses_every_fifth_packet(device, registry, factory_name):
    shop = publish_app(registry, f"{factory_name}/shop", 60_000, 40_000, seed=factory_name)
    with Link(rate=2_500_000, delay=0.005, loss=0.2) as link, Meter(registry.address, link.listening) as far:
        device.reach(f"http://{far.address}")
        assert device.run(shop, prefix=link.enter)[0] == 0
    assert is_whole(device.store, shop)


def test_interrupted_it_ends_at_once(device, registry, shop):
    with FaultyProxy(registry.url, hold_after=1_000_000) as proxy:
        device.reach(proxy.url)
        with device.start(shop, stderr=subprocess.PIPE, text=True) as child:
            proxy.held.wait()
            found = progress.read_snapshot(device.state, "shop")
            child.send_signal(signal.SIGINT)
            err = child.communicate(timeout=20)[1]
    assert child.returncode == 130 and err.endswith("composeapps: interrupted\n")
    assert found["uri"] == str(shop) and found["pid"] == child.pid and found["of"] > 2_000_000
    assert progress.read_snapshot(device.state, "shop") is None
    assert list(device.store.ingest.glob("*.part"))


def test_a_second_one_is_told_who_is_at_work(device, shop):
    with lock.exclusive(device.state / "lock"):
        status, _out, err = device.run(shop)
    assert status == 9 and "is at work on the apps" in err


def test_the_limit_and_the_number_of_connections(device, registry, shop):
    with FaultyProxy(registry.url) as proxy:
        device.reach(proxy.url)
        status, out, _err = device.run("--limit", "2M", "--parallel", "1", "--json", shop)
        assert status == 0 and proxy.connections <= 2
    result = json.loads(out.splitlines()[-1])
    assert result["seconds"] >= 0.9 * (result["bytes"] - 500_000) / 2_000_000
    other = Store(device.root / "other")
    pull(shop, other, client_for(registry))
    assert is_whole(other, shop)
