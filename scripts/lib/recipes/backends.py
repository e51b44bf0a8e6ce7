# SPDX-License-Identifier: MIT
"""Which class of openembedded-core builds a source archive, by its pyproject.toml (PEP 517, PEP 518)."""

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from composeapps.errors import CorruptError, NotFoundError
from recipes.pyconf import recipe_name

# build-backend: (the class, what the class's DEPENDS bring).
CLASSES = {
    "setuptools.build_meta": ("python_setuptools_build_meta", {"setuptools", "wheel"}),
    "setuptools.build_meta:__legacy__": ("python_setuptools_build_meta", {"setuptools", "wheel"}),
    "hatchling.build": ("python_hatchling", {"hatchling"}),
    "flit_core.buildapi": ("python_flit_core", {"flit-core"}),
    "poetry.core.masonry.api": ("python_poetry_core", {"poetry-core"}),
    "pdm.backend": ("python_pdm", {"pdm-backend"}),
    "mesonpy": ("python_mesonpy", {"meson-python"}),
}
# What a source archive without a build-backend is built with, by PEP 517.
_DEFAULT = "setuptools.build_meta:__legacy__"
# Backends whose class is not all that a recipe needs.
_UNSUPPORTED = {"maturin": "its Rust crates must be listed in the recipe as well"}


def build_system(archive):
    """Return (class to inherit, sorted DEPENDS besides those of the class, whether a build tool is pinned).

    :param archive: a ``recipes.sdist.SourceArchive``
    :raises NotFoundError: openembedded-core has no class for its backend
    :raises CorruptError: pyproject.toml is not as PEP 518 says
    """
    table = archive.pyproject().get("build-system", {})
    backend = table.get("build-backend", _DEFAULT) if isinstance(table, dict) else None
    requires = table.get("requires", []) if isinstance(table, dict) else None
    if not isinstance(backend, str) or not isinstance(requires, list):
        raise CorruptError(f"archive {archive.filename}: pyproject.toml has no [build-system] as PEP 518 describes it")
    if backend in _UNSUPPORTED:
        raise NotFoundError(
            f"archive {archive.filename} is built with '{backend}', and {_UNSUPPORTED[backend]}: "
            "write its recipe by hand")
    if backend not in CLASSES:
        raise NotFoundError(
            f"archive {archive.filename} is built with '{backend}', for which openembedded-core has no class "
            f"(it has {', '.join(sorted(CLASSES))}): write its recipe by hand")
    name, brought = CLASSES[backend]
    depends, pinned = set(), False
    for text in requires:
        try:
            requirement = Requirement(text)
        except (InvalidRequirement, TypeError) as err:
            raise CorruptError(f"archive {archive.filename}: pyproject.toml requires {text!r}: {err}") from None
        pinned = pinned or any(item.operator in ("==", "===") for item in requirement.specifier)
        if canonicalize_name(requirement.name) not in brought:
            depends.add(recipe_name(requirement.name) + "-native")
    return name, tuple(sorted(depends)), pinned
