# SPDX-License-Identifier: MIT
"""Old-style apps become directories that can be published; those on a device are found and stopped."""

import json
import os
import shutil
import subprocess

import pytest
import yaml

from composeapps.app import compose, pinning, rendering
from composeapps.cli.main import main
from composeapps.engine.client import Engine
from composeapps.records.state import AppState, StateDirectory
from support.engine import busybox_image
from support.images import make_image, multi_platform, push_image, tar

METADATA = """\
# An app of old.
version: 0.1.0
name: hello
description: says hello
"""
COMPOSE = """\
version: "3.6"
services:
  web:
    image: ${images.web}:${tag}
    command: ["-text", "${text}", "-cost", "$$5"]
    ports:
      - ${web.port}:80
      - 22:22
    restart: no
    environment:
      DEBUG: ${debug}
      HOME_DIR: ${HOME_DIR:-/root}
    deploy:
      replicas: ${web.replicas}
    volumes:
      - ./conf/site.conf:/etc/site.conf:ro
"""
PARAMETERS = """\
images:
  web: hub.demo.test/f/web
tag: "1.0"
text: "a: b # ${c} $d"
debug: true
web.port: 8080
web:
  replicas: 2
"""


def _file(path, *documents):
    path.write_text("---\n".join(documents))
    return path


def _converted(directory):
    return yaml.safe_load((directory / "docker-compose.yml").read_text())


@pytest.fixture
def hello(tmp_path):
    """A Docker App as one file, in a directory with the file that it mounts."""
    directory = tmp_path / "compose-apps" / "hello"
    (directory / "conf").mkdir(parents=True)
    (directory / "conf" / "site.conf").write_text("listen 80\n")
    (directory / "conf" / "site.conf").chmod(0o600)
    (directory / "conf" / "link").symlink_to("site.conf")
    # What was rendered of it once.
    (directory / "docker-compose.yml").write_text("services: {web: {image: stale}}\n")
    _file(directory / "hello.dockerapp", METADATA, COMPOSE, PARAMETERS)
    return directory


def test_parameters_are_filled_in_and_files_come_along(hello, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(hello), "--output", str(out)]) == 0
    assert f"composeapps publish {out}" in capsys.readouterr().out
    value = _converted(out)
    assert "version" not in value
    web = value["services"]["web"]
    assert web["image"] == "hub.demo.test/f/web:1.0"
    # docker compose takes one dollar of two, and nothing in a value for a variable.
    assert web["command"] == ["-text", "a: b # $${c} $$d", "-cost", "$$5"]
    assert web["ports"] == ["8080:80", "22:22"]
    assert (web["restart"], web["environment"]) == ("no", {"DEBUG": "true", "HOME_DIR": "${HOME_DIR:-/root}"})
    assert web["deploy"]["replicas"] == 2
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "conf", "conf/link", "conf/site.conf", "docker-compose.yml"]
    assert (out / "conf/site.conf").stat().st_mode & 0o777 == 0o600 and os.readlink(out / "conf/link") == "site.conf"
    # Nothing of the old app was changed.
    assert (hello / "docker-compose.yml").read_text() == "services: {web: {image: stale}}\n"


def test_a_docker_app_as_a_directory_and_values_from_the_command_line(tmp_path, monkeypatch):
    directory = tmp_path / "hello.dockerapp"
    directory.mkdir()
    for name, text in (("metadata.yml", METADATA), ("docker-compose.yml", COMPOSE), ("parameters.yml", PARAMETERS)):
        (directory / name).write_text(text)
    (directory / "notes.txt").write_text("kept")
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(directory), "--set", "web.port=9000", "--set", "tag=$x"]) == 0
    web = _converted(tmp_path / "hello")["services"]["web"]
    assert (web["ports"][0], web["image"]) == ("9000:80", "hub.demo.test/f/web:$$x")
    assert sorted(path.name for path in (tmp_path / "hello").iterdir()) == ["docker-compose.yml", "notes.txt"]


