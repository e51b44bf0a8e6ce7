# SPDX-License-Identifier: MIT
"""Putting the agent's records right at the begin of a command that changes something."""

from composeapps.errors import CorruptError
from composeapps.oci.names import is_name
from composeapps.records import history, journal, preloaded, rejection, sealed, state


def repair(states):
    """Make damaged records anew from their second copies, and set those aside of which both are lost.

    Arguments:
        states: the StateDirectory; its lock is held by the caller.

    Returns sentences about what was found, which are in the history, too. Raises StorageError.
    """
    notes = {}
    everything = [*state.records(states), *journal.records(states), (rejection.RECORD, rejection.parse),
                  (preloaded.RECORD, preloaded.parse)]
    for record, parse in everything:
        problem = sealed.mend(states.root, record, parse)
        # What is lost for good is told by those who look for another source of it.
        if problem and sealed.read(states.root, record, parse).value is not None:
            notes[record] = problem
    for record, module in ((history.RECORD, history), (preloaded.ADDED, preloaded)):
        if problem := module.mend(states):
            notes[record] = problem
    for app, note in journal.tidy(states).items():
        notes[app] = note
        if not is_name(app):
            continue
        history.append(states, {"app": app, "action": "update", "result": "failed", "reason": note,
                                "code": CorruptError.exit_code})
    for record, note in notes.items():
        if record.startswith(("apps/", "updates/")) and state.app_of(record):
            history.append(states, {"app": state.app_of(record), "action": "repair", "result": history.REPAIRED,
                                    "reason": note})
    return list(notes.values())
