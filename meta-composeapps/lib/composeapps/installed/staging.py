# SPDX-License-Identifier: MIT
"""New files of an app before any of them has its name.

They are written to the agent's own directory, all of them, and synced, before the first one is moved to where it
belongs. A few are synced one by one; of many the file system is, once: thousands of syncs take minutes on flash.
What a power cut leaves depends on when it comes:

- While they are written, and until the sync has returned: files ``new-N`` that nothing refers to. The app's directory
  is as it was. The next run removes them and begins anew; so does a full disk, or a bundle that turns out damaged.
- While they are moved, and until the directories are synced: under each name the old file or the new one, either whole,
  since a rename is one step and what it names was on the disk before. The record was durable before the first of
  them, and knows both, so the next run moves what is left.
- After that: the new ones.
"""

import contextlib
import os

from composeapps import beneath, durable

# More files, or directories, than these are synced at once with all else on their file system.
FEW = 16
# Of files that are being written; what a run that was cut off left is told by it.
PREFIX = "new"
_CHUNK = 1024 * 1024


class Staging:
    """New files in a directory of the agent's own; those that were not moved are gone at the end of a ``with``.

    Arguments:
        directory: the directory's descriptor, opened before anything is written: then it tells of errors since.

    Each file goes by a key. All methods raise OSError.
    """

    def __init__(self, directory):
        self.directory = directory
        self._names, self._serial, self._together, self._unsynced = {}, 0, False, False

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for name in self._names.values():
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.directory)
        self._names.clear()

    def __contains__(self, key):
        return key in self._names

    def expect(self, count):
        """Say how many files are going to be added; many are synced together."""
        self._together = self._together or count > FEW

    def add(self, files, content):
        """Write one content to several files.

        Arguments:
            files: {key: (mode, (user, group) or None for the process's own)}.
            content: a binary file; what it raises leaves nothing of them.
        """
        first = None
        for key, (mode, owner) in files.items():
            name = f"{PREFIX}-{self._serial}"
            self._serial += 1
            with contextlib.ExitStack() as end:
                out = end.enter_context(beneath.create(self.directory, name, mode, owner, sync=not self._together))
                source = content if first is None else end.enter_context(
                    open(beneath.open_file(self.directory, first), "rb"))
                while chunk := source.read(_CHUNK):
                    out.write(chunk)
            self._names[key], first = name, first or name
            self._unsynced = self._together

    def settle(self):
        """Have all that was added on the disk."""
        if self._unsynced:
            durable.sync_filesystem_of(self.directory)
            self._unsynced = False

    def take(self, key):
        """Return the name of a file that is going to be moved now; it is the caller's from here on."""
        return self._names.pop(key)
