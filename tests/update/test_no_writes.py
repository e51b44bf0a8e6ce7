# SPDX-License-Identifier: MIT
"""What changes nothing writes nothing: no file of the device changes, none is synced, and no access is noted."""

import os
import stat
import subprocess
import sys

import pytest

from composeapps.oci.documents import dump_json
from support.updating import service

pytestmark = pytest.mark.root

# No look needs any of these.
HEAVY = {"logging", "tempfile", "random", "subprocess", "yaml", "concurrent.futures", "http.client", "ssl", "ctypes",
         "asyncio", "email", "urllib.request", "locale", "composeapps.registry.client", "composeapps.update.process"}
# Nor, with nothing to be done, what brings apps up, and what comes with it: threads, sockets for many, signals.
IDLE = {"threading", "composeapps.threads", "socket", "selectors", "signal", "base64", "composeapps.app.ignorefile",
        "composeapps.engine.loading", "composeapps.switching.handover", "composeapps.switching.waiting",
        "composeapps.switching.locks"}
# The agent, which tells at its end how often it synced anything, and which modules it loaded.
COUNTED = """
import os, sys
synced = []
for name in ("fsync", "fdatasync", "sync"):
    setattr(os, name, lambda *words, real=getattr(os, name): (synced.append(1), real(*words)))
from composeapps.cli.main import main
status = main(sys.argv[1:])
print("counted:", len(synced), *sys.modules)
raise SystemExit(status)
"""


def files(device):
    """Return {path: what changes of it with each write, name, mode or, for a file, access}."""
    found = {}
    for place, directories, names in os.walk(device.root):
        for path in (os.path.join(place, name) for name in (".", *directories, *names)):
            status = os.lstat(path)
            accessed = status.st_atime_ns if stat.S_ISREG(status.st_mode) else 0
            # What the test itself writes, and has read, is none of the agent's.
            if not path.endswith(("/config.toml", "/factory.json")):
                found[os.path.normpath(path)] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
                                                 accessed)
    return found


def counted(device, *words):
    """Run a command; return (syncs, the modules that it loaded)."""
    done = subprocess.run([sys.executable, "-c", COUNTED, *device.argv(*words)], env=device.environment(), text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("counted: "))
    count, *modules = line.split()[1:]
    return int(count), set(modules)


@pytest.fixture
def settled(device, publisher, run, name):
    """Two apps that are installed, up to date and running; accesses of long ago, so that new ones would be noted."""
    apps = {}
    for each in (f"{name}a", f"{name}b"):
        apps[each] = publisher.version(each, {"web": service(volumes=["./d:/d:ro"]), "db": service()},
                                       {"d/index": each, ".env": "A=1\n"})
        assert run("update", apps[each])[0] == 0
    (device.root / "factory.json").write_bytes(dump_json({"apps": apps}))
    assert run("run", "--factory", "--installed")[0] == 0
    assert run("prune")[0] == 0
    for path in files(device):
        if not os.path.islink(path):
            os.utime(path, (0, 0))
    yield apps
    (device.root / "factory.json").unlink()


@pytest.mark.parametrize("words", [("run", "--factory", "--installed"), ("run", "--installed"), ("status",), ("ps",),
                                   ("prune",), ("check",), ("check", "--quick"), ("show", "APP"), ("history",),
                                   ("ls",)], ids=" ".join)
def test_what_changes_nothing_writes_nothing(device, settled, words):
    words = [min(settled) if word == "APP" else word for word in words]
    before = files(device)
    syncs, modules = counted(device, *words)
    after = files(device)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
    assert syncs == 0 and "composeapps.cli.main" in modules
    # 'check' reads blobs on all processors, 'history' is of another kind.
    assert modules & (HEAVY | (IDLE if words[0] in ("run", "ps", "status") else set())) == set()
