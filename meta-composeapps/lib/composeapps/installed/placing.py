# SPDX-License-Identifier: MIT
"""Bringing an app's directory to what a bundle says, file by file, and leaving alone what is the user's.

Each member of the bundle is one of these:

- Where a container may write, or ever might, all is the user's. Members there are seeds: one that is missing
  is written, one that is still as the agent wrote it gets the new content, any other is kept, and that is
  told. Nothing there is moved, nothing changes its owner or mode, and a directory stays the one it is.
- Elsewhere members are what the bundle says, and what is not so is mended. What was there before the agent
  wrote anything under that name is set aside.

What is no member is not touched at all. A file gets its name when it is whole and on the disk, in one step, and the
first one when all of them are (``staging``).

The record (``placed``) says what is going to be written before it is. What was in the way is set aside before that:
what stands under a name which the record has is never taken for older than the agent. So whatever a cut leaves, each
file is known: as one that the agent wrote, this time or before, or as the user's. The next run does the rest.
Directories are opened one by one and no link is followed, so a container that puts links in the way while
this runs gains nothing.
"""

import contextlib
import errno
import os
import posixpath
import stat

from composeapps import beneath, durable
from composeapps.app import bundle as bundles
from composeapps.installed import mounts, staging
from composeapps.installed.placed import found_mark, mark_of

# What a name gives that is not, or not any more, what it was a moment ago.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO)
_CHUNK = 1024 * 1024
_LARGE = 64 * 1024
# A new seed while it and the old one change their names.
SWAPPED = "swapped"


