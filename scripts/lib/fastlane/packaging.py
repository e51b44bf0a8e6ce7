# SPDX-License-Identifier: MIT
"""Which files of a recipe belong to which of its packages, as PACKAGES and FILES say."""

import glob
import os

from fastlane import services
from fastlane.errors import BuildError


def split(recipe):
    """Return ``{package: set of paths}`` for what do_install left in ${D}; paths are relative to it.

    As in openembedded-core the packages take their files in the order of PACKAGES, and a
    directory in FILES stands for all that is in it. Raises BuildError for a file in no package
    and for a package with an install script, which only a package manager would run.
    """
    root = recipe.d.getVar("D")
    left = _all_paths(root)
    packages = {}
    for package in recipe.packages:
        for script in ("pkg_postinst", "pkg_preinst", "pkg_postinst_ontarget"):
            if recipe.d.getVar(f"{script}:{package}"):
                raise BuildError(f"{recipe.pn}: package {package} has a {script}, which the fast lane does not run: "
                                 "build it with bitbake, or do that work in do_install")
        taken = set()
        patterns = (recipe.d.getVar(f"FILES:{package}") or "").split()
        patterns += services.unit_files(recipe, package)
        for pattern in patterns:
            taken |= _match(root, pattern, left)
        packages[package] = taken
        left -= taken
    stray = sorted(path for path in left if not os.path.isdir(os.path.join(root, path)) or
                   os.path.islink(os.path.join(root, path)))
    if stray:
        raise BuildError(f"{recipe.pn}: /{stray[0]} is in no package: add it to FILES:{recipe.pn}")
    return packages


def _all_paths(root):
    return {
        os.path.relpath(os.path.join(directory, name), root)
        for directory, subdirectories, names in os.walk(root) for name in subdirectories + names
    }


def _match(root, pattern, left):
    """Return the paths of ``left`` that a pattern of FILES covers."""
    found = set()
    base = glob.escape(root)
    for match in glob.glob(f"{base}/{pattern.lstrip('/')}", include_hidden=True):
        path = os.path.relpath(match, root)
        if path in left:
            found.add(path)
        if os.path.isdir(match) and not os.path.islink(match):
            found |= {other for other in left if other.startswith(path + os.sep)}
    return found
