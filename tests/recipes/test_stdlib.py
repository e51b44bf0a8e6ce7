# SPDX-License-Identifier: MIT
"""Which parts of the split Python a source needs."""

import pytest

from composeapps.errors import CorruptError
from recipes.stdlib import packages_of


@pytest.mark.parametrize("source, packages", [
    ("import os, sys\nfrom collections import abc\n", set()),
    ("import json.decoder\n", {"json"}),
    ("import urllib.parse\nfrom urllib import error\n", set()),
    ("from urllib import request\n", {"netclient"}),
    ("import urllib.request as r\n", {"netclient"}),
    ("import http.server\n", {"netclient", "netserver"}),
    ("from concurrent import futures\n", {"asyncio"}),
    ("import importlib.metadata\n", {"email"}),
    ("def f():\n    class C:\n        import sqlite3\n", {"sqlite3"}),
    ("try:\n    import tomllib\nexcept ImportError:\n    import tomli\n", {"tomllib"}),
    ("from . import json\nfrom .logging import x\n", set()),
    ("import requests, tuf.json\n", set()),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ctypes\nelse:\n    import uuid\n", {"netclient"}),
    ("import typing\nif typing.TYPE_CHECKING:\n    import ctypes\n", set()),
    ("import sys\nif sys.version_info >= (3, 14):\n    import compression.zstd\n", {"compression"}),
    ("import timeit\n", {"misc"}),
])
def test_parts_that_a_source_imports(source, packages):
    assert packages_of({"a.py": source.encode()}) == packages


def test_parts_of_several_sources_are_joined():
    assert packages_of({"a.py": b"import json", "b.py": b"import ssl"}) == {"json", "io"}


def test_source_that_is_not_python():
    with pytest.raises(CorruptError, match=r"x/y\.py is not Python source"):
        packages_of({"x/y.py": b"print 'old'"})
