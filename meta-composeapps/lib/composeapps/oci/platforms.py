# SPDX-License-Identifier: MIT
"""Operating systems and architectures, and which images a machine runs."""

import os
from typing import NamedTuple

from composeapps.errors import UsageError


class Platform(NamedTuple):
    """An operating system and architecture, as ``linux/arm/v7``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text):
        """Parse ``os/architecture[/variant]``; raises UsageError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise UsageError(f"platform '{text}' is not of the form OS/ARCHITECTURE[/VARIANT], linux/arm64 for example")
        return cls(*parts)

    def matches(self, other):
        """Tell whether an image for ``other`` is meant for this platform.

        arm64 has v8 as its only variant, so naming it or not is the same; any other variant
        that both name must agree.
        """
        mine, theirs = (p.variant if (p.architecture, p.variant) != ("arm64", "v8") else "" for p in (self, other))
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (not mine or not theirs or mine == theirs)

    def __str__(self):
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform():
    """Return the Platform of the machine this runs on."""
    machine = os.uname().machine
    architecture, variant = {
        "x86_64": ("amd64", ""), "aarch64": ("arm64", ""), "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"),
        "i686": ("386", ""), "riscv64": ("riscv64", ""), "ppc64le": ("ppc64le", ""),
    }.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)
