# SPDX-License-Identifier: MIT
"""One build from start to end: recipes, base, tasks, image."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import time
import traceback
from pathlib import Path

from composeapps import durable
from composeapps.errors import ComposeAppsError
from fastlane import base as bases
from fastlane import trees
from fastlane.bitbake import BitBake, assignment, describe
from fastlane.errors import BuildError
from fastlane.world import World, signature


@dataclasses.dataclass
class Options:
    """What to build and where.

    Attributes:
        top: the repository, with conf/fastlane and meta-composeapps.
        build: the directory for all products.
        machine, image: what to build, by the names that BitBake uses.
        recipe_directories: where generated recipes are.
        preload: names of apps that replace COMPOSEAPPS_PRELOAD, or None.
        settings: further (variable, value) pairs for the configuration.
        layers: layers besides meta-composeapps.
    """

    top: Path
    build: Path
    machine: str = "qemux86-64"
    image: str = "composeapps-image"
    recipe_directories: tuple = ()
    preload: list | None = None
    settings: tuple = ()
    layers: tuple = ()

    @property
    def fastlane(self):
        return Path(self.top, "conf", "fastlane")

    def local_configuration(self):
        """Return the lines of conf/local.conf. Raises BuildError for a value that cannot be written there."""
        machines = sorted(path.stem for path in self.fastlane.glob("conf/machine/*.conf"))
        if self.machine not in machines:
            raise BuildError(f"the fast lane has no machine '{self.machine}': it has {', '.join(machines)}")
        values = [
            ("MACHINE", self.machine),
            ("DL_DIR", str(self.build / "downloads")),
            ("FASTLANE_DEPLOY", str(self.build / "deploy")),
        ]
        for variable, environment in (("OCI_ENDPOINTS", "COMPOSEAPPS_ENDPOINTS"),
                                      ("REGISTRY_AUTH_FILE", "REGISTRY_AUTH_FILE"),
                                      ("FASTLANE_MIRROR", "COMPOSEAPPS_MIRROR")):
            if os.environ.get(environment):
                values.append((variable, os.environ[environment]))
        values += self.settings
        if self.preload is not None:
            values.append(("COMPOSEAPPS_PRELOAD:forcevariable", " ".join(self.preload)))
        return [assignment(name, value) for name, value in values]


class Build:
    """An opened build; ``plan`` says what belongs to the image.

    Raises BuildError for whatever is wrong with the configuration or a recipe.
    """

    def __init__(self, options, progress):
        self.options, self.progress = options, progress
        self.topdir = Path(options.build, "fastlane").resolve()
        self.built, self.unchanged = [], []
        self._signatures = {}
        with progress.step("reading the recipes"):
            layers = [options.fastlane, Path(options.top, "meta-composeapps"), *options.layers]
            for directory in options.recipe_directories:
                if not Path(directory).is_dir():
                    raise BuildError(f"{directory} is not a directory: name one that scripts/gen-recipes wrote")
            self.bitbake = BitBake(self.topdir, [Path(layer).resolve() for layer in layers],
                                   options.local_configuration(), options.recipe_directories)
            self.world = World(self.bitbake, progress)

    def run(self, base_only=False):
        """Build the image, or only its base. Return a JSON-able description of what was done."""
        with self.progress.step("working out what the image needs"):
            plan = self._plan(base_only)
        self._base(plan)
        result = {"machine": self.options.machine, "base": plan.base.key, "base_tree": str(plan.base.tree)}
        if not base_only:
            for recipe in plan.order[:-1]:
                self.build_recipe(recipe, plan.base)
            path = self._image(plan)
            apps = json.loads(path.read_text())["apps"]
            deployed = Path(plan.image.d.getVar("DEPLOY_DIR_IMAGE"), "composeapps")
            # Where the recipes of the apps have put a store for each.
            stores = [str(deployed / app) for app in (plan.image.d.getVar("COMPOSEAPPS_PRELOAD") or "").split()]
            result |= {"image": str(path), "apps": apps, "stores": stores}
        return {**result, "built": self.built, "unchanged": self.unchanged}

    def _plan(self, base_only):
        if base_only:
            # Apps bring no Debian packages, so the base is known before any app is.
            image = self.world.recipe(self.options.image, "the command line")
            image.d.setVarFlag("do_rootfs", "depends", "")
        return self.world.plan(self.options.image)

    def _base(self, plan):
        cache = Path(self.options.build, "cache")
        description = bases.describe(self.bitbake.d, plan.debian)
        if bases.find(cache, description):
            plan.base = bases.make(cache, description, self.progress)
        else:
            with self.progress.step("making the Debian base (once)"):
                plan.base = bases.make(cache, description, self.progress)

    def signature(self, recipe, base):
        """Return the signature of a recipe with all that it needs."""
        if recipe not in self._signatures:
            import bb.data

            extra = []
            if base and bb.data.inherits_class("python3native", recipe.d):
                extra.append(base.key)
            needed = [self.signature(other, base) for other in self.world.needs(recipe)]
            with self.bitbake.speaking(recipe.pn):
                self._signatures[recipe] = signature(recipe, needed, extra)
        return self._signatures[recipe]

    def build_recipe(self, recipe, base=None):
        """Run a recipe's tasks unless it was built with the same signature before. Returns whether they ran."""
        wanted = self.signature(recipe, base)
        stamp = self._stamp(recipe)
        if stamp.exists() and stamp.read_text() == wanted:
            self.unchanged.append(recipe.pn)
            return False
        tasks = recipe.tasks()
        if tasks:
            if base:
                recipe.d.setVar("FASTLANE_PYTHON", str(base.python))
            recipe.d.setVar("FASTLANE_PROGRESS", self.progress)
            with self.progress.step(f"building {recipe.pn}"):
                self._run_tasks(recipe, tasks, stamp)
        _write_stamp(stamp, wanted)
        self.built.append(recipe.pn)
        return True

    def _stamp(self, recipe):
        return self.topdir / "stamps" / self.options.machine / recipe.pn

    def _run_tasks(self, recipe, tasks, stamp):
        stamp.unlink(missing_ok=True)
        workdir = Path(recipe.d.getVar("WORKDIR"))
        # Versions of an app come and go; only the newest keeps its work.
        for other in workdir.parent.iterdir() if workdir.parent.is_dir() else ():
            if other != workdir:
                trees.remove_tree(other)
        for task in tasks:
            self.progress.detail(f"building {recipe.pn}: {task}")
            self.bitbake.run_task(recipe.file, recipe.d, task)

    def _image(self, plan):
        image = plan.image
        engine = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("*.py")):
            engine.update(path.read_bytes())
        parts = [f"{recipe.pn} {package} {self.signature(recipe, plan.base)}" for recipe, package in plan.packages]
        wanted = signature(image, [self.signature(other, plan.base) for other in self.world.needs(image)],
                           [plan.base.key, engine.hexdigest(), *parts])
        stamp = self._stamp(image)
        path = Path(image.d.getVar("FASTLANE_DEPLOY"), f"{image.d.getVar('IMAGE_NAME')}.json")
        if stamp.exists() and stamp.read_text() == wanted and _complete(path):
            self.unchanged.append(image.pn)
            # Who asks for the image that was built last means this one.
            os.utime(path)
            return path
        image.d.setVar("FASTLANE_PLAN", plan)
        image.d.setVar("FASTLANE_SIGNATURE", wanted)
        names = {"do_rootfs": "laying out the root file system", "do_image": "writing the disk",
                 "do_image_complete": "publishing the image"}
        for task in image.tasks():
            with self.progress.step(names.get(task, f"{image.pn}: {task}")):
                self._run_tasks(image, [task], stamp)
        trees.remove_tree(image.d.getVar("IMAGE_ROOTFS"))
        _write_stamp(stamp, wanted)
        self.built.append(image.pn)
        return path


