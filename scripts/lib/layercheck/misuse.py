# SPDX-License-Identifier: MIT
"""Mistakes that a user of the layer can make: BitBake must say what is wrong and what to do."""

import shutil
from dataclasses import dataclass

from composeapps import durable
from layercheck.process import last_lines
from layercheck.results import Result, Status

_IMAGE = "composeapps-image"


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Arguments:
        subject: what it is called in the report.
        target: what the user builds.
        sentence: what BitBake must say.
        settings: lines of configuration with the mistake.
        environment: variables with the mistake; MACHINE is one of them.
        change: (old, new) texts in every app's recipe.
    """

    subject: str
    target: str
    sentence: str
    settings: str = ""
    environment: tuple = ()
    change: tuple = ()


MISTAKES = (
    Mistake("app not generated", _IMAGE, "there is no app 'unheardof', which COMPOSEAPPS_PRELOAD names",
            environment=(("COMPOSEAPPS_PRELOAD", "unheardof"),)),
    Mistake("digest missing", "composeapp-web", "has no digest: generate the recipe again with scripts/gen-recipes",
            change=("@sha256:", ":")),
    Mistake("platform lacking", "composeapp-web", "app web has no images for linux/arm64 (it has linux/amd64)",
            environment=(("MACHINE", "qemuarm64"),)),
    Mistake("wrong image store", _IMAGE, "selects containerd's image store (features.containerd-snapshotter)",
            settings='COMPOSEAPPS_DOCKER_SETTINGS = \'{"features": {"containerd-snapshotter": true}}\'\n'),
)


def run(build):
    """Make each mistake and return a Result for it; ``build`` is an execute.Build."""
    return [_try(build, number, mistake) for number, mistake in enumerate(MISTAKES)]


def _try(build, number, mistake):
    environment = dict(mistake.environment)
    if mistake.change:
        environment["COMPOSEAPPS_RECIPES"] = str(_changed(build, number, mistake.change))
    with build.context.progress.step(f"making a mistake: {mistake.subject}"):
        outcome = build.bitbake(f"mistake-{number}", ["--dry-run", mistake.target], mistake.settings, environment)
    said = [text for text in outcome.said("ERROR", "FATAL") if mistake.sentence in " ".join(text.split())]
    problems = []
    if not outcome.status:
        problems.append(f"{mistake.target} is planned all the same")
    elif not said:
        problems += [f"BitBake does not say '{mistake.sentence}' but", last_lines(outcome.log)]
    return Result("execute", mistake.subject, Status.FAILED if problems else Status.PASSED,
                  "BitBake says what to do" if not problems else "BitBake does not say what to do",
                  outcome.seconds, problems=problems, log=str(outcome.log))


def _changed(build, number, change):
    """Copy the apps' recipes with a change; return the directory."""
    target = build.work / f"recipes-{number}"
    shutil.rmtree(target, ignore_errors=True)
    for path in (build.work / "recipes").rglob("*.bb"):
        copy = target / path.relative_to(build.work / "recipes")
        durable.make_directories(copy.parent)
        durable.write_file(copy, path.read_text().replace(*change).encode())
    return target