class Work:
    """What an app's directory lacks to be as a bundle says.

    Arguments:
        placed: the Placed.
        root: the Root of the compose root.
        record: the Record.
        index: the bundle's {name: Member}.
        was_whole: what ``whole`` was in the record before, None when there was none.
        notify: called with a sentence about what is kept or set aside.

    ``problems`` are sentences about what is not so, ``missing`` the names of files and links that are to be
    written, ``kept`` the names of members that the user has changed.
    """

    def __init__(self, placed, root, record, index, was_whole=None, notify=lambda text: None):
        self._placed, self._root, self._record, self._index = placed, root, record, index
        self._was_whole = was_whole
        self._notify = notify
        self._told, self._read = set(), {}
        self._begin()

    def _begin(self):
        self.problems, self.missing, self.kept, self._blocked, self._touched = [], [], set(), set(), set()

    def look(self):
        """Find out; nothing is changed. Raises OSError."""
        self._begin()
        self._survey(False)
        return self

    def prepare(self):
        """Remove what only an older bundle had, set aside what is in the way, and make the directories.

        Then what is ``missing`` can be moved there. Raises OSError.
        """
        self._begin()
        with self._root.walk() as walk:
            for name in sorted(self.obsolete(), reverse=True):
                self._remove_old(walk, name)
        self._survey(True)

    def obsolete(self):
        """Return the names of what the agent wrote and this bundle does not have."""
        return self._record.members.keys() - self._index.keys()

    def finish(self):
        """Make all names durable; raises OSError."""
        if len(self._touched) <= staging.FEW:
            for path in sorted(self._touched):
                self._root.sync(path)
            return
        device = os.fstat(self._root.fd).st_dev
        with self._root.walk() as walk:
            for path in sorted(self._touched):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    directory = walk.directory(path)
                    # Another file system is mounted there, or above it.
                    if os.fstat(directory).st_dev != device:
                        os.fsync(directory)
        durable.sync_filesystem_of(self._root.fd)

    def _path(self, name):
        return f"{self._placed.name}/{name}" if name else str(self._placed.name)

    def _is_users(self, name):
        return mounts.within(name, self._record.places)

    def _survey(self, apply):
        self._survey_top(apply)
        with self._root.walk() as walk:
            for name in sorted(self._index):
                parent = posixpath.dirname(name)
                if parent in self._blocked:
                    self._blocked.add(name)
                    self.kept.add(name)
                    continue
                try:
                    directory, last = walk.parent(self._path(name))
                    self._survey_one(name, self._index[name], directory, last, apply)
                except OSError as err:
                    if err.errno not in _NOT_THERE:
                        raise
                    # Nothing leads there, or what does was changed a moment ago.
                    self.problems.append(f"{name} is missing")
                    if self._index[name].kind != bundles.DIRECTORY:
                        self.missing.append(name)

    def _survey_top(self, apply):
        """Look at the app's own directory; only where a service mounts all of it others may look into it."""
        name, whole = str(self._placed.name), self._record.whole
        found = self._root.lstat(name)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            self.problems.append(f"{self._placed.directory} is no directory")
        elif found is None:
            self.problems.append(f"{self._placed.directory} is missing")
        mode = stat.S_IMODE(found.st_mode) if found is not None and stat.S_ISDIR(found.st_mode) else None
        # What containers of other users see becomes theirs to look into, once: from then on it is as they leave it.
        wanted = mode & 0o7700 if mode is not None and not whole else mode
        if mode is not None and whole and self._was_whole is False:
            wanted = mode | 0o055
        if wanted != mode:
            self.problems.append(f"{self._placed.directory} has another mode")
        if not apply:
            return
        parts = self._placed.name.components
        for count in range(1, len(parts)):
            self._root.make_directory("/".join(parts[:count]), 0o711)
        if found is not None and mode is None:
            with self._root.parent(name) as (directory, last):
                self._set_aside("", directory, last)
        self._root.make_directory(name, 0o755 if whole else 0o700)
        if wanted != mode:
            with self._root.directory(name) as descriptor:
                os.fchmod(descriptor, wanted)

    def _survey_one(self, name, member, directory, last, apply):
        try:
            status = os.stat(last, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if member.kind == bundles.DIRECTORY:
            self._survey_directory(name, member, directory, last, status, apply)
        elif status is None:
            self.problems.append(f"{name} is missing")
            self.missing.append(name)
        else:
            self._survey_file(name, member, directory, last, status, apply)

    def _survey_directory(self, name, member, directory, last, status, apply):
        if status is not None and not stat.S_ISDIR(status.st_mode):
            if self._is_users(name) and not self._is_ours(name, directory, last, status):
                self._blocked.add(name)
                self._keep(name, f"{name} is no directory but what its user made of it: nothing is written below it")
                return
            self.problems.append(f"{name} is no directory")
            if apply:
                self._clear(name, directory, last, status)
            status = None
        elif status is None:
            self.problems.append(f"{name} is missing")
        if status is None and apply:
            beneath.make_directory(directory, last, member.mode if member.mode >= 0 else 0o755, sync=False)
            self._touched.add(posixpath.dirname(self._path(name)))
        elif status is not None and not self._is_users(name) and member.mode >= 0 and self._differs(status, member) \
                and status.st_dev == os.fstat(directory).st_dev:
            self.problems.append(f"{name} has another mode or owner")
            if apply:
                self._set_mode(os.open(last, beneath.DIRECTORY, dir_fd=directory), member)

    def _survey_file(self, name, member, directory, last, status, apply):
        new = mark_of(member)
        mark = self._mark(name, directory, last, status, (new, *self._record.members.get(name, ())))
        users = self._is_users(name)
        if mark == new:
            if member.kind == bundles.FILE and not users and self._differs(status, member):
                self.problems.append(f"{name} has another mode or owner")
                if apply:
                    self._set_mode(beneath.open_file(directory, last), member)
            return
        if users and not self._record.knows(name, mark):
            self._keep(name, f"{name} was changed by its user and is kept, although the bundle has another one")
            return
        self.problems.append(f"{name} {self._what(member, status)}")
        self.missing.append(name)
        if apply and (stat.S_ISDIR(status.st_mode) or name not in self._record.members):
            self._clear(name, directory, last, status)

    def _mark(self, name, directory, last, status, expected):
        """Return the mark of a file; a large one that is as ``look`` found it a moment ago is not read again.

        Who changes it so that nothing shows could as well do so after a look; a seed is looked at again when it goes.
        """
        if status.st_size < _LARGE:
            return found_mark(directory, last, status, expected)
        state = (status.st_mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, mark = self._read.get(name, (None, None))
        if known != state:
            mark = found_mark(directory, last, status, expected)
            self._read[name] = state, mark
        return mark

    def _what(self, member, status):
        if member.kind == bundles.LINK:
            return f"is not the link to {ascii(member.target)[1:-1]}"
        return "has other content" if stat.S_ISREG(status.st_mode) else "is no file"

    def _is_ours(self, name, directory, last, status):
        return self._record.knows(name, found_mark(directory, last, status, self._record.members.get(name, ())))

    @staticmethod
    def _differs(status, member):
        return stat.S_IMODE(status.st_mode) != member.mode \
            or os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, 0)

    @staticmethod
    def _set_mode(descriptor, member):
        try:
            if os.geteuid() == 0:
                os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, member.mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _keep(self, name, sentence):
        self.kept.add(name)
        # Once for each content that the user does not get.
        if mark_of(self._index[name]) not in self._record.members.get(name, ()) and name not in self._told:
            self._told.add(name)
            self._notify(f"{self._placed.name}: {sentence}")

    def _clear(self, name, directory, last, status):
        """Make room for a member: remove what is the agent's there, set the rest aside."""
        if self._is_ours(name, directory, last, status) or name in self._record.members \
                and not stat.S_ISDIR(status.st_mode):
            try:
                if stat.S_ISDIR(status.st_mode):
                    os.rmdir(last, dir_fd=directory)
                else:
                    os.unlink(last, dir_fd=directory)
                return
            except OSError as err:
                if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        self._set_aside(name, directory, last)

    def _set_aside(self, name, directory, last):
        path = f"{self._placed.private}/before/{name or last}"
        self._root.make_directories(posixpath.dirname(path), 0o700)
        path = self._root.unused(path)
        try:
            with self._root.parent(path) as (target, new):
                os.rename(last, new, src_dir_fd=directory, dst_dir_fd=target)
                os.fsync(target)
        except OSError as err:
            if err.errno != errno.EXDEV:
                raise
            # A file system of the owner's is mounted there: it stays on that.
            path = self._root.unused(f"{self._path(name)}.before")
            os.rename(last, posixpath.basename(path), src_dir_fd=directory, dst_dir_fd=directory)
        self._notify(f"{self._placed.name}: {name or last} was there before, is not of the bundle, and is now "
                     f"{self._placed.root / path}")

    def _remove_old(self, walk, name):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            directory, last, status = self._find(walk, name)
            marks = self._record.members.get(name, ())
            users = self._is_users(name)
            if stat.S_ISDIR(status.st_mode):
                if name not in self._record.places:
                    with contextlib.suppress(OSError):
                        os.rmdir(last, dir_fd=directory)
                return
            if users and not (marks and self._record.knows(name, found_mark(directory, last, status, marks))):
                self._notify(f"{self._placed.name}: {name} is not of the bundle any more; its user has changed it, "
                             "and it stays")
                return
            os.unlink(last, dir_fd=directory)
            self._touched.add(posixpath.dirname(self._path(name)))

    def _find(self, walk, name):
        """Return (descriptor of its directory, its name there, its state) of a member; raises OSError."""
        try:
            directory, last = walk.parent(self._path(name))
            return directory, last, os.stat(last, dir_fd=directory, follow_symlinks=False)
        except OSError as err:
            if err.errno == errno.ELOOP:
                raise NotADirectoryError(err.errno, err.strerror, name) from None
            raise

    def write_links(self):
        """Write the links among ``missing``; raises OSError."""
        links = [name for name in self.missing if self._index[name].kind == bundles.LINK]
        with self._root.directory(self._placed.private) as private, self._root.walk() as walk:
            for name in links:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink("new", dir_fd=private)
                os.symlink(self._index[name].target, "new", dir_fd=private)
                self._give_name(walk, name, private, "new")

    def files(self):
        """Return {name: (mode, owner)} of the files among ``missing``, as a Staging takes them."""
        with self._root.walk() as walk:
            return {name: (self._index[name].mode, self._owner(walk, name)) for name in self.missing
                    if self._index[name].kind == bundles.FILE}

    def move(self, staged):
        """Give the files of a Staging that are on the disk their names; raises OSError."""
        with self._root.walk() as walk:
            for name in self.missing:
                if name in staged:
                    self._give_name(walk, name, staged.directory, staged.take(name))

    def _owner(self, walk, name):
        """Return whose a seed is that gets new content: who has it now, else nobody in particular."""
        if self._is_users(name):
            with contextlib.suppress(OSError):
                _directory, _last, status = self._find(walk, name)
                return status.st_uid, status.st_gid
        return None

    def _give_name(self, walk, name, private, temporary):
        """Move a new file to where it belongs; what a user has put there in this moment stays."""
        try:
            directory, last = walk.parent(self._path(name))
            try:
                self._put(name, private, temporary, directory, last)
            except OSError as err:
                if err.errno != errno.EXDEV:
                    raise
                # Another file system is mounted there.
                with self._copied(private, temporary, directory) as near:
                    self._put(name, directory, near, directory, last)
            self._touched.add(posixpath.dirname(self._path(name)))
        except OSError as err:
            if err.errno not in _NOT_THERE or not self._is_users(name):
                raise
            self._keep(name, f"{name} cannot be written, since its user has put something in the way of it")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=private)

    def _put(self, name, source, temporary, directory, last):
        if not self._is_users(name):
            os.rename(temporary, last, src_dir_fd=source, dst_dir_fd=directory)
        elif not self._put_seed(name, source, temporary, directory, last):
            self._keep(name, f"{name} was changed by its user just now and is kept")

    @staticmethod
    @contextlib.contextmanager
    def _copied(private, temporary, directory):
        """Give the name of a copy in another directory; what is left of it goes."""
        near = f".composeapps-{os.urandom(6).hex()}"
        if not _exists(private, temporary):
            temporary = SWAPPED
        status = os.stat(temporary, dir_fd=private, follow_symlinks=False)
        try:
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(temporary, dir_fd=private), near, dir_fd=directory)
            else:
                owner = (status.st_uid, status.st_gid)
                with beneath.create(directory, near, stat.S_IMODE(status.st_mode), owner) as out, \
                        open(beneath.open_file(private, temporary), "rb") as content:
                    while chunk := content.read(_CHUNK):
                        out.write(chunk)
            yield near
        finally:
            for descriptor, left in ((directory, near), (private, temporary)):
                with contextlib.suppress(OSError):
                    os.unlink(left, dir_fd=descriptor)

    def _put_seed(self, name, source, temporary, directory, last):
        """Give a seed its name unless the user has something there; return whether it has it."""
        if not _exists(directory, last):
            try:
                beneath.rename(source, temporary, directory, last, beneath.NO_REPLACE)
            except FileExistsError:
                return False
            return True
        if source != directory:
            # By this name it is not taken for something unfinished: it may be the user's in a moment.
            os.rename(temporary, SWAPPED, src_dir_fd=source, dst_dir_fd=source)
            temporary = SWAPPED
        if not beneath.rename(source, temporary, directory, last, beneath.EXCHANGE):
            return True
        # What was there is looked at when nobody can reach it any more by its name.
        status = os.stat(temporary, dir_fd=source, follow_symlinks=False)
        marks = self._record.members.get(name, ())
        done = not stat.S_ISDIR(status.st_mode) and found_mark(source, temporary, status, marks) in marks
        if not done:
            beneath.rename(source, temporary, directory, last, beneath.EXCHANGE)
        os.unlink(temporary, dir_fd=source)
        return done

    def tidy(self, private):
        """Remove what a run that was cut off left in the agent's own directory (a descriptor); raises OSError.

        What may be a user's of it is set aside.
        """
        names = os.listdir(private)
        for name in names:
            if name.startswith(staging.PREFIX):
                os.unlink(name, dir_fd=private)
        if SWAPPED not in names:
            return
        status = os.stat(SWAPPED, dir_fd=private, follow_symlinks=False)
        marks = {mark for marks in self._record.members.values() for mark in marks}
        if found_mark(private, SWAPPED, status, marks) in marks:
            os.unlink(SWAPPED, dir_fd=private)
        else:
            self._set_aside("", private, SWAPPED)


def _exists(directory, name):
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
