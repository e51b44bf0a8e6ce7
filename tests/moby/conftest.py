# SPDX-License-Identifier: MIT
"""What dockerd is compiled in, and Debian's source of it: made once, in the cache of build/."""

import pytest

from fastlane.progress import Progress
from moby import cache, root, source


@pytest.fixture(scope="session")
def compiler():
    """The root that holds the compiler."""
    return root.compiler_root()


@pytest.fixture(scope="session")
def prepared(compiler):
    """Debian's source of dockerd, without the layer's patches."""
    progress = Progress(quiet=True)
    with cache.lock(cache.place(), "source", progress):
        return source.prepared(compiler, progress)
