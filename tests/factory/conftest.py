# SPDX-License-Identifier: MIT
"""The demo's images, made of Debian packages once for all tests of the factory."""

import pytest

from factory import demoimages
from factory.debpackages import PackageSource
from factory.imagebuild import build_images


@pytest.fixture(scope="session")
def demo_build(tmp_path_factory):
    """A directory for products, with the demo's images in its cache."""
    build = tmp_path_factory.mktemp("build")
    source = PackageSource(build / "cache" / "apt" / demoimages.SUITE, demoimages.SUITE, demoimages.ARCHITECTURES)
    build_images(demoimages.IMAGES, source, build / "cache" / "images")
    return build


@pytest.fixture(scope="session")
def source(demo_build):
    """Where more packages come from."""
    return PackageSource(demo_build / "cache" / "apt" / demoimages.SUITE, demoimages.SUITE, demoimages.ARCHITECTURES)


@pytest.fixture(scope="session")
def layouts(demo_build, source):
    """{image name: its layout} of the demo's images."""
    return build_images(demoimages.IMAGES, source, demo_build / "cache" / "images")
