# SPDX-License-Identifier: MIT
"""One writer at a time: advisory locks that die with their process.

Two of them. The lock of the state is held by whoever changes apps or their records. The lock of downloads
is held by whoever gets blobs from a registry, and says for which versions: that may take a day, in which
the state's lock is free, so that apps can be started, stopped and removed. Whoever holds the state's
lock never waits for the other one, so that the two never wait for each other. What a download wants is written
down while it holds both, so a pruning, which holds the state's lock, sees all downloads that are under way.
"""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

from composeapps import beneath, durable
from composeapps.errors import LockedError

# Where a holder says who it is: not on the flash, which a boot that changes nothing is not to write to.
RUNTIME = Path("/run/composeapps")


class Held:
    """A lock that this process holds; ``released`` lets go of it for a while."""

    def __init__(self, path, stream):
        self._path, self._stream, self.is_held = path, stream, False

    def take(self, wait=False, notify=lambda text: None, subjects=()):
        """Take the lock, as ``exclusive`` does."""
        stream = self._stream
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = holder(self._path)
            words = found[1] if found else next(filter(None, _words(self._path)), "another process")
            if not wait:
                raise LockedError(f"{words} is at work on the apps (lock {self._path}): wait for it, or stop it"
                                  ) from None
            notify(f"waiting for {words}, which is at work on the apps")
            fcntl.flock(stream, fcntl.LOCK_EX)
        self.is_held = True
        words = f"process {os.getpid()} ({' '.join(Path(word).name for word in sys.argv[:2])})"
        lines = [words, *subjects]
        # Subjects of another time must not stay.
        if len(lines) == 1 and b"\n" not in os.pread(stream.fileno(), 4096, 0).strip() and _say(stream, words):
            return
        _hush(stream)
        # On a full disk the lock is held all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(stream.fileno(), 0)
            os.pwrite(stream.fileno(), "".join(f"{line}\n" for line in lines).encode(), 0)

    def drop(self):
        """Let go of it."""
        if self.is_held:
            _hush(self._stream)
        self.is_held = False
        fcntl.flock(self._stream, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def released(self, notify=lambda text: None):
        """Let go of it within the block, and wait for it at the end: all that was read before may have changed."""
        self.drop()
        try:
            yield
        finally:
            self.take(wait=True, notify=notify)


@contextlib.contextmanager
def exclusive(path, wait=False, notify=lambda text: None, subjects=()):
    """Hold the lock file ``path``, made if need be.

    Arguments:
        path: the lock file.
        wait: wait for another process that has it, as long as it takes.
        notify: called with a sentence before waiting.
        subjects: texts of one line each that ``subjects_of`` returns meanwhile. They are in the lock file; who has
            none to tell leaves that as it is.

    Gives the Held. Raises LockedError, naming the holder, when another process has it and ``wait`` is not set.
    """
    path = Path(path)
    with durable.storage_errors("taking the lock"):
        durable.make_directories(path.parent)
        descriptor = beneath.unnoted(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o644)
    with open(descriptor, "r+", errors="replace") as stream:
        held = Held(path, stream)
        held.take(wait, notify, subjects)
        try:
            yield held
        finally:
            held.drop()


def _said_in(status):
    """Return where the holder of a lock file says who it is, by the file's os.stat_result."""
    return RUNTIME / f"lock-{status.st_dev:x}-{status.st_ino:x}"


def _say(stream, words):
    """Tell other processes who holds a lock; return whether that was possible."""
    try:
        RUNTIME.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(_said_in(os.fstat(stream.fileno())),
                             os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError:
        return False
    try:
        return os.write(descriptor, f"{words}\n".encode()) > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _hush(stream):
    with contextlib.suppress(OSError):
        os.unlink(_said_in(os.fstat(stream.fileno())))


def _words(path):
    """Return what holders of a lock file said: the first lines of what is in RUNTIME and of the file, "" for none."""
    found = []
    with contextlib.suppress(OSError):
        for place in (_said_in(os.stat(path)), path):
            try:
                with beneath.open_regular(place) as stream:
                    text = stream.read(200).decode(errors="replace")
            except OSError:
                text = ""
            found.append(next(iter(text.splitlines()), "").strip())
    return found


def subjects_of(path):
    """Return the texts that another process gave, which holds the lock file ``path``; [] when none does."""
    found = holder(path)
    if found is None or found[0] == os.getpid():
        return []
    try:
        return beneath.read_regular(path).decode(errors="replace").splitlines()[1:]
    except OSError:
        return []


def holder(path):
    """Return (process ID, words) of the process that holds the lock file ``path``, or None.

    Nothing is locked for that, not even for a moment: a command that starts meanwhile gets the lock.
    """
    try:
        inode = os.stat(path).st_ino
        # The kernel takes long over the list of all locks, and a process that is gone holds none.
        said = [words for words in _words(path) if _lives(words)]
        if not said:
            return None
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    for line in locks.splitlines():
        fields = line.split()
        # NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END; one that waits has "->" before its kind.
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            pid = int(fields[4])
            # The device's number there is not always the one that stat gives; the process's own word decides.
            for words in said:
                if words.startswith(f"process {pid} "):
                    return pid, words
    return None


def _lives(words):
    told = "".join(words.split()[1:2])
    return told.isdecimal() and os.path.exists(f"/proc/{told}")
