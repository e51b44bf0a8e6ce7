# SPDX-License-Identifier: MIT
"""Errors of the emulator; all are ComposeAppsError, so a command prints their one sentence."""

from composeapps.errors import ComposeAppsError


class EmulatorError(ComposeAppsError):
    """The virtual machine could not be made, started or talked to.

    Its exit status, 125, is one that a command run in the guest is unlikely to have.
    """

    exit_code = 125
    # With the last of the console, where there is one.
    in_lines = True


class BootError(EmulatorError):
    """The guest did not reach its prompt: it hung, panicked, or QEMU ended.

    The message ends with the last lines of the serial console, which ``tail`` holds as well.
    """

    def __init__(self, reason, tail=""):
        super().__init__(f"{reason}; the console's last lines:\n{tail}" if tail else reason)
        self.tail = tail


class ConsoleError(EmulatorError):
    """The serial console gave no answer, or the guest died while a command ran."""


class QMPError(EmulatorError):
    """QEMU refused a monitor command, or its monitor is gone."""


class CommandError(EmulatorError):
    """A command in the guest ended with a status other than 0; ``result`` is its CommandResult."""

    def __init__(self, command, result):
        shown = command if len(command) <= 200 else command[:200] + "…"
        tail = "\n".join(result.stdout.splitlines()[-20:])
        message = f"'{shown}' ended with status {result.exit_status} in the guest"
        super().__init__(f"{message}:\n{tail}" if tail else message)
        self.command = command
        self.result = result
