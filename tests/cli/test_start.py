# SPDX-License-Identifier: MIT
"""What a command imports before it begins: on a small device that is most of the time that it takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import composeapps
from composeapps.records.state import AppState, StateDirectory
from support import apps, stores
from support.images import multi_platform

LIB = Path(composeapps.__file__).parents[1]
# None of these is needed for a look at what the store and dockerd have.
HEAVY = {"asyncio", "concurrent.futures", "email", "http.client", "logging", "random", "ssl", "tempfile", "yaml",
         "urllib.request", "zipfile", "ctypes", "composeapps.registry.client", "composeapps.update.process"}
PROGRAM = """
import sys
from composeapps.cli.main import main
try:
    main()
finally:
    print("=", *sys.modules)
"""


@pytest.fixture
def place(tmp_path):
    """Options for a device with an installed app, and no dockerd."""
    image = multi_platform("x")
    pinned = f"hub.demo.test/f/x@{image.digest}"
    compose = json.dumps({"services": {"web": {"image": pinned}}})
    uri = stores.write(tmp_path / "store", "hub.demo.test/f/shop", apps.make_app(compose, {}, [image]),
                       {pinned: image}, compose=compose)
    StateDirectory(tmp_path / "state").put("shop", AppState(uri))
    return ["--store", tmp_path / "store", "--state-dir", tmp_path / "state", "--compose-root", tmp_path / "compose",
            "--docker-host", f"unix://{tmp_path}/none.sock"]


@pytest.mark.parametrize(("words", "also"), [
    (["ls"], {"subprocess", "tarfile", "socket"}), (["ps"], set()), (["status"], set()), (["show", "shop"], {"socket"}),
    (["version"], {"socket", "hashlib"})])
def test_little_is_imported(place, words, also):
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(LIB)!r}); {PROGRAM}",
                           *words, *(place if words != ["version"] else [])],
                          capture_output=True, text=True, check=False)
    loaded = set(done.stdout.rpartition("= ")[2].split())
    assert "composeapps.cli.main" in loaded, done.stderr
    assert not loaded & (HEAVY | also)
