# SPDX-License-Identifier: MIT
"""The one form of help: usage, a sentence, examples, arguments and options, details, exit statuses, environment.

No line is wider than the terminal, and none than WIDEST, but for words that cannot be broken: a path, an address or
a pinned reference stays whole, and a command line is broken by backslashes, so that it can be pasted.
"""

import argparse
import os
import shutil
import textwrap

WIDEST, _NARROWEST = 80, 30
# A term may take so much before its meaning goes below it.
_TERM = 24


def width():
    """Return how many columns help may take: $COLUMNS, or what the terminal has, WIDEST at most."""
    return max(min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST), _NARROWEST)


def is_colourful(file):
    """Tell whether a stream is a terminal that shows more than plain text, and nobody is against it."""
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb" and file.isatty()


def printable(text, file):
    """Return a text in characters that a stream's encoding has."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.replace("…", "...").encode(encoding, "replace").decode(encoding)


def usage(parser):
    """Return the usage: the command, that there are options, and the arguments, wrapped as a command line is."""
    words = [parser.prog, "[OPTION]…"]
    for group in parser._mutually_exclusive_groups:
        if group.required:
            words.append("|".join(action.option_strings[0] for action in group._group_actions))
    words += [_argument(action) for action in parser._actions if not action.option_strings]
    return "\n".join(_wrapped(words, width() - 1, "Usage: ", " " * 7))


def _argument(action):
    name = "COMMAND [ARGUMENT]…" if isinstance(action, argparse._SubParsersAction) else str(action.metavar)
    return {"?": f"[{name}]", "*": f"[{name}]…", "+": f"{name}…"}.get(action.nargs, name)


def render(parser, bold=False):
    """Return a Parser's help as text that ends with a newline; ``bold`` marks headings for a terminal."""
    sections = [("", usage(parser).split("\n")), ("", _paragraph(parser.description or ""))]
    sections.append(("Examples", _examples(parser.examples)))
    common = []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
        subcommands = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
        if subcommands:
            listed = [(each.dest, each.help) for each in subcommands[0]._choices_actions]
            sections.append(("Commands", _terms(listed)))
        elif actions and not actions[0].option_strings:
            sections.append(("Arguments", _terms([(str(each.metavar), _text(each, parser)) for each in actions])))
        elif group is parser._optionals:
            own = [each for each in actions if not isinstance(each, argparse._HelpAction)]
            common += [each for each in actions if each not in own]
            sections.append(("Options", _terms([_option(each, parser) for each in own])))
        else:
            common = actions + common
    sections.append(("Common options", _terms([_option(each, parser) for each in common])))
    sections.append(("", _details(parser.details)))
    exits = sorted(parser.explained_exits().items(), key=lambda each: (isinstance(each[0], str), each[0]))
    sections.append(("Exit status", _terms([(str(number), text) for number, text in exits])))
    if parser.environment:
        from composeapps.cli import environment

        sections.append(("Environment", _terms(list(environment.explained(parser.environment).items()))))
    shown = []
    for heading, lines in sections:
        if lines and any(lines):
            title = [f"\033[1m{heading}:\033[0m" if bold else f"{heading}:"] if heading else []
            shown.append("\n".join([*title, *lines]))
    return "\n\n".join(shown) + "\n"


def _text(action, parser):
    """Return the help of an argument, with what argparse would fill in."""
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def _option(action, parser):
    """Return (how an option is written, its help)."""
    flags = ", ".join(sorted(action.option_strings, key=lambda flag: flag.startswith("--")))
    if action.nargs == 0:
        return flags, _text(action, parser)
    value = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
    return f"{flags} [{value}]" if action.nargs == "?" else f"{flags} {value}", _text(action, parser)


def _details(details):
    """Return the lines of paragraphs and lists of terms, with an empty one between paragraphs."""
    lines = []
    for each in details:
        if lines and not isinstance(each, dict):
            lines.append("")
        lines += _terms(list(each.items())) if isinstance(each, dict) else _paragraph(each)
    return lines


def _paragraph(text):
    return _wrapped(text.split(), width())


def _examples(examples):
    lines = []
    for command, meaning in examples:
        lines += command_line(command, width())
        lines += _wrapped(meaning.split(), width(), " " * 6)
    return lines


def command_line(command, columns):
    """Return the lines of a command line that is to be pasted: indented, and broken with backslashes between words.

    Arguments:
        command: the command line, in one line.
        columns: how wide it may be.
    """
    lines, line = [], ""
    for word in shell_words(command):
        begin = "  " if not lines else " " * 6
        if not line:
            line = f"{begin}{word}"
        elif len(line) + 1 + len(word) + 2 > columns:
            # An option stays beside its value.
            before, _blank, last = line.rpartition(" ")
            fits = 6 + len(last) + 1 + len(word) + 2 <= columns
            along = f"{last} " if last.startswith("-") and before.strip() and fits else ""
            lines.append(f"{before if along else line} \\")
            line = f"{' ' * 6}{along}{word}"
        else:
            line += f" {word}"
    return [*lines, line]


def shell_words(command):
    """Return the words of a command line, split at blanks outside of quotes, with their quotes."""
    words, quote = [""], ""
    for char in command:
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        if char == " " and not quote:
            words.append("")
        else:
            words[-1] += char
    return [word for word in words if word]


def _terms(pairs):
    """Return the lines of a list of terms and meanings: beside each other where there is room for it."""
    if not pairs:
        return []
    longest = max([len(term) for term, _meaning in pairs if len(term) <= _TERM], default=_TERM)
    beside = width() - longest - 4 >= 24
    indent = longest + 4 if beside else 6
    lines = []
    for term, meaning in pairs:
        if beside and len(term) <= longest:
            lines += _wrapped(meaning.split(), width(), f"  {term:{longest}}  ", " " * indent)
        else:
            lines += _wrapped(term.split(), width(), "  ", " " * 4)
            lines += _wrapped(meaning.split(), width(), " " * indent)
    return lines


def _wrapped(words, columns, first="", rest=None):
    """Return words as lines that begin with ``first`` and then ``rest``; no word is broken."""
    if not words:
        return []
    return textwrap.wrap(" ".join(words), columns, initial_indent=first, subsequent_indent=first if rest is None else
                         rest, break_long_words=False, break_on_hyphens=False)
