# SPDX-License-Identifier: MIT
"""Certificates as openssl makes them, read."""

import subprocess

import pytest

from composeapps.disk import x509
from composeapps.errors import UsageError


def certificate(subject, *more):
    return subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                           "-subj", subject, "-keyout", "/dev/null", *more], check=True, capture_output=True,
                          text=True).stdout


@pytest.mark.parametrize("subject, names", [
    ("/CN=shop-1", ("shop-1",)), ("/C=DE/OU=shop/CN=shop-1/O=x", ("shop-1",)), ("/CN=a+OU=b/CN=c", ("a", "c")),
    ("/O=nobody", ()), ("/CN=" + "x" * 64, ("x" * 64,)),
])
def test_whose_it_is(subject, names):
    words = ["-utf8", "-multivalue-rdn"] if "+" in subject else []
    assert x509.read("text before\n" + certificate(subject, *words)).names == names


@pytest.mark.parametrize("days", [1, 40_000])
def test_how_long_it_is_good(days):
    found = x509.read(certificate("/CN=shop-1", "-days", str(days)))
    assert (found.not_after - found.not_before).days == days


def test_what_is_none():
    pem = certificate("/CN=shop-1")
    lines = pem.splitlines()
    for text in ("", "text", pem[:200], "\n".join([lines[0], *lines[2:]]), "\n".join([lines[0], "AAAA", lines[-1]]),
                 "\n".join([lines[0], lines[-1]]), "\n".join([lines[0], "MIL/////", lines[-1]])):
        with pytest.raises(UsageError, match="cannot be read"):
            x509.read(text)
