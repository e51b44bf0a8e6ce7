# SPDX-License-Identifier: MIT
"""The locale that BitBake insists on comes with what asks for it, also on a machine that never had it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hostsetup

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
# /usr/lib/locale without a locale for the namespace's processes; what is made there goes when they do.
_EMPTY = 'mount -t tmpfs tmpfs /usr/lib/locale && exec "$@"'
_MAKE = ("import hostsetup, sys; print(hostsetup.has_locale(hostsetup.LOCALE)); "
         "hostsetup.install_locale(sys.argv[1:]); print(hostsetup.has_locale(hostsetup.LOCALE))")


@pytest.mark.root
@pytest.mark.parametrize(("features", "after"), [(["tests", "locale"], "True"), (["image", "tests"], "False")])
def test_a_machine_without_the_locale_gets_it_where_it_is_asked_for(features, after):
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _EMPTY, "sh", sys.executable, "-c", _MAKE, *features],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SCRIPTS / "lib")}, capture_output=True, text=True,
        check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", after]


def test_a_locale_that_the_machine_cannot_have_is_not_there():
    assert hostsetup.has_locale("C") and not hostsetup.has_locale("xx_YY.UTF-8")


@pytest.mark.parametrize("script", ["test", "check-layer"])
def test_what_runs_bitbake_asks_for_the_locale(script):
    assert '"locale"' in (SCRIPTS / script).read_text()
