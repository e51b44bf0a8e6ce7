# SPDX-License-Identifier: MIT
"""An app's compose file, made of all that docker compose makes it of; that it is the same, tests/app/corpus holds."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composeapps.app import compose, composecheck, composesource, merging, pinning, publish
from composeapps.errors import NotFoundError, UsageError


@pytest.fixture
def app(tmp_path):
    """Write files into a directory; return it."""
    def write(files):
        for name, text in files.items():
            (tmp_path / "app" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "app" / name).write_text(text if isinstance(text, str) else json.dumps(text))
        return tmp_path / "app"

    return write


def services(directory, *files):
    return composesource.read(directory, files).value["services"]


IMAGE = {"image": "hub.example.com/f/a:1"}


def test_which_files_are_taken(app, tmp_path):
    directory = app({"compose.yml": {"services": {"a": IMAGE}}, "prod.yml": {"services": {"a": {"user": "2"}}},
                     "compose.override.yml": {"services": {"a": {"user": "1"}}}})
    assert services(directory) == {"a": {**IMAGE, "user": "1"}}
    assert services(directory, directory / "compose.yml", directory / "prod.yml")["a"]["user"] == "2"
    with pytest.raises(NotFoundError, match="none.yml does not exist"):
        services(directory, directory / "none.yml")
    app({"docker-compose.override.yaml": {"services": {}}})
    with pytest.raises(UsageError, match="has compose.override.yml and docker-compose.override.yaml: name one"):
        services(directory)
    app({"docker-compose.yml": {"services": {"b": IMAGE}}})
    with pytest.raises(UsageError, match="has compose.yml and docker-compose.yml: name one with --file"):
        services(directory)
    (directory / "docker-compose.yml").unlink()
    (directory / "docker-compose.yml").symlink_to("compose.yml")
    (directory / "docker-compose.override.yaml").unlink()
    assert services(directory)["a"]["user"] == "1", "two names of one file are no question"
    (directory / "pipe.yml").unlink(missing_ok=True)
    os.mkfifo(directory / "pipe.yml")
    with pytest.raises(UsageError, match="is not a file"):
        services(directory, directory / "pipe.yml")
    with pytest.raises(UsageError, match="is not a directory"):
        services(tmp_path / "nowhere")


@pytest.mark.parametrize(("files", "says"), [
    ({"compose.yaml": "services: {a: {extends: {service: b, file: $F}}}"}, "'$F', which holds a variable"),
    ({"compose.yaml": "services: {a: {extends: {service: b, file: /etc/passwd}}}"}, "outside the app's directory"),
    ({"compose.yaml": "services: {a: {extends: {service: b, file: gone.yml}}}"}, "'gone.yml', which does not exist"),
    ({"compose.yaml": "services: {a: {extends: {service: b, file: o.yml}}}", "o.yml": "services: {c: {}}"},
     "extends 'b', which"),
    ({"compose.yaml": "services: {a: {extends: [b]}}"}, "extends something that is not a service"),
    ({"compose.yaml": "services: {a: {extends: {service: a, file: o.yml}}}",
      "o.yml": "services: {a: {extends: {service: a, file: compose.yaml}}}"}, "extends a service that extends it"),
    ({"compose.yaml": "include: o.yml\nservices: {a: {}}"}, "include is not a list"),
    ({"compose.yaml": "include: [{paths: o.yml}]\nservices: {a: {}}"}, "an entry of include"),
    ({"compose.yaml": "include: [{path: o.yml, env_file: x.env}]\nservices: {a: {}}",
      "o.yml": "services: {b: {user: $U}}"}, "takes its variables from an environment file of its own"),
    ({"compose.yaml": "include: [oci://example.com/f/app:1]\nservices: {a: {}}"}, "which is elsewhere"),
    ({"compose.yaml": "include: [../o.yml]\nservices: {a: {}}"}, "outside the app's directory"),
    ({"compose.yaml": "include: [d/o.yml]\nservices: {a: {}}",
      "d/o.yml": "services: {b: {volumes: ['${X}:/x']}}"}, "of which nobody knows whether"),
    ({"compose.yaml": "services: {a: {ports: [1]}}", "compose.override.yaml": "services: {a: {ports: {x: 1}}}"},
     "services.a.ports is given twice, in forms that do not go together"),
    ({"compose.yaml": "services: [a]"}, "its services are no mapping"),
    ({"compose.yaml": "services: {a: text}"}, "service 'a' is not a mapping"),
    ({"compose.yaml": "[]"}, "is not a compose file"),
    ({"compose.yaml": ""}, "it has no services"),
    ({"compose.yaml": "services: !override {a: {}}"}, "its services are no mapping"),
])
def test_what_cannot_be_made_one_file_is_refused(app, files, says):
    with pytest.raises(UsageError) as err:
        composesource.read(app(files))
    assert says in str(err.value) and "\n" not in str(err.value)


def test_a_link_out_of_the_directory_is_not_followed(app, tmp_path):
    (tmp_path / "secret.yml").write_text("services: {b: {user: secret}}")
    directory = app({"compose.yaml": "services: {a: {extends: {file: o.yml, service: b}}}"})
    (directory / "o.yml").symlink_to("../secret.yml")
    with pytest.raises(UsageError, match="a link to outside the app's directory"):
        composesource.read(directory)


def test_services_that_extend_one_another_do_not_multiply(app):
    chain = {f"s{n}": {"extends": f"s{n - 1}", "environment": {f"V{n}": "x"}} for n in range(1, 3000)}
    with pytest.raises(UsageError, match="more than 50 times|more than 150000 values"):
        composesource.read(app({"compose.yaml": {"services": {**dict(reversed(chain.items())), "s0": IMAGE}}}))
    with pytest.raises(UsageError, match="more than 150000 values"):
        composesource.read(app({"compose.yaml": {"services": {"s0": IMAGE, **chain}}}))


def test_paths_are_seen_from_the_apps_directory(app):
    directory = app({
        "compose.yaml": "include: [d/o.yml]\nservices: {a: {extends: {file: d/e.yml, service: x}}}",
        "d/o.yml": "services: {b: {image: i, env_file: [o.env, /abs], volumes: [./v:/v, '../w:/w', 'named:/n']}}",
        "d/e.yml": "services: {x: {image: i, extends: {file: ../f/g.yml, service: y}, env_file: {path: e.env}}}",
        "f/g.yml": "services: {y: {security_opt: ['seccomp:p.json'], volumes: ['./${X}/q:/q']}}"})
    found = services(directory)
    assert found["b"]["env_file"] == ["./d/o.env", "/abs"]
    assert found["b"]["volumes"] == ["./d/v:/v", "./w:/w", "named:/n"]
    assert found["a"] == {"image": "i", "env_file": {"path": "./d/e.env"}, "security_opt": ["seccomp:./f/p.json"],
                          "volumes": ["./f/${X}/q:/q"]}


@pytest.mark.parametrize(("value", "text"), [
    (True, "true"), (0.5, "0.5"), (100000.0, "100000"), (1000000.0, "1e+06"), (1.25e-5, "1.25e-05"), (-0.0, "-0"),
    (123456.5, "123456.5"), (1234567.5, "1.2345675e+06"), (7, "7"), ("x", "x"),
])
def test_scalars_where_a_text_is_wanted(value, text):
    assert merging.scalar_text(value) == text


@pytest.mark.parametrize(("more", "says"), [
    ({"volumes": [{"type": "image", "source": "hub.example.com/f/b:1", "target": "/b"}]}, "mounts the image"),
    ({"configs": [{"type": "image", "source": "x"}]}, "one of its configs from an image"),
    ({"provider": {"type": "x"}}, "has a provider"),
    ({"volumes": ["data:/d", "v:/d"]}, "'v:' in the volume 'v:/d' of service 'a' for a drive"),
    ({"volumes": ["/srv:/d:z:ro"]}, "'z:' in the volume"),
    ({"image": None}, "has no image"),
    ({"image": ["x"]}, "has no image"),
    ({"image": "x:$TAG"}, "holds a variable"),
    ({"labels": {"k" * 1200: "x"}}, "too many"),
    ({"labels": 3}, "neither a mapping nor a list"),
])
def test_what_an_app_cannot_carry_along(more, says):
    value = {"services": {"a": {**IMAGE, **more}}}
    with pytest.raises(UsageError, match=says):
        pinning.pin(value, lambda ref: "sha256:" + "0" * 64, "it")
        pinning.dump(value)


def test_what_is_for_building_stays_at_home_and_a_mapping_may_name_a_volume_by_a_letter():
    """docker compose on a device takes neither an empty list to watch nor 'v:/d'."""
    volume = {"type": "volume", "source": "v", "target": "/d"}
    value = {"services": {"a": {**IMAGE, "build": ".", "develop": {"watch": []}, "volumes": [volume, "vv:/e", "/f"]}}}
    pinning.pin(value, lambda ref: "sha256:" + "0" * 64, "it")
    assert value["services"]["a"].keys() == {"image", "volumes", "labels"}
    assert value["services"]["a"]["volumes"] == [volume, "vv:/e", "/f"]


def test_without_docker_compose_it_is_said_that_nothing_was_compared(app, monkeypatch):
    monkeypatch.setattr(composecheck, "find_for_publishing", lambda: None)
    said = []
    publish.prepare(app({"compose.yaml": {"services": {"a": IMAGE}}}), (), lambda ref: "sha256:" + "0" * 64,
                    notify=said.append)
    assert said == ["docker compose is not installed here: not checked that it takes the pinned file for the same"]


def test_a_difference_is_refused_and_names_its_place(app, tmp_path):
    """A stand-in for docker compose that reads the source and the pinned file differently."""
    program = tmp_path / "docker-compose"
    program.write_text('#!/bin/sh\nfor last; do case $prior in --file) file=$last;; esac; prior=$last; done\n'
                       'case $file in *composeapps-*) n=2; i=x@sha256:0;; *) n=1; i=x:1;; esac\n'
                       'printf \'{"services": {"a": {"image": "%s", "environment": {"N": "%s"}}}}\' $i $n\n')
    program.chmod(0o755)
    directory = app({"compose.yaml": {"services": {"a": IMAGE}}})
    with pytest.raises(composecheck.DifferentError, match="has not the image hub.example.com/f/a@sha256"):
        publish.prepare(directory, (), lambda ref: "sha256:" + "0" * 64, program=str(program))
    before = {"services": {"a": {"environment": {"N": "1"}}}, "volumes": {"v": {"name": "x_v"}}}
    after = {"services": {"a": {"environment": {"N": 1}, "image": "i", "labels": {pinning.CONFIG_HASH: "x"}}}}
    assert composecheck.difference(before, after, {"a": "i"}) == (
        'docker compose makes "1" of services.a.environment.N in the compose file, and 1 in the pinned one')


def test_a_docker_compose_that_does_not_do_what_it_should(app, tmp_path):
    directory = app({"compose.yaml": {"services": {"a": IMAGE}}})
    for script, says in (("echo no", "something that is no JSON"), ("echo bad file >&2; exit 3", "bad file"),
                         ("exit 3", "exit status 3")):
        program = tmp_path / "docker-compose"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        with pytest.raises(UsageError, match=says):
            publish.prepare(directory, (), lambda ref: "sha256:" + "0" * 64, program=str(program))
    with pytest.raises(UsageError, match="cannot be run: No such file"):
        publish.prepare(directory, (), lambda ref: "sha256:" + "0" * 64, program="/nowhere/docker-compose")


def test_an_env_file_that_names_other_compose_files_is_refused(app):
    """Where compose is started without --file, the pinned file would be left alone for them."""
    directory = app({"compose.yaml": {"services": {"a": IMAGE}}, "prod.yaml": "services: {}",
                     ".env": "# COMPOSE_FILE=x\nexport COMPOSE_FILE=compose.yaml:prod.yaml\n"})

    def prepared():
        return publish.prepare(directory, [directory / "compose.yaml"], lambda ref: "sha256:" + "0" * 64, checked=False)

    with pytest.raises(UsageError, match="sets COMPOSE_FILE"):
        prepared()
    app({".composeappignores": ".env\n"})
    assert ".env" not in prepared().listing
    app({".composeappignores": "", ".env": "MY_COMPOSE_FILE=x\n"})
    assert ".env" in prepared().listing


_ODD = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.floats(0, 9)
    | st.sampled_from(["a", "./f", "../x", "$X", "a:b", "a=b", "f.yml", "service:a", "\x1b[2J", "x/y:1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["a", "file", "path", "source", "service", "driver", "type", "bind", "replicas", "required"]),
        inner, max_size=3), max_leaves=6)
_SERVICE = st.dictionaries(st.sampled_from([
    "build", "command", "depends_on", "deploy", "env_file", "environment", "extends", "extra_hosts", "image", "labels",
    "label_file", "logging", "networks", "ports", "secrets", "security_opt", "ulimits", "volumes", "x-a"]), _ODD,
    max_size=4).map(lambda service: {**IMAGE, **service})
_TOP = st.fixed_dictionaries({"services": st.dictionaries(st.sampled_from("ab"), _SERVICE, min_size=1)}, optional={
    key: _ODD for key in ("configs", "include", "name", "networks", "secrets", "volumes")})


@given(_TOP, _TOP, _TOP)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_files_say_is_published_or_refused_in_a_sentence(app, base, override, other):
    directory = app({"compose.yaml": base, "compose.override.yaml": override, "f.yml": other, "f": ""})
    try:
        made = publish.prepare(directory, (), lambda ref: "sha256:" + "0" * 64, checked=False)
    except UsageError as err:
        assert str(err).isprintable()
    else:
        assert {service.name for service in compose.services(made.compose, "it")} == set(made.images)


@pytest.mark.parametrize("name", ["chain", "files", "includes", "wide"])
def test_what_multiplies_over_files_stays_below_64_mib_and_5_seconds(app, name):
    bomb = f"x-a: &a [{'x,' * 1000}]\nx-b: [{'*a,' * 90}]\nservices: {{b: {{image: x/y:1}}}}"
    services = {"a": IMAGE}
    if name == "chain":
        services |= {f"s{n}": {"extends": f"s{n - 1}" if n else "a", "environment": {f"V{n}": "x"}}
                     for n in range(3000)}
    elif name == "files":
        services |= {f"s{n}": {"extends": {"file": f"f{n}.yml", "service": "b"}} for n in range(150)}
    wide = [{"a": "b"}] * 44_000 if name == "wide" else []
    directory = app({"compose.yaml": {"services": services, "x-wide": wide,
                                      "include": ["f0.yml"] * 1000 if name == "includes" else []},
                     **{f"f{n}.yml": bomb for n in range(150 if name == "files" else 1)}})
    program = textwrap.dedent("""
        import json, sys, time
        from composeapps.app import publish
        from composeapps.errors import UsageError
        try:
            publish.prepare(sys.argv[1], (), lambda ref: "sha256:" + "0" * 64, checked=False)
        except UsageError as err:
            assert "more than 150000 values" in str(err) or "more than the 1048576 allowed" in str(err), err
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
        print(json.dumps([int(peak.split()[1]) / 1024, time.process_time()]))
        """)
    done = subprocess.run([sys.executable, "-c", program, directory], capture_output=True, text=True,
                          env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == 0, done.stderr
    memory, seconds = json.loads(done.stdout)
    assert memory < 64 and seconds < 5, (name, memory, seconds)


def test_the_first_docker_compose_is_not_asked(tmp_path, monkeypatch):
    program = tmp_path / "docker-compose"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for version, found in (("1.29.2", None), ("v2.40.3", str(program)), ("5.0.1", str(program))):
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
        assert composecheck.find_for_publishing() == found
