# SPDX-License-Identifier: MIT
"""The combinations of kas files that are checked, and what each of them shows."""

from dataclasses import dataclass
from difflib import get_close_matches

from layercheck.errors import CheckError


@dataclass(frozen=True)
class Combination:
    """Some kas files that make one build.

    Arguments:
        name: as --combination takes it.
        parts: names of the files in kas/, without ".yml", in the order in which kas joins them.
        proves: what is known once the combination has passed.
    """

    name: str
    parts: tuple[str, ...]
    proves: str

    @property
    def files(self):
        """The kas files, relative to the repository."""
        return tuple(f"kas/{part}.yml" for part in self.parts)


COMBINATIONS = (
    Combination("qemux86-64", ("base", "qemux86-64"), "the layer on openembedded-core's emulated PC"),
    Combination("qemuarm64", ("base", "qemuarm64"), "nothing in the layer is tied to one architecture"),
    Combination("raspberrypi4-64", ("base", "raspberrypi4-64"), "a board whose layer brings its own boot files"),
    Combination("intel-corei7-64", ("base", "intel-corei7-64"), "a PC that boots by EFI"),
    Combination("read-only-root", ("base", "qemux86-64", "read-only-root"), "a root that is never written to"),
    Combination("testimage", ("base", "qemux86-64", "testimage"), "the image with the layer's run-time tests"),
    Combination("preload", ("base", "qemux86-64", "preload"), "the image carries the demo apps by generated recipes"),
    Combination("mirror", ("base", "qemux86-64", "mirror-only", "sstate"), "sources from one mirror, state kept"),
    Combination("lmp", ("base", "intel-corei7-64", "lmp"), "the Linux microPlatform as the distribution"),
    Combination("lmp-qemuarm64", ("base", "qemuarm64", "lmp"), "the Linux microPlatform on another architecture"),
)


def select(names):
    """Return the combinations called ``names``, in the order of the list; all of them when there are no names.

    Raises CheckError for a name that is not in the list.
    """
    known = {combination.name: combination for combination in COMBINATIONS}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise CheckError(f"no combination is called '{name}': {hint}")
    return [combination for combination in COMBINATIONS if not names or combination.name in names]
