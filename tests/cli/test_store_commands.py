# SPDX-License-Identifier: MIT
"""show and check: what they leave out, and what they say."""

import hashlib
import json
import shutil

import pytest

from composeapps.cli.main import main
from composeapps.records.state import AppState, StateDirectory
from support import apps, stores
from support.images import make_image


@pytest.fixture
def place(tmp_path):
    """Give (a function that runs a command, the store, the app's reference, its Image)."""
    image = make_image({"a": "layer"})
    pinned = f"hub.demo.test/f/x@{image.digest}"
    compose = apps.compose_text({"web": pinned})
    uri = stores.write(tmp_path / "store", "hub.demo.test/f/shop", apps.make_app(compose, {}, [image]), {pinned: image},
                       compose=compose)
    options = ["--store", str(tmp_path / "store"), "--state-dir", str(tmp_path / "state"), "--compose-root",
               str(tmp_path / "compose"), "--docker-host", f"unix://{tmp_path}/none.sock"]
    return (lambda *argv: main([*options, *argv])), tmp_path / "store" / "blobs" / "sha256", uri, image


def test_the_manifest_is_shown_byte_by_byte(place, capfdbinary):
    run, blobs, uri, _image = place
    assert run("show", "--manifest", "shop") == 0
    shown = capfdbinary.readouterr().out
    assert f"sha256:{hashlib.sha256(shown).hexdigest()}" == uri.partition("@")[2]
    # What else is wrong with the app keeps nobody from a look at it.
    for path in blobs.iterdir():
        if path.name not in uri:
            path.unlink()
    assert run("show", "--manifest", uri) == 0 and capfdbinary.readouterr().out == shown
    assert run("show", "--manifest", "none") == 3
    with pytest.raises(SystemExit):
        run("show", "--manifest", "--compose", "shop")


def _spoil(place, how):
    _run, blobs, _uri, image = place
    path = blobs / image.document["layers"][0]["digest"][7:]
    data = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes({"flipped": data[:-1] + bytes([data[-1] ^ 1]), "short": data[:-1]}[how])


@pytest.mark.parametrize(("how", "quick", "whole"), [("flipped", 0, 4), ("short", 4, 4), ("missing", 3, 3)])
def test_quick_sees_what_is_missing_or_of_another_size(place, capsys, how, quick, whole):
    run = place[0]
    assert run("check", "--quick") == run("check") == 0
    _spoil(place, how)
    capsys.readouterr()
    assert run("check", "--quick", "--json") == quick
    assert json.loads(capsys.readouterr().out)[0]["blobs"] == 7
    assert run("check") == whole


@pytest.mark.parametrize("lost", ["", "apps", "blobs", "apps/shop/{hex}/uri"])
def test_what_is_installed_and_not_in_the_store_at_all_is_no_peace(place, tmp_path, capsys, lost):
    run, _blobs, uri, _image = place
    StateDirectory(tmp_path / "state").put("shop", AppState(uri, {}, False, ""))
    gone = tmp_path / "store" / lost.format(hex=uri[-64:])
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert run("check", "--quick") in (3, 4) and run("check") in (3, 4)
    output = capsys.readouterr().out
    assert "shop: FAILED" in output and f"'composeapps pull {uri}'" in output


def test_quick_reads_no_stray_blobs(place):
    run, blobs = place[:2]
    (blobs / ("b" * 64)).write_bytes(b"not that")
    assert (run("check", "--quick"), run("check")) == (0, 4)
