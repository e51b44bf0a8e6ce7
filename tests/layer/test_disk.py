# SPDX-License-Identifier: MIT
"""The check of the disk: that it sees what another wic made otherwise. wic itself is not to be had here."""

from types import SimpleNamespace

import pytest

import hostsetup
from layercheck import wicdisk
from layercheck.progress import Progress
from layercheck.results import Status

pytestmark = pytest.mark.root

# Gets what wic gets, and makes the fast lane's disk once more.
STAND_IN = """\
#!/bin/bash -e
while [ "$1" != -o ]; do shift; done
mkdir "$2"
cp --sparse=always "$2/../fast.img" "$2/layer.direct"
disk=$2/layer.direct
PATH=$PATH:/usr/sbin:/sbin
"""


@pytest.fixture
def check(tmp_path):
    """Run the check with a small store and a stand-in for wic that goes on with these commands."""
    def run(commands):
        wic = tmp_path / "wic"
        wic.write_text(STAND_IN + commands)
        wic.chmod(0o755)
        context = SimpleNamespace(top=hostsetup.TOP, directory=tmp_path / "check", layer=hostsetup.LAYER,
                                  progress=Progress(quiet=True))
        (result,) = wicdisk.run(context, str(wic), [(1, 5000)])
        return result
    return run


def test_the_same_disk_passes(check):
    result = check("")
    assert (result.status, result.problems) == (Status.PASSED, [])


@pytest.mark.parametrize("commands, says", [
    ('sfdisk -q --part-label "$disk" 3 preload', "partitions boot, root, factory, provision, data, wic"),
    ('sfdisk -q --part-type "$disk" 5 0fc63daf-8483-4772-8e79-3d69d8477de4', "data: type is"),
    (r"set -- $(sfdisk --dump $disk | sed -n 's/.*start= *\([0-9]*\).*/\1/p')" "\n"
     'dd if=/dev/zero of="$disk" bs=512 seek=$(($2 + 8)) count=400 conv=notrunc status=none', "root, wic: "),
    ("echo no room for it; exit 1", "no room for it"),
])
def test_what_differs_is_named(check, commands, says):
    result = check(commands)
    assert result.status == Status.FAILED and says in "\n".join(result.problems)


def test_without_wic_it_is_not_said_that_the_layer_failed(tmp_path):
    context = SimpleNamespace(layer=hostsetup.LAYER)
    (result,) = wicdisk.run(context, str(tmp_path / "wic"))
    assert result.status == Status.UNREACHED and "--wic" in result.problems[0]
