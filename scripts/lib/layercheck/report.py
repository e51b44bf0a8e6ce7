# SPDX-License-Identifier: MIT
"""The results as a table for people and as JSON for programs."""

import json
import subprocess

from rich.console import Console
from rich.table import Table

from layercheck.results import Status

PASSED, FAILED, UNREACHED = 0, 1, 3
_COLOURS = {Status.PASSED: "green", Status.FAILED: "red", Status.UNREACHED: "yellow"}


def exit_status(results):
    """Return 0 when all passed, 1 when something failed, 3 when nothing failed but something was not reached."""
    found = {result.status for result in results}
    return FAILED if Status.FAILED in found else UNREACHED if Status.UNREACHED in found else PASSED


def state_of(top):
    """Return the commit of the repository ``top`` and whether the tree differs from it; None without git."""
    def git(*words):
        done = subprocess.run(["git", "-C", str(top), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        return done.stdout.strip() if not done.returncode else None

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(git("status", "--porcelain"))} if commit else None
    except FileNotFoundError:
        return None


def document(results, top, extra, layers):
    """Return everything as plain data.

    Arguments:
        extra: the files of --with.
        layers: {combination: [Reach]} of what was looked for.
    """
    return {
        "status": exit_status(results),
        "tree": state_of(top),
        "with": [str(path) for path in extra],
        "results": [result.as_json() for result in results],
        "layers": {name: {reach.repository.name: reach.revision for reach in found if reach.revision}
                   for name, found in layers.items()},
        "not_reached": {name: [reach.sentence() for reach in found if reach.problem]
                        for name, found in layers.items() if any(reach.problem for reach in found)},
    }


def write_json(data, stream):
    """Write the document to a text stream."""
    json.dump(data, stream, indent=2)
    stream.write("\n")


def show(results, extra, stream):
    """Print the results as a table."""
    console = Console(file=stream, highlight=False)
    table = Table(box=None, header_style="dim")
    for name in ("check", "of", "result", "what"):
        table.add_column(name, overflow="fold")
    table.add_column("seconds", justify="right")
    for result in results:
        again = " (as before)" if result.reused else ""
        table.add_row(result.check, result.subject, f"[{_COLOURS[result.status]}]{result.status}[/]{again}",
                      result.summary.replace("[", r"\["), f"{result.seconds:.0f}")
    console.print()
    console.print(table)
    for path in extra:
        console.print(f"joined to each combination: {path}", markup=False, soft_wrap=True)
