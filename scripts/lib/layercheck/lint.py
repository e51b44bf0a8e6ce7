# SPDX-License-Identifier: MIT
"""oelint-adv over all metadata of the layer, with the rules of .oelint.cfg."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from composeapps import durable
from layercheck.errors import CheckError
from layercheck.results import Result, Status

CONFIGURATION = ".oelint.cfg"
_FINDING = re.compile(r"(?P<path>[^:]+):(?P<line>\d+):(?P<severity>info|warning|error):(?P<rule>[\w.]+):(?P<text>.*)")
_ASSIGNED = re.compile(r"^(?:export )?(COMPOSEAPPS?_\w+)(?:\[\w+\])?\s*(?:\?\?|[?:+.])?=", re.M)
_COMMENT = re.compile(r"^\s*#.*", re.M)
_NAME = re.compile(r"\bCOMPOSEAPPS?_\w+")
_OVERRIDE = re.compile(r"^OVERRIDES\b.*['\"]:([a-z][\w-]*)['\"]", re.M)
# openembedded-core's own, and not in oelint-adv's data.
_CORE_VARIABLES = ["SSTATE_SKIP_CREATION"]
_DOCUMENTED = re.compile(r"^(\w+)\[doc\]", re.M)


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that oelint-adv has against a file."""

    path: str
    line: int
    severity: str
    rule: str
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.severity}: {self.text} [{self.rule}]"


def metadata(layer):
    """Return the files of ``layer`` that BitBake reads, sorted; includes are read through the files that name them."""
    conf = list(Path(layer, "conf").rglob("*.conf"))
    others = [path for suffix in ("bb", "bbappend", "bbclass") for path in Path(layer).rglob(f"*.{suffix}")]
    return sorted([*conf, *others])


def _texts(layer):
    return sorted([*metadata(layer), *Path(layer).rglob("*.inc")])


def known_overrides(layer):
    """Return the overrides that the layer's classes add to OVERRIDES."""
    return sorted({name for path in _texts(layer) for name in _OVERRIDE.findall(path.read_text())})


def trailing_spaces(top, layer):
    """Return a Finding for each line of the layer's metadata that ends with a space."""
    return [Finding(str(path.relative_to(top)), number, "warning", "trailing-space", "the line ends with a space")
            for path in _texts(layer) for number, line in enumerate(path.read_text().splitlines(), 1)
            if line != line.rstrip()]


def known_variables(layer):
    """Return the layer's own variables: those that are documented, and those that it both sets and reads.

    One that is set and never read is a misspelling, and stays unknown to oelint-adv.
    """
    documented, assigned, read = set(), set(), set()
    for path in [*_texts(layer), *Path(layer).rglob("*.wks*")]:
        text = path.read_text()
        documented.update(_DOCUMENTED.findall(text))
        assigned.update(_ASSIGNED.findall(text))
        # By ${…}, by getVar or by a list of names: anywhere but where it is set.
        read.update(_NAME.findall(_ASSIGNED.sub("", _COMMENT.sub("", text))))
    return sorted(documented | (assigned & read))


def suppressed(top):
    """Return {rule: the comment above it} of the rules that .oelint.cfg turns off."""
    rules, comment, inside = {}, "", False
    for line in Path(top, CONFIGURATION).read_text().splitlines():
        text = line.strip()
        if text.startswith("suppress"):
            inside, comment = True, ""
        elif text.startswith("#"):
            comment = f"{comment} {text.lstrip('# ')}".strip()
        elif inside and text and line[0].isspace():
            rules[text] = comment
        elif not text:
            comment = ""
        else:
            inside = False
    return rules


def findings(top, directory):
    """Run oelint-adv over the layer of the repository ``top`` and return its Findings, sorted.

    ``directory`` takes what it needs to be told. Raises CheckError when oelint-adv itself fails.
    """
    layer = Path(top) / "meta-composeapps"
    constants = Path(directory) / "oelint-constants.json"
    durable.make_directories(constants.parent)
    durable.write_file(constants, json.dumps({
        "variables": {"known": known_variables(layer) + _CORE_VARIABLES},
        # The list against which it looks overrides up.
        "replacements": {"distros": known_overrides(layer)},
    }).encode())
    argv = [sys.executable, "-m", "oelint_adv", "--quiet", "--relpaths", "--mode", "all", "--jobs",
            str(len(os.sched_getaffinity(0))), "--constantmods", f"+{constants.resolve()}", "--exit-zero", "--",
            *(str(path.relative_to(top)) for path in metadata(layer))]
    environment = {**os.environ, "OELINT_CONFIG": str(Path(top).resolve() / CONFIGURATION)}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                          env=environment, cwd=top, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or ["it said nothing"]
        raise CheckError(f"oelint-adv failed (status {done.returncode}): {said[-1]}")
    found = set(trailing_spaces(Path(top), layer))
    for line in (done.stdout + done.stderr).splitlines():
        match = _FINDING.match(line)
        if match:
            # Each side of an inline condition is linted by itself; the same finding in both is one.
            text = re.sub(r" \[branch:\w+\]$", "", match["text"])
            found.add(Finding(match["path"], int(match["line"]), match["severity"], match["rule"], text))
    return sorted(found)


def run(context):
    """Lint the layer; returns one Result, passed when there is no finding and every rule that is off has a reason."""
    started = time.monotonic()
    layer = context.top / "meta-composeapps"
    with context.progress.step("lint"):
        found = findings(context.top, context.directory)
    off = suppressed(context.top)
    unexplained = [f"{CONFIGURATION}: {rule} is turned off without a comment that says why"
                   for rule, why in off.items() if not why]
    files = len(metadata(layer))
    problems = [str(finding) for finding in found] + unexplained
    return Result("lint", layer.name, Status.FAILED if problems else Status.PASSED,
                  f"{files} files, {len(found)} findings, {len(off)} rules off", time.monotonic() - started,
                  {"files": files, "findings": len(found), "rules off": len(off)}, problems)