def _complete(path):
    """Tell whether a description and the files that it names are there."""
    try:
        description = json.loads(path.read_text())
        return all((path.parent / description[what]).is_file() for what in ("disk", "kernel", "initrd"))
    except (OSError, ValueError, KeyError):
        return False


def _write_stamp(stamp, text):
    """Vouch for what was built: a stamp must not outlive a power cut that the files before it did not."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    durable.sync_filesystem(stamp.parent)
    durable.write_file(stamp, text.encode())


@contextlib.contextmanager
def lock(build, progress):
    """Keep two builds out of one directory; the second waits."""
    path = Path(build, "fastlane", "lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another build is at work in this directory: waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _unexpected(options, err):
    """Return the sentence for an exception that nobody foresaw; its traceback goes into a file."""
    log = Path(options.build, "fastlane", "traceback.log")
    log.write_text("".join(traceback.format_exception(err)))
    return f"{describe(err)} (details: {log})"


def build(options, progress, base_only=False, then=lambda result: None):
    """Build and return the description of what was done, with times in seconds.

    ``then`` is called with it before another build may replace what was built. Raises BuildError, and ComposeAppsError
    where ``then`` does.
    """
    started = time.monotonic()
    try:
        with lock(options.build, progress):
            result = Build(options, progress).run(base_only)
            then(result)
    except OSError as err:
        place = f" ({err.filename})" if err.filename else ""
        raise BuildError(f"{err.strerror or err}{place}") from None
    except (BuildError, ComposeAppsError):
        raise
    except Exception as err:
        raise BuildError(_unexpected(options, err)) from None
    return {**result, "seconds": round(time.monotonic() - started, 2), "steps": progress.timings}
