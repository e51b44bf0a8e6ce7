# SPDX-License-Identifier: MIT
"""Repositories as a factory makes them, with its own commands, and python-tuf's client as a device beside them."""

import contextlib
import io
import os
import shutil
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from composeapps.cli import main

DIGEST = "sha256:" + "a1" * 32
WEB = f"hub.demo.test/factory/web@{DIGEST}"


def make_key(path):
    """Make a key without a pass phrase, which takes no time."""
    key = Ed25519PrivateKey.generate()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def command(*words, of="target"):
    """Run ``composeapps target``, or bundle; return its status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    # The program reconfigures its output, which a StringIO does not have.
    out.reconfigure = lambda **_settings: None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main.main([of, *map(str, words)])
        except SystemExit as end:
            status = end.code
    assert "Traceback" not in err.getvalue()
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


class _Files(FetcherInterface):
    """Gives the files of a directory as a web server would."""

    def __init__(self, directory):
        self._directory = directory

    def _fetch(self, url):
        path = self._directory / url.rpartition("/")[2]
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        return iter([path.read_bytes()])


class Device:
    """python-tuf's own client, which keeps what it has seen below ``place``."""

    def __init__(self, place, repository, root):
        self._place, self._repository, self._root = place, repository, root
        place.mkdir()

    def find(self, name):
        """Return ``custom`` of a Target, None when there is no such; raises what the client raises."""
        updater = Updater(str(self._place), "https://factory.test/", fetcher=_Files(self._repository),
                          bootstrap=self._root)
        updater.refresh()
        found = updater.get_targetinfo(name)
        return found.custom if found else None


class Factory:
    """A repository below ``place``, its keys, and devices that began with its first root."""

    def __init__(self, place):
        self.place, self.repository, self.keys = place, place / "repo", place / "keys"
        self._devices = 0

    def key(self, name):
        """Make a key of that name, beside the others."""
        return make_key(self.keys / f"{name}.pem")

    def run(self, action, *words, keys=True):
        """Run a command on the repository, with all keys."""
        return command(action, self.repository, *words, *(["--keys", self.keys] if keys else ()))

    def do(self, action, *words, keys=True):
        """Run a command that has to succeed."""
        done = self.run(action, *words, keys=keys)
        assert done.status == 0, done.err
        return done

    def create(self, *words, run=None):
        """Create a Target "shop" for the tag main."""
        tag = () if "--tag" in words or "--wave" in words else ("--tag", "main")
        return (run or self.do)("create", "--name", "shop", "--hardware", "pc", *tag, "--app", WEB, "--unchecked",
                                *words)

    def device(self):
        """Return a Device that knows the first root alone."""
        self._devices += 1
        return Device(self.place / f"device{self._devices}", self.repository,
                      (self.repository / "1.root.json").read_bytes())

    def files(self):
        """Return {name: content} of the repository."""
        return {path.name: path.read_bytes() for path in self.repository.iterdir()}


@pytest.fixture(scope="session")
def first_factory(tmp_path_factory):
    """The directory of a Factory whose repository has no Target yet; copied, never changed."""
    place = tmp_path_factory.mktemp("factory")
    factory = Factory(place)
    factory.keys.mkdir()
    for name in ("root", "targets", "online"):
        factory.key(name)
    factory.do("init")
    return place


@pytest.fixture
def factory(first_factory, tmp_path):
    """A Factory whose repository has no Target yet."""
    shutil.copytree(first_factory, tmp_path / "factory")
    return Factory(tmp_path / "factory")
