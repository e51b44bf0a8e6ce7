# SPDX-License-Identifier: MIT
"""Errors that a user may see, each with the exit status of the command.

The message of every error is one sentence that names the thing at fault and,
where there is one, the remedy. The command prints it; nothing else is printed.
"""

# Characters of a message. Of what others wrote there may be any number in it.
LONGEST = 2000


def one_line(text):
    """Return a text as a terminal and a journal may have it: one line, no control characters, and not endless."""
    text = _shortened(text)
    if text.isprintable():
        return text
    shown = (char if char.isprintable() else " " if char in "\n\t" else ascii(char)[1:-1] for char in text)
    return _shortened("".join(shown))


def _shortened(text):
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2]} … {text[-LONGEST // 2 + 3:]}"


class ComposeAppsError(Exception):
    """Base of all errors this package raises on purpose.

    ``exit_code`` is the exit status of a command that ends with this error. As a text it is one line that a
    terminal can be given, whatever the names in it are; several of them where ``in_lines`` says so.
    """

    exit_code = 1
    in_lines = False

    def __str__(self):
        text = super().__str__()
        return "\n".join(map(one_line, text.split("\n"))) if self.in_lines else one_line(text)


class UsageError(ComposeAppsError):
    """The user asked for something that makes no sense (a bad option, a bad reference)."""

    exit_code = 2


class NotFoundError(ComposeAppsError):
    """An app, blob, file or image that was named does not exist."""

    exit_code = 3


class CorruptError(ComposeAppsError):
    """Data does not match its digest or size, or does not have the format it claims."""

    exit_code = 4


class RegistryError(ComposeAppsError):
    """A registry cannot be reached, refuses, or answers nonsense."""

    exit_code = 5


class EngineError(ComposeAppsError):
    """dockerd or docker compose cannot be reached or failed."""

    exit_code = 6


class LoadRefusedError(EngineError):
    """dockerd answered that it did not load an image; it was reached and has kept nothing of it."""


class StorageError(ComposeAppsError):
    """The file system refused: full, read-only, no permission."""

    exit_code = 7


class NotRunningError(ComposeAppsError):
    """An app or one of its services is not in the state that was asked about."""

    exit_code = 8


class LockedError(ComposeAppsError):
    """Another command holds the lock on the store."""

    exit_code = 9


class SpaceError(ComposeAppsError):
    """A file system would not have the room that is needed; nothing was begun."""

    exit_code = 12


class UpdateLockedError(ComposeAppsError):
    """A container holds its update lock, so its service may not be touched now."""

    exit_code = 13


class RolledBackError(ComposeAppsError):
    """An update failed, and the version before it runs again."""

    exit_code = 14


class RejectedError(ComposeAppsError):
    """A version failed too often and is not tried again until somebody allows it."""

    exit_code = 15


class UnfinishedError(ComposeAppsError):
    """An update could neither be finished nor taken back now; the next run goes on with it."""

    exit_code = 16
