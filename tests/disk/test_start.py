# SPDX-License-Identifier: MIT
"""What a boot does before the data partition is mounted, with a boot partition that is of no use."""

from pathlib import Path

import pytest

from composeapps.cli import data_partition
from composeapps.cli.config import Config
from composeapps.disk import filesystem, reset, table, wish
from composeapps.records import resetnote

pytestmark = pytest.mark.root


class Disk:
    """Two files in place of a disk's partitions, and a boot partition on which nothing can be mounted."""

    def __init__(self, top):
        self.device, self._top = top / "disk", top
        for name in ("boot", "data"):
            with open(top / name, "wb") as stream:
                stream.truncate(32 << 20)

    def partition(self, name):
        return table.Partition(self._top / name, 1, 2048, 65536)

    def room_behind(self, _part):
        return 0


@pytest.fixture
def places(tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "root/etc").mkdir(parents=True)
    config = Config(store=tmp_path / "var/store", compose_root=tmp_path / "var/apps", state_dir=tmp_path / "var/state")
    return reset.Places(tmp_path / "var", config, tmp_path / "var/docker", tmp_path / "skeleton", tmp_path / "root")


def start(disk, origin, places):
    said = []
    again = data_partition.start(disk, origin, lambda: places, lambda text, level="": said.append(f"{level}{text}"))
    return again, said


def test_a_boot_partition_that_cannot_be_read_keeps_the_data_partition_from_nothing(tmp_path, places):
    again, said = start(Disk(tmp_path), "", places)
    assert not again and filesystem.ready(tmp_path / "data")
    assert [line for line in said if line.startswith("<3>") and "no reset that is written down there" in line]


def test_a_reset_that_the_command_line_asks_for_needs_no_boot_partition(tmp_path, places):
    disk = Disk(tmp_path)
    filesystem.make(tmp_path / "data")
    with wish.mounted(tmp_path / "data", "ext4", "rw", place=tmp_path / "var"):
        Path(tmp_path, "var/mine").write_text("mine")
    again, said = start(disk, "kernel", places)
    # The wish cannot be taken away, since it could not be written; starting once more would not end.
    assert not again and "the factory reset is done" in said[-1]
    with wish.mounted(tmp_path / "data", "ext4", "ro", place=tmp_path / "var"):
        assert not Path(tmp_path, "var/mine").exists()
        assert resetnote.read(places.config.state_dir)["origin"] == "kernel"
