# SPDX-License-Identifier: MIT
"""Entry point: parses the command line and runs one subcommand.

Only the module of the subcommand that was asked for is imported: on a small device each
import counts.
"""

import argparse
import importlib
import os
import sys

from composeapps import __version__
from composeapps.errors import ComposeAppsError

# Subcommand -> (module, one line of help).
COMMANDS = {
    "ls": ("store_commands", "list the apps in the store"),
    "show": ("store_commands", "show an app's version, services, images and sizes"),
    "check": ("check", "verify apps: blobs in the store, unpacked bundles, images in dockerd"),
    "pull": ("pull", "fetch apps from a registry into the store"),
    "install": ("run_commands", "install apps from the store, without starting them"),
    "run": ("run_commands", "install apps from the store where needed and start them"),
    "stop": ("run_commands", "stop apps; they stay stopped over a reboot"),
    "ps": ("run_commands", "show the state of the apps' services"),
    "update": ("update_commands", "bring apps to other versions, or go on with updates that were cut off"),
    "rollback": ("update_commands", "bring apps back to the version before, without a network"),
    "allow": ("update_commands", "have versions tried again that failed too often"),
    "prune": ("housekeeping", "remove what no app on this device needs"),
    "rm": ("housekeeping", "remove apps; their volumes stay unless asked for"),
    "uninstall": ("housekeeping", "remove apps from dockerd and the disk; the store keeps them"),
    "status": ("status", "show how the apps are: version, health, updates, the last error"),
    "history": ("status", "list the last updates and what became of them"),
    "fsck": ("fsck", "check and repair dockerd's store while dockerd is down"),
    "convert": ("convert", "make old-style apps (.dockerapp, unpinned compose files) publishable"),
    "inspect": ("inspect", "look at an app in its registry: services, platforms, sizes, what a pull would fetch"),
    "publish": ("publish", "pin an app's images and push the app to a registry"),
    "completion": ("completion", "print the completion script of a shell: bash, zsh or fish"),
    "version": ("version", "print the versions of this program and of what it works with"),
}

EPILOG = """\
exit status:
  0  success                          5  the registry failed or cannot be reached
  1  failure of another kind          6  dockerd or docker compose failed
  2  wrong usage or bad input         7  the file system refused (full, read-only)
  3  an app, blob or image is missing 8  a service is not running as it should
  4  data is damaged                  9  another composeapps is at work
  10  dockerd's store was damaged and is repaired (fsck)
  11  dockerd is at work on its store (fsck)
  12  a file system lacks the room that is needed; nothing was begun
  13  a container holds its update lock
  14  the update failed and the version before it runs again
  15  the version failed too often and is rejected
  16  the update is unfinished: the next run goes on with it
  130  interrupted

'composeapps COMMAND --help' explains a command and gives examples.
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; try '{self.prog} --help'\n")


def build_parser(selected=None):
    """Return the parser; it knows only the subcommand ``selected``, all when None."""
    parser = _Parser(prog="composeapps", description="Restorable compose apps on this device.", epilog=EPILOG,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"composeapps {__version__}")
    _add_common(parser, None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [selected] if selected else COMMANDS:
        module, text = COMMANDS[name]
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        # The common options may stand behind the subcommand as well.
        _add_common(sub, argparse.SUPPRESS)
        importlib.import_module(f"composeapps.cli.{module}").configure(name, sub)
    return parser


# Option -> (the placeholder of its value, help).
_COMMON = {
    "--config": ("FILE", "the configuration (default: /etc/composeapps/config.toml)"),
    "--store": ("DIR", "the restorable store"),
    "--compose-root": ("DIR", "the unpacked bundles"),
    "--state-dir": ("DIR", "the agent's own files"),
    "--docker-host": ("URL", "dockerd's socket, unix:///PATH"),
}


def _add_common(parser, default):
    group = parser.add_argument_group("where things are, in place of what the configuration says")
    for option, (placeholder, text) in _COMMON.items():
        group.add_argument(option, metavar=placeholder, default=default, help=text)


def _command_of(argv):
    """Return the subcommand that a command line names, None when only the whole parser can tell."""
    words = iter(argv)
    for word in words:
        option, equals, _value = word.partition("=")
        if option not in _COMMON:
            return word if word in COMMANDS else None
        if not equals:
            next(words, None)
    return None


def main(argv=None):
    """Run the command line ``argv`` (without the program's name); return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # A parser for each of the subcommands would cost a sixth of a command's start.
    args = build_parser(_command_of(argv)).parse_args(argv)
    try:
        return args.run(args) or 0
    except ComposeAppsError as err:
        print(f"composeapps: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("composeapps: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        print(f"composeapps: {where}{err.strerror or err}", file=sys.stderr)
        return 7


if __name__ == "__main__":
    sys.exit(main())
