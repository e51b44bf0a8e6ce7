# SPDX-License-Identifier: MIT
"""The single steps that repairs are made of: each one whole or not there after a power cut.

In a dry run none of them does anything. What is not certain to be worthless is set aside, under
``lost+fsck/<number>/`` with the path it had, instead of being deleted. At most KEEP runs are kept
there, and not more than a share of the file system: then the oldest go, and of the newest the
layers, which can be loaded again; a container's own files are kept.
"""

import contextlib
import errno
import os
import stat

from composeapps import beneath, durable
from composeapps.dockerstore import layout

KEEP = 8
SHARE = 20  # 1/20 of the file system
FLOOR = 64 * 1024 * 1024
TEMPORARY = ".tmp-fsck-"


class Actions:
    """Steps below a Root.

    Arguments:
        root: the Root.
        dry_run: do nothing.

    Methods raise OSError. ``changed`` tells whether anything was done.
    """

    def __init__(self, root, dry_run=False):
        self.root, self.dry_run = root, dry_run
        self.changed = False
        self.lost = None

    def write(self, path, data, mode=0o644):
        """Give a file new content (bytes); what is there and no file is set aside."""
        if self.dry_run:
            return
        self._clear(path, stat.S_ISREG)
        self.changed = True
        with self.root.parent(path) as (directory, name):
            temporary = TEMPORARY + name[:200]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode,
                                 dir_fd=directory)
            try:
                with open(descriptor, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fchmod(descriptor, mode)
                    os.fsync(descriptor)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            os.fsync(directory)

    def symlink(self, path, target):
        """Make a symbolic link, in place of what is there."""
        if self.dry_run:
            return
        self._clear(path, lambda mode: not stat.S_ISDIR(mode))
        self.changed = True
        with self.root.parent(path) as (directory, name):
            temporary = TEMPORARY + name[:200]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            os.symlink(target, temporary, dir_fd=directory)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)

    def mkdir(self, path, mode, owner=(0, 0)):
        """Make a directory unless there is one; what is there and none is set aside."""
        if self.dry_run:
            return
        self._clear(path, stat.S_ISDIR)
        with self.root.parent(path) as (directory, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=directory)
                os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
                self.changed = True
            os.fsync(directory)

    def rename(self, path, new):
        """Rename something; both paths lie in one file system."""
        if self.dry_run:
            return
        self.changed = True
        with self.root.parent(path) as (source, name), self.root.parent(new) as (target, new_name):
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
            os.fsync(target)
            os.fsync(source)

    def delete(self, path):
        """Remove a file or a tree; nothing happens when there is none."""
        if self.dry_run:
            return
        self.changed = True
        try:
            with self.root.parent(path) as (directory, name):
                beneath.remove_tree(directory, name)
                os.fsync(directory)
        except FileNotFoundError:
            return

    def set_aside(self, path):
        """Move a file or tree to lost+fsck; nothing happens when there is none."""
        if self.dry_run or self.root.lstat(path) is None:
            return
        self.changed = True
        if self.lost is None:
            self.lost = self._new_lost()
        where = f"{self.lost}/{path}"
        self._make_parents(where)
        number = 0
        while self.root.lstat(where) is not None:
            number += 1
            where = f"{self.lost}/{path}~{number}"
        try:
            self.rename(path, where)
        except OSError as err:
            if err.errno != errno.EXDEV:
                raise
            # overlay2 may be a file system of its own; what lies there stays there.
            raise OSError(err.errno, "lies on another file system than the data root and cannot be set aside",
                          path) from None

    def _clear(self, path, fits):
        found = self.root.lstat(path)
        if found is not None and not fits(found.st_mode):
            self.set_aside(path)

    def _new_lost(self):
        self.mkdir(layout.LOST, 0o700)
        numbers = [int(name) for name in self.root.names(layout.LOST) if name.isdigit() and len(name) < 9]
        path = f"{layout.LOST}/{max(numbers, default=0) + 1:04}"
        self.mkdir(path, 0o700)
        return path

    def _make_parents(self, path):
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            parent = "/".join(parts[:count])
            if not self.root.is_directory(parent):
                self.mkdir(parent, 0o700)

    def trim(self):
        """Keep lost+fsck within its bounds; after everything else is durable."""
        if self.dry_run or self.lost is None:
            return
        found = os.statvfs(self.root.fd)
        budget = max(found.f_blocks * found.f_frsize // SHARE, FLOOR)
        runs = [name for name in self.root.names(layout.LOST) if name.isdigit()]
        runs.sort(key=int)
        for name in runs[:-KEEP]:
            self.delete(f"{layout.LOST}/{name}")
        runs = runs[-KEEP:]
        with self.root.directory(layout.LOST) as directory:
            sizes = {name: beneath.used(directory, name) for name in runs}
        while len(runs) > 1 and sum(sizes[name] for name in runs) > budget:
            oldest = runs.pop(0)
            self.delete(f"{layout.LOST}/{oldest}")
        if sizes[runs[-1]] > budget:
            # Cache directories of layers have no "-init" beside them; a container's have.
            names = self.root.names(f"{self.lost}/{layout.OVERLAY}")
            for name in names:
                if not self.root.is_directory(f"{self.lost}/{layout.OVERLAY}/{name}/work/work"):
                    self.delete(f"{self.lost}/{layout.OVERLAY}/{name}")

    def sync(self):
        """Write out all that was changed, and what other programs left unwritten."""
        if self.dry_run:
            return
        durable.sync_filesystem(self.root.path)
        if self.root.is_directory(layout.OVERLAY):
            found = self.root.lstat(layout.OVERLAY)
            if found.st_dev != os.fstat(self.root.fd).st_dev:
                durable.sync_filesystem(os.path.join(self.root.path, layout.OVERLAY))
