# SPDX-License-Identifier: MIT
"""Run a program that takes long, with its output in a file."""

import contextlib
import os
import re
import selectors
import signal
import subprocess

from composeapps import durable

_TICK_SECONDS = 1
_STOP_SECONDS = 60


def without_logins(text):
    """Return ``text`` with user names and passwords taken out of its URLs."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def run(argv, log, env, cwd, on_line=lambda line: None, on_tick=lambda: None):
    """Run ``argv`` to its end and return its exit status; standard output and error go to the file ``log``.

    Arguments:
        on_line: called with each line of the output.
        on_tick: called about once a second.

    Raises FileNotFoundError when there is no such program. Should anything interrupt the wait, then the
    program is asked to stop before the exception goes on: BitBake's server ends with its client.
    """
    durable.make_directories(log.parent)
    with open(log, "wb") as stream:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env=env, cwd=cwd, start_new_session=True)
        try:
            _copy(process, stream, on_line, on_tick)
            return process.wait()
        except BaseException:
            _stop(process)
            raise
        finally:
            process.stdout.close()


def _copy(process, stream, on_line, on_tick):
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(_TICK_SECONDS)
            on_tick()
            if not ready:
                # A daemon that outlives the program keeps the pipe open: the end of the program is the end.
                if process.poll() is not None:
                    break
                continue
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            stream.write(chunk)
            stream.flush()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(line.decode(errors="replace"))
    if rest:
        on_line(rest.decode(errors="replace"))


def _stop(process):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return


def last_lines(log, count=12):
    """Return the last lines of the file ``log`` that say something."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return without_logins("\n".join(lines[-count:]))
