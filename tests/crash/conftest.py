# SPDX-License-Identifier: MIT
"""Fixtures of the harness's own tests."""

import pytest

from crash import engines


@pytest.fixture(scope="session")
def stock_engine():
    """Debian's own dockerd, in a root that has QEMU's storage daemon too."""
    return engines.find("stock")
