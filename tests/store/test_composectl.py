# SPDX-License-Identifier: MIT
"""Beside the real composectl, in many shapes of apps, both ways; skipped where it is not on PATH."""

import itertools
import json
from types import SimpleNamespace

import pytest

from composeapps.cli.main import main
from support import composectl, shapes, stores

pytestmark = pytest.mark.skipif(composectl.PROGRAM is None, reason="composectl is not on PATH")
_count = itertools.count(1)


@pytest.fixture
def place(memory, registry, monkeypatch, capsys):
    """A device that both programs work on; ``publish(shape)`` gives (pinned reference, Made)."""
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    theirs = composectl.Composectl(memory / "device", registry)
    options = ["--store", str(theirs.store), "--compose-root", str(theirs.projects), "--state-dir",
               str(memory / "state"), "--docker-host", f"unix://{memory}/none.sock"]

    def publish(shape, version="1", factory=None):
        repository = f"{factory or f'peer{next(_count)}'}/shop"
        made = shapes.make(shape, registry.host, repository, version)
        return shapes.push(registry, made, repository, version), made

    def ours(*argv):
        capsys.readouterr()
        status = main([*options, *argv])
        return status, capsys.readouterr().out

    return SimpleNamespace(theirs=theirs, ours=ours, publish=publish, memory=memory)


def _tree(root):
    """Return {path: (mode, content)} of a store; a list of manifests without which of its services an image names."""
    found = {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes())
             for path in sorted(root.rglob("*")) if path.is_file()}
    for path, (mode, content) in found.items():
        if path.endswith("index.json") and b"service.name" in content:
            value = json.loads(content)
            value["manifests"][0]["annotations"] = sorted(value["manifests"][0]["annotations"])
            found[path] = mode, json.dumps(value).encode()
    return found


@pytest.mark.parametrize("shape", shapes.ALL)
def test_what_they_pull_is_what_the_tests_make_of_it_and_whole_here(place, shape):
    uri, made = place.publish(shape)
    place.theirs.do("pull", uri)
    root = place.memory / "made"
    stores.write(root, uri.partition("@")[0], made.app, made.images, compose=made.compose)
    assert _tree(place.theirs.store) == _tree(root)
    status, text = place.ours("check", "--json")
    assert (status, json.loads(text)[0]["problems"]) == (0, [])
    status, text = place.ours("show", "shop", "--json")
    assert status == 0 and json.loads(text)["uri"] == uri
    before = stores.files(place.theirs.store)
    assert place.ours("pull", uri)[0] == 0
    after = stores.files(place.theirs.store)
    assert {path: after[path] for path in before} == before
    assert uri in place.theirs.do("check", "--local", uri)


@pytest.mark.parametrize("shape", shapes.ALL)
def test_what_is_pulled_here_is_whole_there(place, shape):
    uri, _made = place.publish(shape)
    assert place.ours("pull", uri)[0] == 0
    assert uri in place.theirs.do("ls")
    found = json.loads(place.theirs.do("check", "--local", "--format", "json", uri))
    assert not found["fetch_check"]["missing_blobs"]
    assert place.theirs.do("prune") == ""
    place.theirs.do("pull", uri)
    assert place.ours("check")[0] == 0


@pytest.mark.parametrize("kind", shapes.IMAGES)
def test_what_their_update_fetches_is_whole_here_and_what_the_tests_make_of_it(place, kind):
    uri, made = place.publish(f"{kind}/shared")
    place.theirs.do("update", "init", uri)
    place.theirs.do("update", "fetch")
    (place.theirs.store / "updates.db").unlink()
    root = place.memory / "made"
    stores.write(root, uri.partition("@")[0], made.app, made.images, stores.UPDATE, compose=made.compose)
    assert _tree(place.theirs.store) == _tree(root)
    assert place.ours("check")[0] == 0
    assert place.ours("pull", uri)[0] == 0 and place.ours("check")[0] == 0
    assert uri in place.theirs.do("check", "--local", uri)


@pytest.mark.parametrize("kind", ["index", "manifest"])
def test_each_removes_what_the_other_has_pulled(place, kind):
    factory = f"peer{next(_count)}"
    (old, _), (new, _) = (place.publish(f"{kind}/shared", version, factory) for version in "12")
    place.theirs.do("pull", old)
    place.theirs.do("pull", new)
    # Without dockerd its images are left, and that is told.
    assert place.ours("rm", old)[0] == 4
    assert place.theirs.do("ls").split()[-1] == new
    place.theirs.do("check", "--local", new)
    assert place.ours("pull", old)[0] == 0
    place.theirs.do("rm", "--quiet", new)
    status, text = place.ours("ls", "--json")
    assert [each["uri"] for each in json.loads(text)] == [old] and status == 0
    assert place.ours("check")[0] == 0
