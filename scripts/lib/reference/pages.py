# SPDX-License-Identifier: MIT
"""The content of each page, by templates beside this file."""

import os
import textwrap
from pathlib import Path
from unittest import mock

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import commandlines
from composeapps.cli import config, environment, main, statuses
from composeapps.registry import settings as registries
from reference import layer, schema

PAGES = ("commands.md", "config.example.toml", "environment.md", "exit-status.md", "kas.md", "settings.md", "status.md",
         "variables.md")
_HOST = "registry.example.com"


def render(top):
    """Return {name: text} of all pages.

    Arguments:
        top: the repository.
    """
    top = Path(top)
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=False,
                            trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    templates.filters["cell"] = cell
    commands = {}
    for name in main.COMMANDS:
        commands[name] = _parser(name)
        commands.update({f"{name} {below}": each for below, each in commands[name].subcommands().items()})
    scripts = {name: commandlines.parser(name) for name in commandlines.SCRIPTS}
    # The pages are the same, whatever terminal they are made on.
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}):
        helps = {**{f"composeapps {name}": each.format_help().rstrip() for name, each in commands.items()},
                 **{f"scripts/{name}": each.format_help().rstrip() for name, each in scripts.items()}}
    values = {
        "commands": {name: each.description for name, each in commands.items()},
        "scripts": {name: each.description for name, each in scripts.items()},
        "helps": helps,
        "statuses": [(number, text, [name for name, each in commands.items() if number in each.explained_exits()])
                     for number, text in statuses.STATUSES.items()],
        "every": len(commands),
        "script_exits": {name: list(each.explained_exits().items()) for name, each in scripts.items()},
        "environment": _environment({**{f"composeapps {name}": each for name, each in commands.items()},
                                     **{f"scripts/{name}": each for name, each in scripts.items()}}),
        "sections": _sections(),
        "example": example(),
        "default_file": config.DEFAULT_FILE,
        "fields": schema.fields(top / "meta-composeapps" / "docs" / "status.schema.json"),
        "variables": layer.documented(top / "meta-composeapps"),
        "kas": layer.kas_files(top / "kas"),
    }
    return {name: values["example"] if name.endswith(".toml") else templates.get_template(f"{name}.j2").render(values)
            for name in PAGES}


def cell(text):
    """Return a text as a cell of a Markdown table may have it, with nothing in it that is taken for markup."""
    for char in "\\|*<":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def _parser(name):
    return main.build_parser(name).subcommands()[name]


def _environment(parsers):
    """Return [(variable, text, the commands whose help has it, None for all)]."""
    every = main.build_parser("version").environment
    return [(name, text, None if name in every else [
        command for command, parser in parsers.items() if name in environment.explained(parser.environment)])
        for name, text in environment.VARIABLES.items()]


def _sections():
    """Return [(section, [(Key, its default in words)])]."""
    found = {}
    for key in (*config.KEYS, *registries.KEYS):
        default = key.unset or f"`{_toml(config.Config()._asdict()[key.field])}`"
        found.setdefault(key.section, []).append((key, default))
    return list(found.items())


def _toml(value):
    return str(value).lower() if isinstance(value, int) else f'"{value}"'


def example():
    """Return an example of a configuration that has every key."""
    lines = ["# Every key of the agent's configuration with a value that it may have, not with its default.",
             "# Each may be left out; an unknown one is an error. Made by scripts/docs."]
    for section, keys in _sections():
        title = section.replace("HOST", _HOST)
        lines += ["", f"[{title}]"]
        for key, _default in keys:
            kind = " ".join(filter(None, (key.kind.type, key.kind.range)))
            lines += [*textwrap.wrap(f"{key.text[0].upper()}{key.text[1:]}. Takes {kind}.", 100, initial_indent="# ",
                                     subsequent_indent="# ", break_on_hyphens=False), f"{key.name} = {key.example}"]
    return "\n".join(lines) + "\n"
