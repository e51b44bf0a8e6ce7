# SPDX-License-Identifier: MIT
"""What the layer's own files say of its BitBake variables, and the kas files of their options."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

_ASSIGNED = re.compile(r"""^([A-Z][A-Z0-9_]*)((?::[a-z0-9-]+)*)\s*(\?\?=|\?=|=)\s*(["'])(.*?)\4\s*$""", re.MULTILINE)
_DOCUMENTED = re.compile(r'^(\w+)\[doc\] = "(.*)"$')
_NAME = re.compile(r"\bCOMPOSEAPPS?_[A-Z_]+[A-Z]\b")
_SUFFIXES = (".bb", ".bbappend", ".bbclass", ".inc", ".conf", ".in")


class Variable(NamedTuple):
    """A variable: its ``name``, ``text``, and ``defaults``, [(value, file of the layer)], empty without one."""

    name: str
    text: str
    defaults: list


def _files(layer):
    return sorted(path for path in Path(layer).rglob("*") if path.suffix in _SUFFIXES and path.is_file())


def _documentation(layer):
    return Path(layer) / "conf" / "composeapps-documentation.conf"


def documented(layer):
    """Return [(heading, [Variable])] of the variables that a user may set, as the documentation has them.

    Arguments:
        layer: the layer's directory.
    """
    layer, defaults = Path(layer), {}
    for path in _files(layer):
        for name, override, operator, _quote, value in _ASSIGNED.findall(path.read_text()):
            if operator != "=" and not override:
                defaults.setdefault(name, []).append((value, str(path.relative_to(layer))))
    groups = []
    for line in _documentation(layer).read_text().splitlines():
        if line.startswith("# ") and "SPDX" not in line:
            groups.append((line[2:].removesuffix("."), []))
        elif found := _DOCUMENTED.match(line):
            text = found[2].replace('\\"', '"')
            groups[-1][1].append(Variable(found[1], text, defaults.get(found[1], [])))
    return [group for group in groups if group[1]]


def used(layer):
    """Return {variable of this layer: the files that have it}, as paths below the layer."""
    layer, found = Path(layer), {}
    for path in _files(layer):
        if path != _documentation(layer):
            for name in set(_NAME.findall(path.read_text())):
                found.setdefault(name, []).append(str(path.relative_to(layer)))
    return found


def own(layer):
    """Return the variables that the layer's files set for themselves, without letting somebody else set them before."""
    found, let = set(), set()
    for path in _files(layer):
        for name, _override, operator, _quote, _value in _ASSIGNED.findall(path.read_text()):
            (found if operator == "=" else let).add(name)
        # A value of several lines.
        found |= set(re.findall(r'^(\w+) = "\\$', path.read_text(), re.MULTILINE))
    return found - let


class KasFile(NamedTuple):
    """A kas file: its ``name``, the ``text`` of its first lines, its ``machine`` or "".

    ``env`` is {name: default} of what it takes from the environment.
    """

    name: str
    text: str
    machine: str
    env: dict


def kas_files(directory):
    """Return the KasFiles of a directory, those that pin revisions left out: first what every build has."""
    found = []
    for path in sorted(Path(directory).glob("*.yml")):
        if path.name.endswith(".lock.yml"):
            continue
        lines = []
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                break
            if line.startswith("#   "):
                # A command to show.
                lines.append(f"`{line[4:].strip()}`;")
            elif "SPDX" not in line:
                lines.append(line[2:])
        value = yaml.safe_load(path.read_text())
        text = " ".join(lines).removesuffix(";")
        found.append(KasFile(path.name, text, value.get("machine", ""), value.get("env") or {}))
    return sorted(found, key=lambda each: (each.name != "base.yml", not each.machine, each.name))
