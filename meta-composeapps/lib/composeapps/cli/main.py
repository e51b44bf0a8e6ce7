# SPDX-License-Identifier: MIT
"""Entry point: parses the command line and runs one subcommand.

Only the module of the subcommand that was asked for is imported: on a small device each
import counts.
"""

import argparse
import gc
import importlib
import os
import sys

from composeapps import __version__
from composeapps.cli.parser import Parser
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
    "metrics": ("metrics", "print figures about this device, as Prometheus reads them"),
    "selftest": ("selftest", "test at the end of a production line whether this device is good"),
    "identity": ("identity", "show who this device is, make its key, put its certificate in place"),
    "enroll": ("enroll", "register this device with its factory, and get its certificate"),
    "factory-reset": ("factory_reset", "go back to the preloaded apps: wipe the data at the next start"),
    "fsck": ("fsck", "check and repair dockerd's store while dockerd is down"),
    "convert": ("convert", "make old-style apps (.dockerapp, unpinned compose files) publishable"),
    "inspect": ("inspect", "look at an app in its registry: services, platforms, sizes, what a pull would fetch"),
    "publish": ("publish", "pin an app's images and push the app to a registry"),
    "completion": ("completion", "print the completion script of a shell: bash, zsh or fish"),
    "version": ("version", "print the versions of this program and of what it works with"),
}

# Where releases are made; the package on a device has no signing room.
FACTORY_COMMANDS = {
    "target": ("target", "sign what devices are to run: Targets, their keys and their repository"),
    "bundle": ("bundle", "make a bundle of signed Targets and their apps for devices without a network, or verify one"),
}
if os.path.isdir(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "signing")):
    COMMANDS.update(FACTORY_COMMANDS)

# New objects after which those are looked for that only hold each other.
_GARBAGE = 20_000

EXAMPLES = (
    ("composeapps status", "how the apps of this device are"),
    ("composeapps pull --help", "a command's own help, with examples"),
    ("composeapps ls --store /mnt/usb", "a store elsewhere; the common options may stand before the command as well"),
)


class _Whole(Parser):
    """The parser of all commands."""

    def explained_exits(self):
        from composeapps.cli import statuses

        return statuses.STATUSES


class _Command(Parser):
    """The parser of one of the commands."""

    def explained_exits(self):
        from composeapps.cli import statuses

        return statuses.explained({**statuses.ALWAYS, **self.exits})


def build_parser(selected=None):
    """Return the parser; it knows only the subcommand ``selected``, all when None."""
    parser = _Whole("composeapps", "Restorable compose apps on this device.")
    parser.add_argument("--version", action="version", version=f"composeapps {__version__}",
                        help="print the version and stop")
    _add_common(parser, None)
    # With prog, argparse does not make a usage to get it from.
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=parser.prog,
                                     parser_class=_Command)
    for name in [selected] if selected else COMMANDS:
        module, text = COMMANDS[name]
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        # The common options may stand behind the subcommand as well.
        _add_common(sub, argparse.SUPPRESS)
        importlib.import_module(f"composeapps.cli.{module}").configure(name, sub)
    parser.describe(EXAMPLES, environment=("COLUMNS", "NO_COLOR"))
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
    for option, (placeholder, text) in _COMMON.items():
        parser.common.add_argument(option, metavar=placeholder, default=default, help=text)


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
    # Names of files and words of others may have what this locale has no character for.
    sys.stdout.reconfigure(errors="backslashreplace")
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


def program():
    """Run the command line of the process, and end that with the exit status: this is what users start.

    What a command has made is on the disk when it returns, and its threads have ended. So nothing is left to be done
    at the end, and to take all modules apart again would only cost time. Before, looking for what nobody uses any
    more after each few hundred new objects does.
    """
    gc.set_threshold(_GARBAGE)
    status = main()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        pass
    except OSError as err:
        status = status or 7
        os.write(2, f"composeapps: the output cannot be written: {err.strerror}\n".encode())
    os._exit(status)


if __name__ == "__main__":
    program()
