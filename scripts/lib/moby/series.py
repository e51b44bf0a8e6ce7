# SPDX-License-Identifier: MIT
"""The layer's patches for moby: which there are, in which order, in which of their two forms."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from fastlane.errors import BuildError

RECIPE_DIRECTORY = hostsetup.LAYER / "dynamic-layers/virtualization-layer/recipes-containers/docker"
LIST = RECIPE_DIRECTORY / "docker-moby-patches.inc"
# The form for moby up to 28, whose code has not moved to daemon/internal yet.
DEBIAN_FORM = "moby-26"
YOCTO_FORM = "moby-29"

_LIST_LINE = re.compile(r'^COMPOSEAPPS_MOBY_PATCHES\s*\??=\s*"([^"]*)"', re.MULTILINE)
_TOUCHED = re.compile(r"^(?:---|\+\+\+) [ab]/(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Series:
    """Patches in the order in which they are applied.

    Arguments:
        patches: paths of the files.
    """

    patches: tuple = ()

    @property
    def sha256(self):
        """SHA-256 (hex) of names and contents, in order."""
        digest = hashlib.sha256()
        for path in self.patches:
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    @property
    def names(self):
        return [path.name for path in self.patches]

    def packages(self):
        """Return the sorted Go packages that the patches touch, as paths from the top of the source: "./layer"."""
        found = set()
        for path in self.patches:
            files = _TOUCHED.findall(path.read_text(errors="replace"))
            found |= {f"./{Path(name).parent}" for name in files if name.endswith(".go")}
        return sorted(found)


def names(listing=LIST):
    """Return the file names of the series, in order.

    Raises BuildError when the layer's list is not there or has no COMPOSEAPPS_MOBY_PATCHES.
    """
    try:
        found = _LIST_LINE.search(Path(listing).read_text().replace("\\\n", " "))
    except OSError as err:
        raise BuildError(f"{listing}: {err.strerror}: it lists the patches for moby") from None
    if not found:
        raise BuildError(f'{listing} has no COMPOSEAPPS_MOBY_PATCHES = "…": it lists the patches for moby')
    return found[1].split()


def of_the_layer(form=DEBIAN_FORM):
    """Return the layer's Series in one form. Raises BuildError when a listed patch is not there."""
    directory = RECIPE_DIRECTORY / form
    return of_files([directory / name for name in names()])


def of_files(paths):
    """Return the Series of the files ``paths``. Raises BuildError when one of them is not there."""
    for path in map(Path, paths):
        if not path.is_file():
            raise BuildError(f"{path} is not there: {LIST.name} lists it, or it was named")
    return Series(tuple(map(Path, paths)))
