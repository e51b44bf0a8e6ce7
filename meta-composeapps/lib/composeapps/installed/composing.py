# SPDX-License-Identifier: MIT
"""Running docker compose: which program it is, one at a time for each app, in an environment of its own, not for ever.

Its process holds a lock that it inherits from the agent, so a compose that outlives an agent which was
killed is found, and ended before the next one begins.
"""

import collections
import contextlib
import fcntl
import os
import time

from composeapps import durable, programs
from composeapps.errors import EngineError

# Seconds that a compose which is to end gets to do so by itself.
_PATIENCE = 10
# So many of its last lines are told.
_LAST = 3
# The first argument becomes compose's process ID, for the agent that comes after one that was killed.
# A disk that is too full for the number keeps no app from starting.
_LAUNCH = '{ echo $$ > "$1"; } 2> /dev/null; shift; exec "$@"'


def command(config):
    """Return the argument list that starts docker compose; raises EngineError when there is none."""
    if config.compose_command:
        return list(config.compose_command)
    from composeapps.app import composecheck

    if program := composecheck.find():
        return [program]
    raise EngineError("docker compose is not installed: install it, or set compose_command in the configuration")


def run(config, options, words, directory, lock, limit, what):
    """Run docker compose to its end.

    Arguments:
        config: the Config.
        options: compose's global ones.
        words: the command and what belongs to it.
        directory: its working directory.
        lock: path of the lock file.
        limit: seconds that it may take.
        what: whose it is, as errors say it: "app web".

    A compose that outlived its agent is ended before. Raises EngineError with its own last words when it
    fails or takes too long; all of its process group is gone then.
    """
    last = collections.deque(maxlen=_LAST)
    argv = ["/bin/sh", "-c", _LAUNCH, "sh", str(lock), *command(config), *options, *words]
    environment = {**programs.ENVIRONMENT, "DOCKER_HOST": config.docker_host}
    with _alone(lock, what) as descriptor:
        try:
            status = programs.run(argv, environment, limit, last.append, directory, _PATIENCE, (descriptor,))
        except OSError as err:
            raise EngineError(f"{what}: docker compose cannot be run in {directory}: {err.strerror}") from None
        # It came to its end, well or not. What one that was ended leaves in dockerd has to be looked for.
        if status is not None:
            os.ftruncate(descriptor, 0)
    said = "; ".join(line.strip() for line in last)
    if status is None:
        raise EngineError(f"{what}: docker compose {words[0]} was ended, since it took longer than {limit:.0f} s"
                          f"{f' ({said})' if said else ''}: see what its services wait for, or raise compose_timeout "
                          "in the configuration")
    if status:
        raise EngineError(f"{what}: docker compose {words[0]} failed: {said or f'exit status {status}'}")


def was_cut_off(lock):
    """Tell whether the last compose did not come to its end, or its agent did not see that.

    dockerd may then still be at what it was asked for.
    """
    try:
        return lock.stat().st_size > 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _alone(path, what):
    """Hold the lock that compose inherits, so that it is held for as long as compose lives."""
    with durable.storage_errors(f"taking the lock of {what}"):
        durable.make_directories(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    import signal

    try:
        begun, sent = time.monotonic(), None
        while not _locked(descriptor):
            # Its agent was killed, and nobody reads what it says. What it leaves is tidied up anyway.
            wanted = signal.SIGTERM if time.monotonic() < begun + _PATIENCE else signal.SIGKILL
            if wanted != sent:
                sent = wanted if _signal_holder(path, wanted) else None
            if time.monotonic() > begun + 6 * _PATIENCE:
                raise EngineError(f"{what}: a docker compose that was left behind does not end: "
                                  f"end the process that has {path} open")
            time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal_holder(path, number):
    """Signal the process group of the process that the lock file names if it has the file open; return whether it has.

    What that process started may hold the lock after it, so the group is what counts.
    """
    try:
        leader = int(path.read_text())
        if not any(_has_open(process, path) for process in (leader, *_members(leader))):
            return False
        os.killpg(leader, number)
    except (OSError, ValueError):
        return False
    return True


def _has_open(process, path):
    with contextlib.suppress(OSError):
        entries = [os.path.join(f"/proc/{process}/fd", name) for name in os.listdir(f"/proc/{process}/fd")]
        return any(os.path.samefile(entry, path) for entry in entries if os.path.exists(entry))
    return False


def _members(group):
    """Return the processes of a process group."""
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.getpgid(int(process)) == group:
                found.append(int(process))
    return found
