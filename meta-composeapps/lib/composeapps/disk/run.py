# SPDX-License-Identifier: MIT
"""Running the programs that write partition tables and file systems."""

import os
import subprocess

from composeapps import programs
from composeapps.errors import StorageError


def run(*words, text=None, good=(0,)):
    """Run a program to its end, however long it takes.

    Arguments:
        words: its name and arguments.
        text: what it reads.
        good: the exit statuses that are no failure.

    Returns (exit status, what it printed on standard output). Raises StorageError with its last line.
    """
    words = [os.fspath(word) for word in words]
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text.encode()}
    try:
        done = subprocess.run(words, capture_output=True, check=False,
                              env=programs.ENVIRONMENT, **given)
    except OSError as err:
        raise StorageError(f"{words[0]} cannot be run: {err.strerror}") from None
    said, complained = (stream.decode(errors="replace").strip() for stream in (done.stdout, done.stderr))
    if done.returncode not in good:
        lines = [*said.splitlines(), *complained.splitlines()]
        raise StorageError(f"{words[0]} failed with status {done.returncode}: {(lines or ['it gave no reason'])[-1]}")
    return done.returncode, said
