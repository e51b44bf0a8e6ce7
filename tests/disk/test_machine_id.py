# SPDX-License-Identifier: MIT
"""The machine-id that lasts: the copy on the data partition, a read-only root, a second slot, and what a cut leaves."""

import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[2] / "meta-composeapps/recipes-composeapps/composeapps-disk-config/files"
FIRST, OTHER = "a1" * 16, "b2" * 16


class Root:
    """A root file system's files; ``start`` is what a start does once systemd has drawn a number, if it had to."""

    def __init__(self, top):
        self.etc, self.run = top / "etc/machine-id", top / "run/machine-id"
        self.copy = top / "var/lib/composeapps/machine-id"
        for path in (self.etc, self.run):
            path.parent.mkdir(parents=True)
        self._top = top
        self._script = top / "composeapps-machine-id"
        self._script.write_text((FILES / "composeapps-machine-id").read_text().replace("@localstatedir@", "/var"))

    def start(self):
        done = subprocess.run(["sh", self._script, self._top], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def keep(self, text):
        self.copy.parent.mkdir(parents=True, exist_ok=True)
        self.copy.write_text(text)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def test_the_first_one_is_kept(root):
    root.etc.write_text(f"{FIRST}\n")
    root.start()
    assert root.copy.read_text() == root.etc.read_text() == f"{FIRST}\n"
    before = root.copy.stat()
    root.start()
    assert root.copy.stat() == before


@pytest.mark.parametrize("left", [
    "", "\n", FIRST[:9], f"{FIRST}{FIRST}\n", "uninitialized\n", f"{OTHER[:-1]}!\n", "\0" * 33])
def test_a_copy_that_is_none_is_made_anew(root, left):
    root.etc.write_text(f"{FIRST}\n")
    root.keep(left)
    root.start()
    assert root.copy.read_text() == f"{FIRST}\n" and root.etc.read_text() == f"{FIRST}\n"


@pytest.mark.parametrize("end", ["\n", ""])
def test_the_other_slot_gets_the_devices(root, end):
    root.etc.write_text(f"{OTHER}\n")
    root.keep(FIRST + end)
    root.start()
    assert root.etc.read_text() == f"{FIRST}\n" and root.etc.stat().st_mode & 0o777 == 0o444


def test_a_read_only_root_has_it_in_the_file_that_systemd_put_there(root):
    """systemd binds /run/machine-id over the root's; a second name of one inode stands for that."""
    root.run.write_text(f"{OTHER}\n")
    root.run.chmod(0o444)
    root.etc.hardlink_to(root.run)
    root.keep(f"{FIRST}\n")
    inode = root.run.stat().st_ino
    root.start()
    assert root.etc.read_text() == f"{FIRST}\n" and root.etc.stat().st_ino == root.run.stat().st_ino == inode


@pytest.mark.parametrize("text", [None, "", "uninitialized\n"])
def test_what_is_none_is_not_kept(root, text):
    if text is not None:
        root.etc.write_text(text)
    root.start()
    assert not root.copy.exists()
