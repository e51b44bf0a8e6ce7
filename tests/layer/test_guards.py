# SPDX-License-Identifier: MIT
"""Nothing that the layer says about recipes of other layers counts without DISTRO_FEATURES composeapps."""

import re
from pathlib import Path

import pytest

LAYER = Path(__file__).resolve().parents[2] / "meta-composeapps"
OWN = {path.name.partition("_")[0].removesuffix(".bb") for path in LAYER.rglob("*.bb")}
APPENDS = sorted(LAYER.rglob("*.bbappend"))
FOREIGN = [path for path in APPENDS if path.name.partition("_")[0] not in OWN]
GUARD = re.compile(r"require \$\{@bb\.utils\.contains\('DISTRO_FEATURES', 'composeapps', '([\w-]+\.inc)', '', d\)\}")


def test_there_are_appends_to_check():
    assert {path.name for path in FOREIGN} >= {"docker-moby_%.bbappend"}


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
def test_an_append_is_one_guarded_line(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == 1
    guard = GUARD.fullmatch(lines[0])
    assert guard and path.with_name(guard[1]).is_file()


def test_layer_conf_sets_nothing_that_recipes_read():
    allowed = re.compile(r"(BBPATH|BBFILES|BBFILES_DYNAMIC|BBFILE_\w+|LAYER\w+)( |\[|$)|addpylib |require |#|\s|$|\"")
    odd = [line for line in (LAYER / "conf/layer.conf").read_text().splitlines() if not allowed.match(line)]
    assert odd == []