def test_what_was_converted_can_be_published(tmp_path, registry, factory_name):
    push_image(registry, f"{registry.host}/{factory_name}/web:1.0", multi_platform("web"))
    path = _file(tmp_path / "hello.dockerapp", METADATA, COMPOSE, PARAMETERS.replace("/f/", f"/{factory_name}/"))
    assert main(["convert", str(path), "--output", str(tmp_path / "out")]) == 0
    assert main(["publish", "--endpoint", registry.endpoint, str(tmp_path / "out"),
                 f"{registry.host}/{factory_name}/hello:1"]) == 0


def test_an_unpinned_compose_directory_is_taken_as_it_is(tmp_path):
    directory = tmp_path / "plain"
    directory.mkdir()
    (directory / "docker-compose.yml").write_text("services:\n  a:\n    image: busybox:${TAG:-1}\n    ports: [22:22]\n")
    (directory / ".env").write_text("TAG=2\n")
    assert main(["convert", str(directory), "--output", str(tmp_path / "out")]) == 0
    assert _converted(tmp_path / "out")["services"]["a"] == {"image": "busybox:${TAG:-1}", "ports": ["22:22"]}
    assert (tmp_path / "out" / ".env").exists()


@pytest.mark.parametrize(("documents", "message"), [
    ([METADATA, COMPOSE.replace("${text}", "${text} ${no.such} ${NEITHER}"), PARAMETERS],
     "no value for the parameters NEITHER, no.such: give one with --set NAME=VALUE"),
    ([METADATA], "it has 1 YAML documents, not the three"),
    ([METADATA, COMPOSE, PARAMETERS, "a: b\n"], "it has 4 YAML documents"),
    ([METADATA, "services: [}\n", PARAMETERS], "the compose file, line 6: not YAML"),
    ([METADATA, "a: b\n", PARAMETERS], "is not a compose file: it has no services"),
    ([METADATA.replace("hello", "../evil"), COMPOSE, PARAMETERS], "'../evil' is not an app's name"),
    ([METADATA, COMPOSE + "    x-enabled: ${web.on}\n", PARAMETERS + "  on: maybe\n"],
     "x-enabled of service 'web' is 'maybe', neither true nor false"),
    ([METADATA, COMPOSE + "    x-enabled: '!${debug}'\n", PARAMETERS], "x-enabled switches all of the services off"),
    ([METADATA, COMPOSE + "  db: {image: x, x-enabled: false}\n  a: {image: x, network_mode: 'service:db'}\n",
      PARAMETERS], "service 'a' cannot do without 'db', which x-enabled switches off"),
    ([METADATA, "services: {a: {image: x, ports: !reset []}}\n", PARAMETERS],
     "line 6: !reset cannot be kept here"),
    ([METADATA, COMPOSE, "a: &a\n  b: *a\n"], "parameters, line"),
    ([METADATA, COMPOSE.replace("./conf/site.conf", "../../etc/shadow"), PARAMETERS],
     "service 'web' uses the bind mount '../../etc/shadow', outside the app's directory"),
    (["[1]\n", COMPOSE, PARAMETERS], "the metadata is not a mapping"),
])
def test_what_cannot_be_converted_says_why_and_leaves_nothing(tmp_path, capsys, documents, message):
    path = _file(tmp_path / "hello.dockerapp", *documents)
    assert main(["convert", str(path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_parameters_without_a_default_and_those_of_the_metadata(tmp_path):
    text = ("services:\n  ${no.key}:\n    image: x\n"
            "    command: ['${app.name}-$app.version', $app.description!, '${other}',"
            " '${list.1}', $HOST.example, $$x]\n"
            "    environment: {A: '${a:-${b.c}}'}\n").replace("${no.key}", "web")
    path = _file(tmp_path / "hello.dockerapp", "\ufeff" + METADATA, text, "list: [a, 2]\n", "# nothing\n...\n")
    out = tmp_path / "out"
    assert main(["convert", str(path), "--output", str(out)]) == 2
    assert main(["convert", str(path), "--output", str(out), "--set", "other=1", "--set", "HOST=h",
                 "--set", "b.c=d$", "--set", "app.version=9"]) == 0
    web = _converted(out)["services"]["web"]
    assert web["command"] == ["hello-9", "says hello!", "1", "2", "h.example", "$$x"]
    assert web["environment"] == {"A": "${a:-d$$}"}


def test_services_that_are_switched_off(tmp_path):
    directory = tmp_path / "hello.dockerapp"
    directory.mkdir()
    text = ("services:\n  a: {image: x, x-enabled: '! ${debug}', depends_on: [b]}\n  b: {image: x, x-enabled: '${b}'}\n"
            "  c: {image: x, depends_on: {b: {condition: service_started}, a: {condition: service_started}}}\n")
    for name, content in (("metadata.yml", METADATA), ("docker-compose.yml", text),
                          ("settings.yml", "debug: false\nb: 0\n")):
        (directory / name).write_text(content)
    assert main(["convert", str(directory), "--output", str(tmp_path / "out")]) == 0
    assert _converted(tmp_path / "out")["services"] == {
        "a": {"image": "x"}, "c": {"image": "x", "depends_on": {"a": {"condition": "service_started"}}}}
    assert not (tmp_path / "out" / "settings.yml").exists()
    (directory / "parameters.yml").write_text("debug: true\nb: '1'\n")
    assert main(["convert", str(directory), "--output", str(tmp_path / "more")]) == 0
    assert list(_converted(tmp_path / "more")["services"]) == ["b", "c"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", [*(word * 200_000 for word in ("${a-", "$", "${", "$a.", "${a:-$", "$$")),
                                  "$a" + ".a" * 200_000], ids=lambda text: text[:4])
def test_no_text_takes_longer_than_its_length(text):
    """With its square it would be hours."""
    rendering.fill({"a": text}, {"a": 1}, True)
    assert "a" in rendering.used({"a": f"$a {text}"})


def test_links_that_leave_the_app_and_outputs_in_the_way_are_refused(hello, tmp_path, capsys):
    assert main(["convert", str(hello), "--output", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(hello), "--output", str(hello / "out")]) == 2
    assert "lies in" in capsys.readouterr().err
    (hello / "conf" / "out").symlink_to("../../../secret")
    assert main(["convert", str(hello), "--output", str(tmp_path / "out")]) == 2
    assert "is a link to '../../../secret', outside" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".staging*"))
    assert main(["convert", str(hello), "--output", str(tmp_path / "out"), "--set", "nothing=1"]) == 2
    assert "has no parameter 'nothing'; its parameters: HOME_DIR, debug, images.web" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nowhere")]) == 3
    assert main(["convert"]) == main(["convert", "--list", "x"]) == 2


def test_what_a_container_swaps_for_a_link_meanwhile_is_not_copied(hello, tmp_path, monkeypatch):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/victim").write_text("not the app's")
    (hello / "data").mkdir()
    (hello / "data/victim").write_text("the app's")
    at, count = 0, 1
    while at < count:
        at, count = at + 1, 0

        def opening(*args, at=at, function=os.open, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                (hello / "data").rename(hello / "away")
                (hello / "data").symlink_to(tmp_path / "outside")
            return function(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", opening)
            status = main(["convert", str(hello), "--output", str(tmp_path / "out")])
        found = [path.read_text() for path in tmp_path.glob("out/*/victim")]
        assert "not the app's" not in found and (status or found), at
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        if (hello / "data").is_symlink():
            (hello / "data").unlink()
            (hello / "away").rename(hello / "data")
    assert at > 4


def test_compose_files_mean_what_docker_compose_takes_them_for():
    text = (b"services:\n  a:\n    image: x\n    ports: [22:22, 0x10, 1_0]\n    restart: no\n    tty: true\n"
            b"    n: [1.5, 010]\n")
    service = compose.load(text, "it")["services"]["a"]
    assert service["ports"] == ["22:22", 16, 10] and service["n"] == [1.5, 8]
    assert (service["restart"], service["tty"]) == ("no", True)
    assert compose.load(pinning.dump({"services": {"a": service}}), "it")["services"]["a"] == service


@pytest.mark.root
def test_old_apps_on_a_device_are_found_stopped_and_converted(dockerd, hello, tmp_path, capsys):
    root = dockerd.directory / "old"
    apps = root / "compose-apps"
    image = busybox_image(make_image, tar)
    engine = Engine(dockerd.host)
    document = image.document
    files = {f"{d[7:]}": data for d, data in image.blobs.items()}
    engine.load([{"Config": document["config"]["digest"][7:], "RepoTags": ["old/hello:1"],
                  "Layers": [layer["digest"][7:] for layer in document["layers"]]}],
                [(name, len(data), [data]) for name, data in files.items()])
    text = ('services:\n  web:\n    image: old/hello:1\n    command: ["/bin/busybox", "sleep", "600"]\n'
            "    network_mode: none\n    stop_signal: SIGKILL\n    restart: always\n    volumes: [data:/data]\n"
            "volumes: {data: {}}\n")
    for name in ("plain", "docker", "mine", "pinned", "none", "team/mine"):
        (apps / name).mkdir(parents=True)
        (apps / name / "docker-compose.yml").write_text(text)
    _file(apps / "docker" / "docker.dockerapp", METADATA.replace("hello", "docker"), text, PARAMETERS)
    (apps / "pinned" / "docker-compose.yml").write_text(text.replace("old/hello:1", f"old/hello@{image.digest}"))
    (apps / "none" / "docker-compose.yml").unlink()
    for name in ("mine", "team/mine"):
        StateDirectory(root / "state").put(name, AppState(f"hub.demo.test/f/{name}@sha256:" + "1" * 64))
    options = ["--compose-root", str(apps), "--state-dir", str(root / "state"), "--docker-host", dockerd.host]
    for name in ("plain", "docker"):
        subprocess.run([*dockerd.compose_command, "--project-directory", apps / name, "--file",
                        apps / name / "docker-compose.yml", "up", "--detach"], check=True, capture_output=True,
                       env={**os.environ, "DOCKER_HOST": dockerd.host})

    def listed():
        capsys.readouterr()
        assert main([*options, "convert", "--list", "--json"]) == 0
        return {app["name"]: (app["kind"], app["running"]) for app in json.loads(capsys.readouterr().out)}

    assert listed() == {"docker": ("dockerapp", 1), "plain": ("compose", 1)}
    for name in ("docker", "plain"):
        assert main([*options, "convert", name, "--stop", "--output", str(tmp_path / "out" / name)]) == 0
        assert _converted(tmp_path / "out" / name)["services"]["web"]["image"] == "old/hello:1"
        label = f"com.docker.compose.project={name}"
        assert engine.containers(label) == [] and engine.networks(label) == []
        # With a volume of the same name the new app has the data of the old one.
        assert [volume["Name"] for volume in engine.volumes(label)] == [f"{name}_data"]
        engine.remove("volumes", f"{name}_data")
    assert listed() == {"docker": ("dockerapp", 0), "plain": ("compose", 0)}
    for number, path in enumerate(("mine", str(apps / "team" / "mine"))):
        assert main([*options, "convert", path, "--stop", "--output", str(tmp_path / "out" / f"mine{number}")]) == 2
        assert "is installed from the store" in capsys.readouterr().err


def test_what_a_compose_file_names_has_to_be_there(tmp_path, capsys):
    """By the check that publish makes, of which tests/app/test_filerefs.py has the rest."""
    directory = tmp_path / "old"
    directory.mkdir()
    compose_file = directory / "docker-compose.yml"
    out = tmp_path / "new"
    for text, says in (("services: {a: {image: x, env_file: [{path: gone.env}]}}", "'gone.env', which is not in the"),
                       ("services: {a: {image: x, configs: [c]}}\nconfigs: {c: {file: ../c}}", "outside the app's"),
                       ("include: [{path: ../x.yml}]\nservices: {a: {image: x}}", "it includes '../x.yml', outside"),
                       ("services: {a: {image: x, ports: !reset []}}", "line 1: !reset cannot be kept here"),
                       ("services: {a: {image: x, x-n: .nan}}", "docker compose takes no .nan"),
                       ("services: {a: {image: x}, a: {image: y}}", "the key 'a' was given at line 1 already")):
        compose_file.write_text(text)
        assert main(["convert", str(directory), "--output", str(out)]) == 2
        assert says in capsys.readouterr().err and not out.exists() and not list(tmp_path.glob(".staging*"))
    compose_file.write_text("services: {a: {image: x, volumes: ['./data:/data']}}")
    assert main(["convert", str(directory), "--output", str(out)]) == 0
    assert "warning: " in (err := capsys.readouterr().err) and "'./data', which is not in the bundle" in err
