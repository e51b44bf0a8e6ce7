# SPDX-License-Identifier: MIT
"""A configuration that is not right is told in one sentence, which names the file and the key."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import composeapps
from composeapps.cli import config
from composeapps.errors import UsageError
from composeapps.registry import settings as registries

LIB = Path(composeapps.__file__).parents[1]
WRONG = [
    (b"[composeapps]\nparallel = 0\n", "'parallel' is not a number from 1 to 32"),
    (b"[composeapps]\nparallel = 33\n", "'parallel' is not a number from 1 to 32"),
    (b"[composeapps]\nparallel = true\n", "'parallel' is not a number from 1 to 32"),
    (b"[composeapps]\nparallel = 2.0\n", "'parallel' is not a number from 1 to 32"),
    (b'[composeapps]\nsoak_time = "10"\n', "'soak_time' is not a number from 0 to 86400"),
    (b"[pacman]\nstorage_watermark = 96\n", "'storage_watermark' is not a number from 20 to 95"),
    (b'[pacman]\nreset_apps_root = "store"\n', "'reset_apps_root' is not an absolute path"),
    (b'[pacman]\nreset_apps_root = ""\n', "'reset_apps_root' is not an absolute path"),
    (b'[pacman]\nreset_apps_root = "/a\\u0000b"\n', "'reset_apps_root' is not an absolute path"),
    (b"[pacman]\ncompose_apps = [\"a\"]\n", "'compose_apps' is not a text with the names of apps"),
    (b"[composeapps]\ncompose_command = \"docker compose\"\n", "'compose_command' is not a list of words"),
    (b"[composeapps]\ncompose_command = []\n", "'compose_command' is not a list of words"),
    (b"[composeapps]\ncompose_command = [\"\"]\n", "'compose_command' is not a list of words"),
    (b'[composeapps]\ndocker_host = "tcp://10.0.0.1:2375"\n', "'docker_host' is not the address of a socket, unix:///"),
    (b"[composeapps]\nsoaktime = 1\n", "unknown key 'soaktime' in [composeapps]; known: factory_file,"),
    (b"[composeapps]\nstorage_watermark = 90\n", "unknown key 'storage_watermark' in [composeapps]; it belongs into "
     "[pacman]"),
    (b"[pac]\nx = 1\n", 'there is no section [pac]; there are [pacman], [composeapps], [delivery], [registry."HOST"]'),
    (b"parallel = 1\n", "'parallel' belongs into a section"),
    (b"registry = 1\n", "'registry' belongs into a section"),
    (b"[pacman]\n[composeapps]\n[pacman]\n", "the section [pacman] stands twice (at line 3"),
    (b"[pacman]\nstorage_watermark = 90\nstorage_watermark = 91\n", "a key stands twice (at line 3"),
    (b"[[pacman]]\n", "'pacman' belongs into a section"),
    (b"[pacman\n", "is not TOML"),
    (b"[pacman]\nstorage_watermark = 9" + b"9" * 4000 + b"\n", "'storage_watermark' is not a number"),
    (b"\x7fELF\x02\x01\x01\0\0\0", "is not TOML"),
    (b"[pacman]\n# \xe4\n", "is not UTF-8 text (line 2)"),
    ("[pacman]\n".encode("utf-16"), "is not UTF-8 text (line 1)"),
    (b"#" * 300_000, "has more than 262144 bytes"),
    (b"[registry.\"hub\"]\nurl = \"https://u:p@hub\"\n", "'url' has a login in it: put that in auth_file"),
    (b"[registry.\"hub\"]\nmirrors = [\"https://a\", 1]\n", "'mirrors' is not an address of the form http|https://"),
]


@pytest.mark.parametrize(("content", "said"), WRONG, ids=[said[:40] for _content, said in WRONG])
def test_what_is_wrong_is_said(content, said, tmp_path):
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        config.load(file)
    text = str(caught.value)
    assert said in text and str(file) in text and "\n" not in text


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "pipe", "is not a regular file"),
                         (tmp_path / "none", "does not exist")):
        done = subprocess.run([sys.executable, "-B", "-m", "composeapps", "ls", "--config", path], capture_output=True,
                              text=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": str(LIB)})
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert str(path) in done.stderr and reason in done.stderr


@pytest.mark.root
def test_a_file_that_may_not_be_read():
    program = ("import os, sys\nfrom composeapps.cli import config\n"
               "os.setgroups([]); os.setgid(65534); os.setuid(65534)\nconfig.load(sys.argv[1])")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        file = Path(directory, "config.toml")
        file.touch(mode=0o600)
        done = subprocess.run([sys.executable, "-B", "-c", program, file], capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(LIB)})
    assert done.stderr.splitlines()[-1] == (
        f"composeapps.errors.UsageError: the configuration file {file} cannot be read: Permission denied")


@pytest.mark.parametrize("option", ["--store", "--compose-root", "--state-dir", "--docker-host"])
def test_an_option_that_is_empty_means_nothing(option, tmp_path):
    field = option[2:].replace("-", "_")
    with pytest.raises(UsageError, match=f"{option} is empty"):
        config.load(None, {field: ""})
    assert config.load(None, {"store": "here"}).store == Path("here").absolute()


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf[composeapps]\r\nparallel = 5\r\n")
    assert config.load(tmp_path / "config.toml").parallel == 5


@pytest.mark.parametrize("key", [*config.KEYS, *registries.KEYS], ids=lambda key: key.name)
def test_every_key_refuses_what_it_does_not_take(key, tmp_path):
    section = key.section.replace("HOST", "hub")
    for value in ('[[1]]', '{ a = 1 }', '-1', '1979-05-27', 'nan'):
        (tmp_path / "config.toml").write_text(f"[{section}]\n{key.name} = {value}\n")
        with pytest.raises(UsageError, match=f"'{key.name}' is not "):
            config.load(tmp_path / "config.toml")
