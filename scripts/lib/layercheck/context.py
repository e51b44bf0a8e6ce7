# SPDX-License-Identifier: MIT
"""What every check gets to know."""

from dataclasses import dataclass
from pathlib import Path

from layercheck.bitbakelog import Ownership
from layercheck.kasrun import Kas
from layercheck.progress import Progress
from layercheck.reach import Prober


@dataclass
class Context:
    """What every check gets to know.

    Arguments:
        top: the repository.
        directory: for all that the checks write: logs, build directories, the record.
        build: the directory for products of the other commands (build/).
        kas: how kas is run.
        prober: how repositories are looked for.
        ownership: which messages are about our layer.
        progress: where to say what is going on.
    """

    top: Path
    directory: Path
    build: Path
    kas: Kas
    prober: Prober
    ownership: Ownership
    progress: Progress

    @property
    def layer(self):
        """The directory of the layer."""
        return self.top / "meta-composeapps"
