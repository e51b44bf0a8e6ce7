# SPDX-License-Identifier: MIT
"""The callback program: told of each step of an update, and asked before two of them.

Messages, results and the first variables are those that LmP documents for aktualizr-lite
(https://github.com/foundriesio/aktualizr-lite, docs/callbacks.md); those that start with
``COMPOSEAPPS_`` are ours. docs/agent.md has the table.
"""

import os
import sys

from composeapps import programs

# LmP's messages.
DOWNLOAD_PRE, DOWNLOAD_POST = "download-pre", "download-post"
INSTALL_PRE, INSTALL_POST = "install-pre", "install-post"
# Before an update that was cut off is brought to an end.
INSTALL_FINAL_PRE = "install-final-pre"
# Ours.
ROLLBACK_PRE, ROLLBACK_POST = "rollback-pre", "rollback-post"
REJECTED = "rejected"

# Where a program may say no.
ASKED = {DOWNLOAD_PRE, INSTALL_PRE}
OK, FAILED, NEEDS_COMPLETION = "OK", "FAILED", "NEEDS_COMPLETION"
# Seconds that it may take; also what it left running may write for us only until then.
TIME_LIMIT = 60

_unusable = set()


def call(config, message, result="", *, app="", source="", target="", reason="", limit=TIME_LIMIT, notify=None,
         **variables):
    """Run the callback program of the configuration; do nothing when there is none.

    Arguments:
        config: the Config.
        message: one of the messages above.
        result: OK, FAILED, FAILED with ": reason" behind it, NEEDS_COMPLETION, or "".
        app: the app's name.
        source, target: the pinned references of the version that runs and of the one that shall, "" for none.
        reason: why it failed, one sentence.
        limit: seconds after which the program and all that it started in its process group are killed.
        notify: called with each line that it prints, and with what is wrong with it; standard error by default.
        variables: more of them: ``attempt=2`` becomes COMPOSEAPPS_ATTEMPT.

    Returns "" to go on. For the messages in ASKED a program that exits with another status than 0 returns
    the sentence that says that it wants the step put off. A program that cannot be run, dies by a signal or
    takes too long says nothing: that is told, and "" is returned. Raises nothing of its own.
    """
    program = config.callback_program
    if program is None:
        return ""
    notify = notify or _to_stderr
    if not os.access(program, os.X_OK) or os.path.isdir(program):
        why = "is not an executable file" if os.path.exists(program) else "does not exist"
        return _cannot_run(program, why, notify)
    result, _, rest = result.partition(": ")
    environment = _environment(config, message, result, app, source, target, {"reason": reason or rest, **variables})
    try:
        status = programs.run([str(program)], environment, limit, lambda line: notify(f"callback {message}: {line}"))
    except OSError as err:
        return _cannot_run(program, f"cannot be run: {err.strerror}", notify)
    what = f"the callback program {program}"
    if status is None:
        notify(f"{what} took longer than {limit} s for '{message}' and was killed")
    elif status < 0:
        notify(f"{what} was ended by signal {-status} at '{message}'")
    elif status and message in ASKED:
        return f"{what} put the step '{message}' off (exit status {status})"
    elif status:
        notify(f"{what} ended with exit status {status} at '{message}', which changes nothing")
    return ""


def _cannot_run(program, why, notify):
    """Tell it once a process; the update goes on."""
    if program not in _unusable:
        _unusable.add(program)
        notify(f"the callback program {program} {why}: correct callback_program in the configuration; "
               "going on without it")
    return ""


def _to_stderr(text):
    print(text, file=sys.stderr, flush=True)


def _environment(config, message, result, app, source, target, variables):
    """Return the program's whole environment: nothing of ours is handed on."""
    given = {
        "MESSAGE": message, "RESULT": result, "CURRENT_TARGET_NAME": source, "INSTALL_TARGET_NAME": target,
        "CURRENT_TARGET": _current_target(config, app, source),
        "COMPOSEAPPS_APP": app, "COMPOSEAPPS_STATE_DIR": str(config.state_dir),
        **{f"COMPOSEAPPS_{key.upper()}": value for key, value in variables.items()},
    }
    # As LmP has it, what there is nothing to say about is not set.
    said = {key: str(value).replace("\0", "") for key, value in given.items() if value not in ("", None)}
    return {**programs.ENVIRONMENT,
            **{key: " ".join(value.split()) for key, value in said.items()}}


def _current_target(config, app, source):
    """Write the file that CURRENT_TARGET names, in the shell's syntax as LmP's is; return its path, "" without one."""
    if not source or not set('"$`\\\n').isdisjoint(source + app):
        return ""
    path = config.state_dir / "current-target"
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        temporary.write_text(f'TARGET_NAME="{source}"\nAPP_NAME="{app}"\n')
        os.replace(temporary, path)
    except OSError:
        return ""
    return str(path)
