# SPDX-License-Identifier: MIT
"""Run the tasks of the layer's own recipes under the real BitBake, down to packages and an image.

What it takes from the build machine instead of building it is in standins/.
"""

import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from composeapps import durable
from composeapps.errors import ComposeAppsError
from factory.localregistry import DEMO_HOST
from layercheck import demoapps, executed, misuse
from layercheck.bitbakelog import Reader
from layercheck.combinations import Combination
from layercheck.errors import CheckError
from layercheck.process import last_lines
from layercheck.results import Result, Status
from recipes import pyconf
from recipes.pypi import DEFAULT_INDEX, PackageIndex

CHECK = "execute"
IMAGE = "composeapps-image"
MACHINE = "qemux86-64"

PROVES = """\
This ran real tasks: fetching over oci://, unpacking, installing, packaging, package QA, licences, SPDX, a root
file system put together by a package manager, ext4. BitBake, classes and configuration were openembedded-core's.
It compiled nothing. Programs of this machine stood in for pseudo, dpkg, apt, rpmdeps, systemctl, mke2fs and Python;
packages in name only for docker, Python, the kernel and the rest of the image. So it does not show that an image
boots, that docker builds, or that the pinned versions of those programs do the same. The dry run of all recipes,
yocto-check-layer and the fast lane's booted image are checks of their own.
"""

_TASK = re.compile(r"NOTE: recipe (\S+): task (do_\w+): Succeeded")
# What each recipe that makes packages must have been through.
_PACKAGE_TASKS = {"do_package_write_deb", "do_package_qa", "do_populate_lic", "do_create_spdx",
                  "do_create_package_spdx"}
_IMAGE_TASKS = {"do_rootfs", "do_image_ext4", "do_image_complete", "do_create_image_sbom_spdx"}


@dataclass(frozen=True)
class Execution(Combination):
    """The combination of kas files for this check: one of the stand-ins at the end."""

    @property
    def files(self):
        return (*super().files, "scripts/lib/layercheck/standins/execute.yml")


COMBINATION = Execution("execute", ("base", MACHINE, "preload"), "the layer's recipes make packages and an image")


@dataclass
class Outcome:
    """What one run of BitBake did.

    Arguments:
        status: its exit status.
        tasks: {recipe with version and revision: {task}} of those that ended well.
        reading: a bitbakelog.Reading.
        log: the file with all of the output.
        seconds: how long it took.
    """

    status: int
    log: Path
    tasks: dict = field(default_factory=dict)
    reading: object = None
    seconds: float = 0.0

    def said(self, *kinds):
        """Return the texts of the messages of these kinds ("WARNING", "ERROR", "FATAL")."""
        return self.reading.select(kinds, True) + self.reading.select(kinds, False)

    def tasks_of(self, recipe):
        """Return the tasks of the recipe called ``recipe``, whatever its version."""
        own = re.compile(rf"{re.escape(recipe)}-\d")
        return {task for name, tasks in self.tasks.items() if own.match(name) for task in tasks}


class Build:
    """The build directory of this check.

    Arguments:
        context: a layercheck.context.Context.
    """

    def __init__(self, context):
        self.context = context
        self.directory = context.kas.build_directory(COMBINATION)
        self.downloads = self.directory / "downloads"
        self.tmp = self.directory / "tmp"
        self.images = self.tmp / "deploy" / "images" / MACHINE
        self.work = context.directory / "execute"

    def clean(self, *more):
        """Remove what earlier runs built, so that every task runs."""
        for path in (self.tmp, self.directory / "sstate-cache", *more):
            shutil.rmtree(path, ignore_errors=True)

    def bitbake(self, name, words, settings="", environment=None):
        """Run BitBake with ``words``; ``settings`` are read after all configuration.

        Arguments:
            name: of the log file.
            environment: variables in front of the command, {name: value}.

        Returns an Outcome.
        """
        after = self.work / f"{name}.conf"
        durable.make_directories(after.parent)
        durable.write_file(after, settings.encode())
        command = [f"{key}={value}" for key, value in (environment or {}).items()]
        command = shlex.join(["env", *command, "bitbake", "--postread", str(after), *words])
        outcome = Outcome(0, self.context.directory / "log" / f"execute-{name}.log")
        reader, started = Reader(), time.monotonic()

        def on_line(line):
            reader.line(line)
            found = _TASK.match(line)
            if found:
                outcome.tasks.setdefault(found[1], set()).add(found[2])

        outcome.status = self.context.kas.shell(
            COMBINATION, command, outcome.log, on_line=on_line,
            on_tick=lambda: self.context.progress.detail(reader.reading.at))
        outcome.reading, outcome.seconds = reader.end(), time.monotonic() - started
        return outcome


