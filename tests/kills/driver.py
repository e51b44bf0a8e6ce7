# SPDX-License-Identifier: MIT
"""The agent, which kills itself at one place of its journal.

Usage: python -m kills.driver ARGUMENTS…, with KILL_AT in the environment: ``STEP:before`` and
``STEP:after`` the journal's being written, ``STEP:between`` the new file's being complete and its getting
its name, or ``removed:before`` and ``removed:after``.
"""

import os
import signal
import sys

from composeapps import durable
from composeapps.cli.main import main
from composeapps.records import journal

STEP, MOMENT = os.environ["KILL_AT"].split(":")
_write, _remove, _replace = journal.write, journal.remove, durable.replace


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _writing(states, entry, **changes):
    if changes.get("step", entry.step) != STEP:
        return _write(states, entry, **changes)
    if MOMENT == "before":
        _die()
    if MOMENT == "between":
        durable.replace = _replacing
    written = _write(states, entry, **changes)
    _die()
    return written


def _replacing(temporary, target, *how):
    if target.parent.name == "updates" and target.suffix == ".json":
        _die()
    _replace(temporary, target, *how)


def _removing(states, app):
    if STEP != "removed":
        return _remove(states, app)
    if MOMENT == "before":
        _die()
    _remove(states, app)
    _die()


if __name__ == "__main__":
    journal.write, journal.remove = _writing, _removing
    sys.exit(main(sys.argv[1:]))
