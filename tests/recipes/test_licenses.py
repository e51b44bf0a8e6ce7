# SPDX-License-Identifier: MIT
"""Licence expressions on their way from image labels into LICENSE."""

import pytest

from recipes.licenses import LicenseError, combine, to_yocto


@pytest.mark.parametrize("spdx, yocto", [
    ("MIT", "MIT"),
    ("MIT AND BSD-3-Clause", "MIT & BSD-3-Clause"),
    ("MIT OR Apache-2.0 AND Zlib", "MIT | (Apache-2.0 & Zlib)"),
    ("(MIT OR Apache-2.0) AND Zlib", "(MIT | Apache-2.0) & Zlib"),
    ("((MIT))", "MIT"),
    ("MIT & (GPL-2.0-only | Zlib)", "MIT & (GPL-2.0-only | Zlib)"),
    ("GPL-3.0-or-later WITH GCC-exception-3.1", "GPL-3.0-or-later-with-GCC-exception-3.1"),
    ("mit and zlib", "mit & zlib"),
    ("LicenseRef-Acme-1.0+", "LicenseRef-Acme-1.0+"),
    ("CLOSED", "CLOSED"),
])
def test_spdx_becomes_yocto(spdx, yocto):
    assert to_yocto(spdx) == yocto


@pytest.mark.parametrize("text", [
    "", "  ", "AND MIT", "MIT AND", "MIT BSD-3-Clause", "(MIT", "MIT)", "MIT WITH", "MIT, Zlib", 'MIT"', "MIT\\",
    "a ${b}", "WITH MIT", "MIT AND OR Zlib", "()",
])
def test_other_text_is_refused(text):
    with pytest.raises(LicenseError):
        to_yocto(text)


def test_combining_depends_on_no_order_and_repeats_nothing():
    texts = ["MIT AND Zlib", "MIT", "Apache-2.0 OR MIT", "Zlib"]
    assert combine(texts) == combine(texts[::-1]) == "(Apache-2.0 | MIT) & MIT & Zlib"
