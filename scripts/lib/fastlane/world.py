# SPDX-License-Identifier: MIT
"""The recipes of a build: which there are, what an image needs of them and of Debian."""

import dataclasses
import hashlib
import os
from pathlib import Path

from fastlane.errors import BuildError


@dataclasses.dataclass(eq=False)
class Recipe:
    """One parsed recipe. ``d`` is its data store, ``skipped`` the reason it cannot be built, or None."""

    file: str
    d: object
    skipped: str | None
    pn: str = ""
    pv: str = ""
    packages: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.pn = self.d.getVar("PN")
        self.pv = self.d.getVar("PV")
        self.packages = (self.d.getVar("PACKAGES") or "").split()

    def names(self, variable, package=""):
        """Return the names in a variable such as RDEPENDS:package, without version constraints."""
        import bb.utils

        value = self.d.getVar(f"{variable}:{package}" if package else variable) or ""
        try:
            return list(bb.utils.explode_dep_versions2(value))
        except ValueError:
            raise BuildError(f"{self.file}: {variable} '{value}' is not a list of names") from None

    def tasks(self):
        """Return the tasks that do_build needs, each after those that it needs."""
        parents = (self.d.getVar("_task_deps", False) or {}).get("parents", {})
        ordered, seen = [], set()

        def visit(task):
            if task in seen or task not in parents:
                return
            seen.add(task)
            for parent in sorted(parents[task]):
                visit(parent)
            ordered.append(task)

        visit("do_build")
        return [task for task in ordered if self.d.getVarFlag(task, "noexec") != "1"]

    def task_dependencies(self):
        """Return the names of recipes that [depends] flags of this recipe's tasks name."""
        found = []
        for task in self.tasks():
            found += [entry.partition(":")[0] for entry in (self.d.getVarFlag(task, "depends") or "").split()]
        return found


@dataclasses.dataclass
class Plan:
    """What an image consists of.

    ``order`` lists the recipes to build, each after those that it needs, the image last;
    ``packages`` the (recipe, package) pairs to install, ``debian`` the sorted Debian packages.
    ``base`` is the base root, once it is there.
    """

    image: Recipe
    order: list
    packages: list
    debian: list
    base: object = None


class World:
    """All recipes that BBFILES names. Raises BuildError when one of them cannot be parsed."""

    def __init__(self, bitbake, progress=None):
        self._d = bitbake.d
        self.recipes, self._provides, self._packages = {}, {}, {}
        for file, appends in bitbake.recipe_files():
            if progress:
                progress.detail(f"parsing {os.path.basename(file)}")
            d, skipped = bitbake.parse(file, appends)
            self._add(Recipe(file, d, skipped))
        for recipe in self.recipes.values():
            for name in recipe.names("PROVIDES"):
                self._provides.setdefault(name, recipe)
            for package in recipe.packages:
                for name in [package, *recipe.names("RPROVIDES", package)]:
                    self._packages.setdefault(name, (recipe, package))
        self._debian = self._d.getVarFlags("FASTLANE_DEBIAN") or {}

    def _add(self, recipe):
        import bb.utils

        other = self.recipes.get(recipe.pn)
        if other:
            compared = bb.utils.vercmp_string(recipe.pv, other.pv)
            if compared == 0:
                raise BuildError(f"two recipes for {recipe.pn} {recipe.pv}: {other.file} and {recipe.file}; "
                                 "remove one of them")
            if compared < 0:
                return
        self.recipes[recipe.pn] = recipe

    def recipe(self, name, wanted_by):
        """Return the recipe that provides ``name``. Raises BuildError when none does or it is skipped."""
        recipe = self.recipes.get(name) or self._provides.get(name)
        if recipe is None:
            raise BuildError(f"no recipe provides '{name}', which {wanted_by} needs: add its directory with "
                             "--apps-dir, or build with bitbake")
        if recipe.skipped:
            raise BuildError(f"{recipe.skipped} (needed by {wanted_by})")
        return recipe

    def plan(self, image_name):
        """Work out what the image needs. Raises BuildError for a name that leads nowhere."""
        image = self.recipe(image_name, "the command line")
        if not image.d.getVar("IMAGE_ROOTFS") or "do_rootfs" not in image.tasks():
            raise BuildError(f"{image_name} is not an image recipe: name one that inherits image or core-image")
        packages, debian = [], set((self._d.getVar("FASTLANE_BASE") or "").split())
        debian |= {self._d.getVar("FASTLANE_KERNEL")}
        waiting = [(name, image.pn) for name in (image.d.getVar("PACKAGE_INSTALL") or "").split()]
        seen = set()
        while waiting:
            name, wanted_by = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            recipe, package = self._packages.get(name, (None, None))
            if recipe and not (recipe.skipped and name in self._debian):
                self.recipe(recipe.pn, wanted_by)
                if (recipe, package) not in packages:
                    packages.append((recipe, package))
                    waiting += [(other, package) for other in recipe.names("RDEPENDS", package)]
            elif name in self._debian:
                debian |= set(self._debian[name].split())
            else:
                raise BuildError(f"{wanted_by} needs the package '{name}', which is neither in a recipe nor in the "
                                 "fast lane's table of Debian packages: add FASTLANE_DEBIAN"
                                 f"[{name}] = \"…\" to conf/fastlane/conf/debian.conf")
        order = []
        for recipe, _ in packages:
            self._order(recipe, order, [])
        self._order(image, order, [])
        return Plan(image, order, packages, sorted(debian))

    def _order(self, recipe, order, path):
        if recipe in order:
            return
        if recipe in path:
            circle = " -> ".join(other.pn for other in [*path[path.index(recipe):], recipe])
            raise BuildError(f"recipes need each other in a circle: {circle}")
        provided = (self._d.getVar("ASSUME_PROVIDED") or "").split()
        for name in [*recipe.names("DEPENDS"), *recipe.task_dependencies()]:
            if name not in provided and name not in recipe.names("PROVIDES"):
                self._order(self.recipe(name, recipe.pn), order, [*path, recipe])
        order.append(recipe)

    def needs(self, recipe):
        """Return the recipes that ``recipe`` needs directly, for signatures."""
        provided = (self._d.getVar("ASSUME_PROVIDED") or "").split()
        names = [*recipe.names("DEPENDS"), *recipe.task_dependencies()]
        return [self.recipe(name, recipe.pn) for name in dict.fromkeys(names)
                if name not in provided and name not in recipe.names("PROVIDES")]


def signature(recipe, needed=(), extra=()):
    """Return the SHA-256 (hex) of all that decides what a recipe's tasks produce.

    That is BitBake's own base hash of each task (the text of the task and of every variable and
    function it uses), the checksums of the files that [file-checksums] names, the signatures
    ``needed`` and the strings ``extra``.
    """
    from bb.checksum import FileChecksumCache

    hashes = recipe.d.getVar("__siggen_basehashes", False) or {}
    parts = []
    for task in recipe.tasks():
        parts.append(f"{task} {hashes.get(task)}")
        files = recipe.d.getVarFlag(task, "file-checksums") or ""
        checksums = FileChecksumCache().get_checksums(files, recipe.pn, [".git"]) if files.strip() else []
        # The place of the checkout does not matter, the names and contents do.
        parts += [f"{Path(path).name} {checksum}" for path, checksum in checksums]
    return hashlib.sha256("\n".join([*parts, *needed, *extra]).encode()).hexdigest()
