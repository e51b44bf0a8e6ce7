# SPDX-License-Identifier: MIT
"""Having the data partition there, as large as the disk lets it be, with a file system: what a boot does before /var.

Each step finds by itself whether it has anything to do, so that one which a power cut ended is done by the next boot.
"""

from composeapps.disk import filesystem, table
from composeapps.errors import ComposeAppsError, StorageError

NAME = "data"
# What the image's own /var has without store and images, for a file system that is made anew.
SKELETON = "/usr/share/composeapps/var"


def prepare(disk, notify, skeleton=SKELETON, whole=True):
    """Have the data partition ready to be mounted.

    Arguments:
        disk: the table.Disk that the root file system is on.
        notify: called with a sentence for each thing that is done or cannot be done.
        skeleton: the directory whose content a new file system gets.
        whole: have a file system, too; not where one is about to be made.

    Returns the table.Partition. Raises StorageError, NotFoundError when there is none, and OSError. A partition that
    cannot grow is used as it is.
    """
    part = disk.partition(NAME)
    if part is None:
        notify(f"{disk.device} has no data partition; making one")
        part = disk.append(NAME, table.DATA_TYPE)
    elif disk.room_behind(part):
        try:
            disk.grow(part)
            part = disk.partition(NAME)
            notify(f"the data partition {part.device} has {part.size * table.SECTOR >> 20} MiB now")
        except ComposeAppsError as err:
            notify(f"the data partition {part.device} stays as small as it is: {err}")
    table.wait_for(part.device)
    if whole and not filesystem.ready(part.device):
        _file_system(part.device, notify, skeleton)
    return part


def _file_system(device, notify, skeleton):
    # One that was not made to its end has nothing of value; nor has one of which not even a copy of the superblock is
    # left.
    if filesystem.label(device) is None:
        if filesystem.recover(device, notify):
            return
        found = filesystem.other(device)
        if found:
            raise StorageError(f"{device} holds {found}, which is left alone: the device needs a data partition with "
                               f"ext4, and 'mkfs.ext4 -L data {device}' makes one")
    notify(f"{device} has no file system; making one")
    filesystem.make(device, skeleton)
