# SPDX-License-Identifier: MIT
"""What publish makes of compose files, beside what docker compose makes of them, over a corpus of small ones."""

import json
from pathlib import Path

import pytest

import comparecompose
import hostsetup
from composeapps.app import composecheck, pinning

CORPUS = Path(__file__).parent / "corpus"
# Parts of an app that is not in their directory.
PARTS = {"merge/extends/common/base.yml", "merge/include/cache-more.yml"}


@pytest.fixture(scope="module")
def program(device_root):
    return str(device_root / "usr/libexec/docker/cli-plugins/docker-compose")


def compare(capsys, *argv):
    status = comparecompose.main(["--json", *map(str, argv)])
    return status, json.loads(capsys.readouterr().out)


def test_the_pinned_file_means_what_the_compose_file_means_or_is_refused(program, capsys):
    status, found = compare(capsys, "--compose", program, CORPUS)
    outcomes = {str(Path(each["file"]).relative_to(CORPUS)): each for each in found}
    assert status == 0
    wrong = {name: each for name, each in outcomes.items()
             if each["outcome"] != ("refused" if name.startswith("refused/") or name in PARTS else "equal")}
    assert not wrong
    assert sum(each["outcome"] == "equal" for each in found) >= 100
    assert all(each["text"].count("\n") == 0 and "refused/" in each["text"] for name, each in outcomes.items()
               if name.startswith("refused/")), "each says in a sentence which file it is"


def test_a_difference_is_found(program, tmp_path, capsys, monkeypatch):
    (tmp_path / "compose.yaml").write_text(
        'services: {a: {image: "hub.example.com/f/a:1", environment: {PIN: "0123"}}}')
    original = pinning.dump
    monkeypatch.setattr(pinning, "dump", lambda value: original(value).replace(b'"0123"', b"0123"))
    status, (found,) = compare(capsys, "--compose", program, tmp_path)
    assert (status, found["outcome"]) == (1, "different")
    assert 'makes "0123" of services.a.environment.PIN in the compose file, and "83" in the pinned one' in found["text"]


def test_only_what_has_services_is_compared(tmp_path, capsys):
    (tmp_path / "deep").mkdir()
    for name in ("values.yml", "deep/ci.yaml"):
        (tmp_path / name).write_text("jobs: {}\n")
    assert compare(capsys, "--compose", "/bin/true", tmp_path) == (0, [])
    assert comparecompose.main(["--compose", "/nowhere/docker-compose", str(tmp_path)]) == 2
    assert "is not there: install docker compose" in capsys.readouterr().err


def test_without_docker_compose_the_one_of_the_debian_base_is_asked(program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(composecheck, "PLUGINS", ("/usr/nowhere/docker-compose",))
    monkeypatch.setattr(hostsetup, "BUILD", tmp_path / "build")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    app = tmp_path / "app"
    app.mkdir()
    (app / "compose.yml").write_text('services: {a: {image: "hub.example.com/f/a:1"}}')
    assert comparecompose.main([str(app)]) == 2 and "scripts/build-image --base-only" in capsys.readouterr().err
    place = tmp_path / "build/cache/base-0/tree/usr/nowhere/docker-compose"
    place.parent.mkdir(parents=True)
    place.symlink_to(program)
    status, (found,) = compare(capsys, app)
    assert (status, found["outcome"]) == (0, "equal")


def test_what_only_the_device_has_is_not_compared(program, tmp_path, capsys):
    (tmp_path / "compose.yml").write_text(
        'services: {a: {image: "hub.example.com/f/a:1", env_file: [/etc/of-the-device.env]}}')
    status, (found,) = compare(capsys, "--compose", program, tmp_path)
    assert (status, found["outcome"]) == (0, "unchecked") and "/etc/of-the-device.env is not on" in found["text"]
