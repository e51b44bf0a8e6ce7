# SPDX-License-Identifier: MIT
"""systemd units of a package: found, enabled and masked in a root that is not running.

Does what ``systemctl --root=`` does for the [Install] section (systemd.unit(5)); the build
machine need not have systemctl.
"""

import os
from pathlib import Path

from fastlane import trees
from fastlane.errors import BuildError

UNIT_DIRECTORIES = ("etc/systemd/system", "usr/lib/systemd/system")
ENABLED = "etc/systemd/system"
_LINKS = {"wantedby": "wants", "requiredby": "requires", "upheldby": "upholds"}


def units_of(recipe, package):
    """Return the units that SYSTEMD_SERVICE gives to a package."""
    if package not in (recipe.d.getVar("SYSTEMD_PACKAGES") or "").split():
        return []
    return (recipe.d.getVar(f"SYSTEMD_SERVICE:{package}") or "").split()


def unit_files(recipe, package):
    """Return the paths that a package's units may have; for FILES."""
    names = {name for unit in units_of(recipe, package) for name in (unit, _template(unit))}
    return [f"/{directory}/{name}" for name in sorted(names) for directory in UNIT_DIRECTORIES]


def apply(recipe, package, root):
    """Enable, disable or mask a package's units in ``root`` as SYSTEMD_AUTO_ENABLE says.

    Raises BuildError for a unit that is not there and for another word.
    """
    action = recipe.d.getVar(f"SYSTEMD_AUTO_ENABLE:{package}") or recipe.d.getVar("SYSTEMD_AUTO_ENABLE")
    for unit in units_of(recipe, package):
        if not _find(root, unit):
            raise BuildError(f"{recipe.pn}: SYSTEMD_SERVICE:{package} names {unit}, which do_install does not install")
        if action == "enable":
            enable(root, unit)
        elif action == "mask":
            mask(root, unit)
        elif action not in ("disable", "preset"):
            raise BuildError(f"{recipe.pn}: SYSTEMD_AUTO_ENABLE '{action}' is none of enable, disable, mask, preset")


def enable(root, unit):
    """Make the links that the unit's [Install] section asks for. Raises BuildError for a unit that is not there."""
    file = _find(root, unit)
    if not file:
        raise BuildError(f"unit {unit} cannot be enabled: the image has no such unit")
    install = _install_section(file)
    target = "/" + os.path.relpath(file, root)
    for key, suffix in _LINKS.items():
        for wanting in install.get(key, "").split():
            _link(root, f"{ENABLED}/{wanting}.{suffix}/{unit}", target)
    for alias in install.get("alias", "").split():
        _link(root, f"{ENABLED}/{alias}", target)
    for also in install.get("also", "").split():
        if also != unit:
            enable(root, also)


def mask(root, unit):
    """Make a unit unstartable; one that does not exist may be masked."""
    _link(root, f"{ENABLED}/{unit}", "/dev/null")


def _template(unit):
    name, at, rest = unit.partition("@")
    return f"{name}@.{rest.rpartition('.')[2]}" if at else unit


def _find(root, unit):
    for directory in UNIT_DIRECTORIES:
        for name in (unit, _template(unit)):
            path = Path(root, directory, name)
            if path.is_file():
                return path
    return None


def _install_section(file):
    """Return the [Install] section of a unit with lower-case keys; keys that are given twice are joined."""
    found, section = {}, ""
    for line in file.read_text(errors="replace").replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Install]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            key = key.strip().lower()
            found[key] = f"{found.get(key, '')} {value.strip()}".strip()
    return found


def _link(root, path, target):
    full = Path(root, path)
    full.parent.mkdir(parents=True, exist_ok=True)
    if full.is_symlink() or full.exists():
        trees.remove_tree(full)
    full.symlink_to(target)
