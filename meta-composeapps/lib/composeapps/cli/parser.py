# SPDX-License-Identifier: MIT
"""The parser of every command of this project: the agent's on devices, and those of scripts/.

What it says of itself has one form, which composeapps.cli.helptext makes, and only when somebody asks for it.
"""

import argparse
import functools
import sys

# To look for translations of its few words, which are not there, takes argparse as long as all else that it does.
argparse._ = str
# argparse makes one of these for each argument that is added; without a width it asks the terminal every time.
_FORMATTER = functools.partial(argparse.HelpFormatter, width=80)


class Parser(argparse.ArgumentParser):
    """Options and arguments of one command; ``describe`` says what else its help has.

    Errors are one line, which names the help of the very command that was misused.

    Arguments:
        prog: the command as a user types it.
        description: what it does, in a sentence.
    """

    def __init__(self, prog=None, description=None, **kwargs):
        super().__init__(prog=prog, description=description, **{"formatter_class": _FORMATTER, **kwargs})
        self.examples, self.details, self.exits, self.environment = (), (), {}, ()
        self._words = []

    @functools.cached_property
    def common(self):
        """The group of the options that several commands have; help shows them after the command's own."""
        return self.add_argument_group("common options")

    def describe(self, examples=(), details=(), exits=None, environment=()):
        """Say what the help has besides the arguments.

        Arguments:
            examples: pairs of a command line and what it is for ("" where that is plain to see).
            details: paragraphs; a mapping in place of one is a list of terms with their meanings.
            exits: {exit status: what it means}; a None is what composeapps.cli.statuses says of it, and "other" may
                stand for those that come from elsewhere.
            environment: names of variables that the command heeds, or of groups of them, from
                composeapps.cli.environment.
        """
        self.examples, self.details, self.exits, self.environment = examples, details, dict(exits or {}), environment

    def explained_exits(self):
        """Return {exit status: what it means}."""
        from composeapps.cli import statuses

        return statuses.explained(self.exits)

    def parse_args(self, args=None, namespace=None):
        """Parse a command line; ends the process with status 2 when it is a wrong one."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            self._meant(found).error(f"unrecognized arguments: {' '.join(extra)}")
        return found

    def parse_known_args(self, args=None, namespace=None):
        """Parse what is known; return (the namespace, the other words)."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def subcommands(self):
        """Return {name: Parser} of the commands that this one has, {} for none."""
        return {name: each for action in self._actions if isinstance(action, argparse._SubParsersAction)
                for name, each in action.choices.items()}

    def _meant(self, found):
        """Return the parser of the subcommand that was given, this one without any."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                meant = action.choices.get(getattr(found, action.dest, None))
                return meant._meant(found) if meant else self
        return self

    def error(self, message):
        """End the process with status 2 and one line on standard error."""
        # argparse looks for what is missing first; who mistyped an option learns nothing by that.
        if message.startswith("the following arguments are required") and (unknown := self._unknown()):
            message = f"unrecognized arguments: {' '.join(unknown)}"
        self.exit(2, f"{self.prog}: {message}; try '{self.prog} --help'\n")

    def _unknown(self):
        """Return the long options of the command line that there are not."""
        words = self._words[:self._words.index("--")] if "--" in self._words else self._words
        return [word for word in words if word.startswith("--")
                and not any(known.startswith(word.partition("=")[0]) for known in self._option_string_actions)]

    def format_help(self):
        """Return the help, as wide as the terminal, 80 columns at most."""
        from composeapps.cli import helptext

        return helptext.render(self)

    def format_usage(self):
        """Return the first line of the help."""
        from composeapps.cli import helptext

        return helptext.usage(self) + "\n"

    def print_help(self, file=None):
        """Print the help; on a terminal its headings stand out."""
        from composeapps.cli import helptext

        file = sys.stdout if file is None else file
        file.write(helptext.printable(helptext.render(self, bold=helptext.is_colourful(file)), file))