def run(context):
    """Carry out the check; returns Results, one for each thing that was looked at.

    The layers of COMBINATION must be reachable. Raises CheckError when something is missing here.
    """
    build = Build(context)
    try:
        with context.progress.step("checking out the layers"):
            context.kas.checkout(COMBINATION, context.directory / "log" / "checkout-execute.log")
    except CheckError as err:
        return [Result(CHECK, "layers", Status.UNREACHED, "the layers cannot be checked out", problems=[str(err)])]
    build.clean(build.downloads)
    results = []
    try:
        names = _fetch(build, results)
    except CheckError as err:
        results.append(Result(CHECK, "demo apps", Status.UNREACHED, "the demo apps cannot be had", problems=[str(err)]))
        return results
    # Before the build: BitBake removes what was deployed under another configuration.
    results += misuse.run(build)
    if results[0].status == Status.PASSED and _build(build, names, results):
        results += executed.look(build)
    context.progress.say(PROVES)
    return results


def _fetch(build, results):
    """Fetch the demo apps from a registry that is gone afterwards; return their names. Raises CheckError."""
    context = build.context
    with demoapps.published(context, build.work / "recipes") as apps:
        context.kas.environment.update({"OCI_ENDPOINTS": apps.endpoint, "STANDIN_PYTHON": sys.executable})
        with context.progress.step("fetching the apps through oci://"):
            # Nothing but the registry may be asked.
            outcome = build.bitbake("fetch", ["--runonly=fetch", *(f"composeapp-{name}" for name in apps.names)],
                                    f'BB_NO_NETWORK = "0"\nBB_ALLOWED_NETWORKS = "{DEMO_HOST}"\n')
    results.append(executed.fetched(build, apps.recipes, outcome))
    return apps.names


def _sources(build):
    """Put the source archives of Python packages where BitBake finds downloads; it checks them against the recipes.

    They come by the index, since not every mirror of PyPI has the addresses that pypi.bbclass puts together.
    """
    index = PackageIndex(os.environ.get("PIP_INDEX_URL") or DEFAULT_INDEX)
    try:
        for path in sorted((build.context.top / "conf" / "python").glob("*.yml")):
            conf = pyconf.load(path)
            link = index.find(conf.name, conf.version)
            durable.write_file(build.downloads / link.filename, index.download(link))
    finally:
        index.close()


def recipes_of(layer):
    """Return the names of the recipes in the layer."""
    return sorted({path.stem.partition("_")[0] for path in Path(layer).glob("recipes-*/*/*.bb")})


def _build(build, names, results):
    """Build everything with no network; tells whether that went well."""
    progress = build.context.progress
    build.clean()
    try:
        with progress.step("fetching the sources of Python packages"):
            _sources(build)
    except ComposeAppsError as err:
        results.append(Result(CHECK, "sources", Status.UNREACHED, "the sources of Python packages cannot be had",
                              problems=[str(err)]))
        return False
    recipes = [*recipes_of(build.context.layer), *(f"composeapp-{name}" for name in names)]
    with progress.step("running the recipes, with no network"):
        outcome = build.bitbake("build", recipes, 'OCI_ENDPOINTS = ""\n')
    problems = outcome.said("ERROR", "FATAL", "WARNING")
    missing = [f"{recipe} did not run {', '.join(sorted(lacking))}" for recipe in recipes
               if (lacking := (_IMAGE_TASKS if recipe == IMAGE else _PACKAGE_TASKS) - outcome.tasks_of(recipe))]
    tasks = sum(len(outcome.tasks_of(recipe)) for recipe in recipes)
    packages = len(list((build.tmp / "deploy" / "deb").rglob("*.deb")))
    if outcome.status and not problems:
        problems = [last_lines(outcome.log)]
    if not outcome.status:
        problems += missing
    passed = not outcome.status and not problems
    results.append(Result(
        CHECK, "recipes", Status.PASSED if passed else Status.FAILED,
        f"{len(recipes)} recipes ran {tasks} tasks with no network and wrote {packages} packages", outcome.seconds,
        {"recipes": len(recipes), "tasks": tasks, "packages": packages}, problems, str(outcome.log)))
    return not outcome.status
