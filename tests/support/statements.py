# SPDX-License-Identifier: MIT
"""What the repository's pages say of its files, variables, options and commands, and whether it is so.

Each function yields sentences about what is not so. A page's words in backticks are taken for what they look like:
a path, a variable, an option, a command line; see tests/docs/test_statements.py.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

from composeapps.cli.main import COMMANDS, build_parser
from support.pages import TOP, page

LAYER = TOP / "meta-composeapps"
# What a path in a page may be relative to, besides the page.
PLACES = (TOP, LAYER, LAYER / "docs", LAYER / "lib", LAYER / "lib" / "composeapps", TOP / "tests", TOP / "scripts")
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_SUFFIXES = (".md", ".py", ".yml", ".yaml", ".json", ".bb", ".bbclass", ".conf", ".toml", ".service", ".patch", ".inc")
# Stands for something that a reader fills in.
_PLACEHOLDER = re.compile(r"[…<>*%]|[A-Z]{2,}|~")
_KAS = re.compile(r":?(?:[\w.-]+/)*[\w.-]+\.yml(?::(?:[\w.-]+/)*[\w.-]+\.yml)*")
# One of these ends a command of a shell's line, or stands between two.
_BETWEEN = re.compile(r"\s(?:\|\|?|&&|;|\\)(?:\s|$)|[()]|\$\(|;\s")


class Span(NamedTuple):
    """Words in backticks: what they are, and where: the page (Path) and the line of its paragraph or row."""

    text: str
    path: Path
    line: int

    def __str__(self):
        return f"{self.path.relative_to(TOP)}:{self.line}: `{self.text}`"


def _listed(*patterns):
    """Return the names of the tree's files. What git ignores, a build's above all, may change meanwhile."""
    found = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z", "-co", "--exclude-standard", *patterns],
                           capture_output=True, text=True, check=True)
    return [name for name in found.stdout.split("\0") if name]


@cache
def pages():
    """Return the Markdown files of the tree, those that git ignores left out."""
    return [TOP / name for name in sorted(_listed("*.md")) if (TOP / name).is_file()]


@cache
def spans(path):
    """Return the Spans of a page."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        if token.type == "inline":
            found += [Span(child.content, path, token.map[0] + 1) for child in token.children
                      if child.type == "code_inline"]
    return found


@cache
def sources(tests=False):
    """Return the text of the tree's files but pages, with or without the ``tests``."""
    names = _listed()
    # The tests of the pages name what there is not.
    wanted = [name for name in names if name and not name.endswith(".md") and not name.startswith("tests/docs/")
              and (tests or not name.startswith("tests/"))]
    texts = [(TOP / name).read_text(errors="replace") for name in wanted if (TOP / name).is_file()]
    return "\n".join([*wanted, *texts])


@cache
def known_words(tests=False):
    """Return the words of ``sources``."""
    return frozenset(re.findall(r"[A-Za-z0-9_]+", sources(tests)))


def links(path):
    """Yield a sentence for each link of a page that leads nowhere, and each anchor that there is not."""
    for link in page(path).links:
        place = page(path).resolve(link.target)
        where = f"{path.relative_to(TOP)}:{link.line}: {link.target}"
        if place is None:
            continue
        target, anchor = place
        if not target.exists():
            yield f"{where}: there is no such file"
        elif anchor and (target.suffix != ".md" or anchor not in page(target).anchors):
            yield f"{where}: there is no such heading"


def files(span):
    """Yield a sentence when a span is a path of the repository, and the path is not there."""
    text = span.text.rstrip("/")
    if re.search(r"\s", text) or text.startswith(("-", "/", "http", "~", "oci:")) or "@" in text or "=" in text:
        return
    for name in text.split(":") if _KAS.fullmatch(text) else [text]:
        if not name or not _is_path(name):
            continue
        if "/" not in name and re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", sources(tests=True)):
            # Somebody's file of that name: a device's, a bundle's, a build's.
            continue
        if not any(list(base.glob(_pattern(name))) for base in (span.path.parent, *PLACES)):
            yield f"{span}: there is no file {name}"


def _is_path(name):
    """Tell whether a word is meant as a path of this repository."""
    first = name.split("/")[0]
    if "/" in name:
        return any((base / first).is_dir() for base in PLACES if first not in ("", "..", "build")) and first != "."
    return name.endswith(_SUFFIXES) and not name.startswith(".") and not _PLACEHOLDER.search(name)


