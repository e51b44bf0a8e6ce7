# SPDX-License-Identifier: MIT
"""Operating systems and architectures, and which images a machine runs.

The rules are those by which containerd and dockerd choose a manifest of an index
(``platforms.Only``): names are brought to one form, and a machine runs what its own processor
is meant for, then what the older ones of its family are.
"""

import functools
import os
import re
import sys
from _thread import allocate_lock  # threading takes time to load
from typing import NamedTuple

from composeapps.errors import CorruptError, UsageError
from composeapps.patterns import Pattern

_PART = Pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What is written for an architecture -> (its name, the variant that goes with that or None for the one written).
_ARCHITECTURES = {
    "i386": ("386", ""), "x86_64": ("amd64", None), "x86-64": ("amd64", None), "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
}
# (architecture, variant) -> the variant's one name; "" where it goes without saying.
_VARIANTS = {
    ("amd64", "v1"): "", ("arm64", "8"): "", ("arm64", "v8"): "", ("arm64", "v8.0"): "", ("arm64", "9"): "v9",
    ("arm64", "9.0"): "v9", ("arm64", "v9.0"): "v9", ("arm", ""): "v7", ("arm", "5"): "v5", ("arm", "6"): "v6",
    ("arm", "7"): "v7", ("arm", "8"): "v8",
}
# TARGET_ARCH -> the architecture, as Go has it (oe.go.map_arch).
_TARGETS = {
    "aarch64": "arm64", "i486": "386", "i586": "386", "i686": "386", "loongarch64": "loong64", "mips64el": "mips64le",
    "powerpc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x", "x86_64": "amd64",
}
# "armv5te", "armv7ve" and the like of TUNE_FEATURES.
_ARM_TUNE = re.compile(r"armv(\d)")
# The minor versions of arm64 that there are, and which of v8 has what v9.0 has.
_ARM64_MINORS = {8: 9, 9: 7}
_V9_IS_V8 = 5
# The processor's flags, as Linux names them, that each level of amd64 has in addition.
_AMD64_LEVELS = (
    ("v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)


class Platform(NamedTuple):
    """An operating system and architecture, as ``linux/arm/v7``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text):
        """Parse ``os/architecture[/variant]``; raises UsageError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(map(_PART.fullmatch, parts)):
            raise UsageError(f"platform {text!a} is not of the form OS/ARCHITECTURE[/VARIANT], linux/arm64 for example")
        return cls(*parts)

    @classmethod
    def load(cls, value, what):
        """Read a platform from the parsed JSON of a descriptor or a configuration; raises CorruptError naming ``what``.

        What is left out is an empty text.
        """
        parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(part, str) and (not part or _PART.fullmatch(part)) for part in parts):
            raise CorruptError(f"{what} names a platform in words that are none: {ascii(parts)[:200]}")
        return cls(*parts)

    @property
    def normal(self):
        """This platform by the names that containerd compares: ``linux/arm64/v8`` is ``linux/arm64``."""
        system = self.os.lower() or "linux"
        name, variant = self.architecture.lower(), self.variant.lower()
        name, given = _ARCHITECTURES.get(name, (name, None))
        variant = variant if given is None else given
        return Platform("darwin" if system == "macos" else system, name, _VARIANTS.get((name, variant), variant))

    def choices(self):
        """Return the Platforms, by their normal names, whose images a machine of this one runs, the best first."""
        own = self.normal
        found = [own]
        if own.architecture == "amd64":
            found += [own._replace(variant=f"v{level}").normal for level in range(_number(own.variant, 1) - 1, 0, -1)]
            found.append(own._replace(architecture="386", variant=""))
        elif own.architecture == "arm64":
            found += [own._replace(variant=variant).normal for variant in _older_arm64(own.variant)]
            found += _arm(own._replace(architecture="arm", variant="v8"))
        elif own.architecture == "arm":
            found += _arm(own)[1:]
        return tuple(dict.fromkeys(found))

    def rank(self, other):
        """Return how well an image for ``other`` suits a machine of this platform, 0 for best; None when not at all.

        An image that leaves open for which processor of the family it is comes last: it may run.
        """
        return _rank(self._ranks(), other)

    def _ranks(self):
        """Return {a Platform of ``choices``: its place}, in their order."""
        return {choice: place for place, choice in enumerate(self.choices())}

    def runs(self, other):
        """Tell whether a machine of this platform runs an image for ``other``."""
        return self.rank(other) is not None

    def best(self, items, platform_of):
        """Return those of ``items`` that a machine of this platform runs, the best first, equals in their order.

        Arguments:
            items: what there is to choose from.
            platform_of: called with an item, returns its Platform.
        """
        ranks = self._ranks()
        ranked = [(rank, item) for item in items if (rank := _rank(ranks, platform_of(item))) is not None]
        return [item for _rank, item in sorted(ranked, key=lambda pair: pair[0])]

    def __str__(self):
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Offer:
    """What there is for which platform, to be asked for many machines: each question takes the same time.

    Arguments:
        items: what there is to choose from.
        platform_of: called with an item, returns its Platform.
    """

    def __init__(self, items, platform_of):
        self._exact, self._open = {}, {}
        for item in items:
            platform = platform_of(item)
            normal = platform.normal
            self._exact.setdefault(normal, item)
            if not platform.variant:
                self._open.setdefault((normal.os, normal.architecture), item)

    def best(self, platform):
        """Return the first item of what ``platform.best`` returns, None when it returns none."""
        choices = platform.choices()
        found = next((choice for choice in choices if choice in self._exact), None)
        if found is not None:
            return self._exact[found]
        return self._open.get((choices[0].os, choices[0].architecture))


def _rank(ranks, other):
    """Return Platform.rank's answer for ``other``; ``ranks`` are the machine's."""
    normal = other.normal
    if normal in ranks:
        return ranks[normal]
    own = next(iter(ranks))
    same = (own.os, own.architecture) == (normal.os, normal.architecture)
    return len(ranks) if same and not other.variant else None


def _number(variant, default):
    digits = variant[1:] if variant[:1] == "v" else ""
    return int(digits) if digits.isdecimal() and len(digits) < 3 else default


def _arm(platform):
    """Return a 32-bit Arm platform and the older ones down to v5."""
    return [platform, *(platform._replace(variant=f"v{level}")
                        for level in range(_number(platform.variant, 0) - 1, 4, -1))]


def _older_arm64(variant):
    """Yield the variants of arm64 below one, newest first: v9.1 has what v9.0 and v8.6 have."""
    found = re.fullmatch(r"v([89])(?:\.(\d))?", variant or "v8")
    if not found:
        return
    major, minor = int(found[1]), int(found[2] or 0)
    if minor > _ARM64_MINORS[major]:
        return
    while True:
        yield f"v{major}.{minor}" if minor else f"v{major}"
        if minor:
            minor -= 1
        elif major == 9:
            major, minor = 8, _V9_IS_V8 + int(found[2] or 0)
            minor = min(minor, _ARM64_MINORS[8])
        else:
            return


def of_target(arch, features=""):
    """Return the name of the platform whose images run on what Yocto builds for, "" for none that is known.

    Arguments:
        arch: TARGET_ARCH.
        features: TUNE_FEATURES, by which a 32-bit Arm has an architecture; without any it is taken for v7.
    """
    if arch == "arm":
        level = max((found[1] for found in map(_ARM_TUNE.match, features.split()) if found), default="7")
        # Of 64-bit processors the 32-bit part runs what v7 runs; of v4 there are no images.
        return {"5": "linux/arm/v5", "6": "linux/arm/v6"}.get(level, "linux/arm/v7" if level in "789" else "")
    return f"linux/{_TARGETS[arch]}" if arch in _TARGETS else ""


def host_platform():
    """Return the Platform of the machine this runs on, as dockerd sees it.

    A 32-bit userland on a 64-bit kernel runs 32-bit images. For amd64 the level that the processor has counts.
    """
    machine, narrow = os.uname().machine, sys.maxsize < 2**32
    if machine in ("x86_64", "amd64"):
        return Platform("linux", "386") if narrow else Platform("linux", "amd64", _amd64_level())
    if machine == "aarch64":
        return Platform("linux", "arm", "v8") if narrow else Platform("linux", "arm64")
    arm = re.match(r"armv([3-8])", machine)
    if arm:
        return Platform("linux", "arm", f"v{arm[1]}")
    if re.fullmatch("i[3-6]86", machine):
        return Platform("linux", "386")
    if machine.startswith("mips"):
        return Platform("linux", ("mips" if narrow else "mips64") + ("le" if sys.byteorder == "little" else ""))
    return Platform("linux", {"loongarch64": "loong64"}.get(machine, machine))


_asking = allocate_lock()


def _amd64_level():
    """Return the level of this machine's processor, "" for the first; threads that ask at once have it read once."""
    with _asking:
        return _read_amd64_level()


@functools.cache
def _read_amd64_level():
    try:
        with open("/proc/cpuinfo", "rb") as stream:
            # The first processor's part; machines have hundreds.
            text = stream.read(64 * 1024).decode(errors="replace")
    except OSError:
        return ""
    found = re.search(r"(?m)^flags\s*:(.*)$", text)
    flags, level = set(found[1].split() if found else ()), ""
    for name, wanted in _AMD64_LEVELS:
        if not wanted <= flags:
            break
        level = name
    return level
