# SPDX-License-Identifier: MIT
"""kas's checkout through check-layer: BitBake's cache stays good as long as nothing changed."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from layercheck.combinations import select
from layercheck.kasrun import Kas
from layercheck.reach import Prober, mirrors_in, repositories

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def kas_with(upstream, tmp_path, monkeypatch):
    """Make a Kas whose layers come from ``upstream``, with the given files at the end."""
    monkeypatch.delenv("GITCONFIG_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(*extra):
        kas = opened.enter_context(Kas(TOP, tmp_path / "products", tmp_path / "layers", extra))
        kas.use_mirrors(mirrors_in(upstream.directory, [f"https://git.openembedded.org/{name}" for name in (
            "bitbake", "openembedded-core", "meta-openembedded")] + [
            "https://git.yoctoproject.org/meta-virtualization"]))
        return kas

    with ExitStack() as opened:
        yield make


def test_configuration_that_did_not_change_keeps_its_time(kas_with, pins, tmp_path):
    combination = select(["qemux86-64"])[0]
    kas_with(pins()).checkout(combination, tmp_path / "log")
    conf = tmp_path / "products" / "build" / "qemux86-64" / "conf"
    local = (conf / "local.conf").read_text()
    # Nothing is downloaded, and the layer is the one of the work tree.
    assert 'BB_NO_NETWORK = "1"' in local and "meta-composeapps" in (conf / "bblayers.conf").read_text()
    for path in conf.iterdir():
        os.utime(path, (1000, 1000))
    kas_with(pins()).checkout(combination, tmp_path / "log")
    assert {path.stat().st_mtime for path in conf.iterdir() if path.suffix == ".conf"} == {1000}

    more = tmp_path / "more.yml"
    more.write_text('{"header": {"version": 20}, "local_conf_header": {"more": "A = \\"b\\""}}')
    kas_with(pins(), more).checkout(combination, tmp_path / "log")
    assert 'A = "b"' in (conf / "local.conf").read_text()
    assert (conf / "local.conf").stat().st_mtime > 1000
    assert (conf / "bblayers.conf").stat().st_mtime == 1000


def test_a_command_runs_in_the_build_directory_and_not_as_root(kas_with, pins, tmp_path):
    combination = select(["qemux86-64"])[0]
    kas = kas_with(pins())
    kas.checkout(combination, tmp_path / "log")
    lines = []
    assert kas.shell(combination, "echo user=$(id -u); echo place=$PWD", tmp_path / "log", on_line=lines.append) == 0
    # kas and bash have things of their own to say in between.
    said = dict(line.split("=", 1) for line in lines if line.startswith(("user=", "place=")))
    assert int(said["user"]) != 0
    assert said["place"] == str(tmp_path / "products" / "build" / "qemux86-64")


def test_reference_repositories_stand_in_for_servers_that_are_gone(upstream, pins, tmp_path, monkeypatch):
    references = tmp_path / "references"
    references.mkdir()
    for host, names in (("openembedded", ("bitbake", "openembedded-core", "meta-openembedded")),
                        ("yoctoproject", ("meta-virtualization",))):
        for name in names:
            (references / f"git.{host}.org.{name}").symlink_to(upstream.directory / name)
    monkeypatch.setenv("KAS_REPO_REF_DIR", str(references))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Kas(TOP, tmp_path / "products", tmp_path / "layers", [pins()]) as kas:
        # The servers are gone, whatever machine this is.
        kas.use_mirrors({"https://git.": "file:///nonexistent/"})
        combination = select(["qemux86-64"])[0]
        found = Prober(kas.environment, kas.layers).look(repositories(kas.dump(combination)))
        assert {reach.repository.name: reach.revision for reach in found} == upstream.commits
        kas.checkout(combination, tmp_path / "log")
        assert (tmp_path / "layers" / "openembedded-core" / "meta" / "conf" / "layer.conf").exists()