def _pattern(name):
    """Return a glob pattern for a path in which a reader fills something in."""
    return re.sub(r"%(?=\.)|…|<[^>]*>|\b[A-Z]{2,}\b(?!\.md)", lambda found: found[0] if found[0] == "%" else "*", name)


def variables(text, where):
    """Yield a sentence for each variable of ours in a text that no code has."""
    for name in set(VARIABLE.findall(text)):
        # Some have the name of a layer or a package behind them.
        if not re.search(rf"\b{name}(?:_[a-z]|\b)", sources()):
            yield f"{where}: nothing in the tree has the variable {name}"


def words(span, foreign=()):
    """Yield a sentence for each word of a span that stands nowhere in the tree but in pages, nor in ``foreign``."""
    for word in sorted(set(re.findall(r"[A-Za-z0-9_]+", span.text)) - known_words(tests=True) - set(foreign)):
        if not any(path.name == f"{word}.md" for path in pages()):
            yield f"{span}: nothing in the tree has '{word}'"


def command_lines(text):
    """Yield the words of each command of this project in a shell's text: those of the agent, and of scripts/."""
    text = re.sub(r"\\\n", " ", text)
    for line in text.splitlines():
        for part in _BETWEEN.split(f" {line} "):
            with contextlib.suppress(ValueError):
                found = shlex.split(part or "", comments=True)
                while found and re.fullmatch(r"[A-Z_]+=.*|sudo", found[0]):
                    found = found[1:]
                found[:1] = ["composeapps"] if found[:1] == ["scripts/composeapps"] else found[:1]
                if found and (found[0] == "composeapps" or re.match(r"(?:\./)?scripts/[\w-]+$", found[0])):
                    yield found


def command(found):
    """Return a sentence about a command line that its parser would not take, None for one that it would.

    Arguments:
        found: its words, as ``command_lines`` yields them.
    """
    if found[0] == "composeapps":
        return _agents(found[1:])
    script = TOP / found[0].removeprefix("./")
    if not os.access(script, os.X_OK):
        return f"there is no command {found[0]}"
    have = _help(script, "") | (_help(script, found[1]) if len(found) > 1 and found[1].isalpha() else frozenset())
    if script.name == "test":
        have |= _pytests()
    return next((f"{found[0]} has no option {option}" for word in found[1:]
                 for option in _OPTION.findall(word.split("=")[0]) if option not in have), None)


def _agents(arguments):
    if not arguments or arguments[0].startswith("-") or _PLACEHOLDER.search(arguments[0]):
        return None
    name, rest = arguments[0], [re.sub(r"^\[|\]$", "", word) for word in arguments[1:]]
    if name not in COMMANDS:
        return f"composeapps has no command {name}"
    # What a reader fills in is no number, but every option that there is may be given.
    filled = [{"N": "1", "SHELL": "bash"}.get(word, re.sub("…", "x", word)) for word in rest]
    sub = build_parser(name).subcommands()[name]
    words = filled
    while sub.subcommands() and words and words[0] in sub.subcommands():
        name, sub, words = f"{name} {words[0]}", sub.subcommands()[words[0]], words[1:]
    if any(word.startswith("-") for word in filled) or not words:
        known = set(sub._option_string_actions)
        for word in filled:
            if word.startswith("-") and word.split("=")[0] not in known:
                return f"composeapps {name} has no option {word}"
        return None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build_parser(arguments[0]).parse_args([arguments[0], *filled])
    except SystemExit as err:
        if err.code:
            return said.getvalue().strip()
    return None


@cache
def _help(script, subcommand):
    """Return the options that a command's help tells of."""
    done = subprocess.run([sys.executable, str(script), *filter(None, [subcommand]), "--help"], capture_output=True,
                          text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "80"})
    return frozenset(_OPTION.findall(done.stdout)) if done.returncode == 0 else frozenset()


@cache
def _pytests():
    done = subprocess.run([sys.executable, "-m", "pytest", "--help"], cwd=TOP, capture_output=True, text=True,
                          check=False)
    # One of two names for the same, of which help tells the other.
    return frozenset(_OPTION.findall(done.stdout)) | {"--junitxml"}


@cache
def _all_options():
    """Return every option that some parser of the tree has, or that the tree's code gives to other programs."""
    return frozenset(_OPTION.findall(sources(tests=True)))


def options(span):
    """Yield a sentence for each option in a span that belongs to no command line and that no code knows."""
    if span.text.startswith("-"):
        for option in _OPTION.findall(span.text):
            if option not in _all_options():
                yield f"{span}: nothing in the tree has the option {option}"
