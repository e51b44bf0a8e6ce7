# SPDX-License-Identifier: MIT
"""scripts/registry as a person uses it: up, down, status, and what goes wrong with each."""

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

import hostsetup
from composeapps.oci.reference import parse
from composeapps.registry.client import RegistryClient, parse_endpoints
from factory.demo import demo_registry
from hub import kept
from hub.command import main
from hub.kept import KeptRegistry
from support import images, registries

CODE = "import sys; from hub.command import main; sys.exit(main(sys.argv[2:], sys.argv[1], sys.argv[1]))"
# The user changes when Python is loaded: it may lie where only root can read.
AS_NOBODY = f"import encodings.idna, os, sys; from hub.command import main; os.setgroups([]); os.setuid(65534); {CODE}"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def kas_repositories():
    """Return the names of what kas clones, into directories beside the layer."""
    files = [yaml.safe_load(path.read_text()) for path in hostsetup.TOP.glob("kas/*.yml")]
    return {name for file in files for name, repo in (file.get("repos") or {}).items() if (repo or {}).get("url")}


@pytest.fixture
def build(tmp_path):
    """A directory for products, whose registry ends with the test."""
    yield tmp_path
    assert run(tmp_path, "down").returncode == 0


def command(build, *arguments, code=CODE):
    return [sys.executable, "-B", "-c", code, str(build), *arguments]


def run_apart(build, *arguments, code=CODE):
    """Run the command in a process of its own."""
    done = subprocess.run(command(build, *arguments, code=code), capture_output=True, text=True, check=False,
                          env=ENVIRONMENT)
    assert "Traceback" not in done.stderr
    return done


def run(build, *arguments):
    """Run the command in this process, which is quicker."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(arguments, build, build)
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def up(build, *arguments):
    """Start the registry on a free port and return what it says in JSON."""
    done = run(build, "up", "--json", *(arguments or ("--port", "0")))
    assert not done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(state):
    with urllib.request.urlopen(f"{state['url']}/v2/", timeout=30) as answer:
        return answer.status == 200


def kill(pid):
    """Kill a process and wait for its end."""
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 30)[0]
    os.close(handle)


def test_it_outlives_the_command_and_is_found_again(build):
    state = json.loads(run_apart(build, "up", "--port", "0", "--json").stdout)
    assert answers(state) and state["running"]
    assert json.loads(run(build, "status", "--json").stdout) == state


def test_up_twice_is_one_registry(build):
    assert up(build)["pid"] == up(build)["pid"]


def test_up_twice_at_once_is_one_registry(build):
    with ThreadPoolExecutor(4) as pool:
        states = [json.loads(done.stdout) for done in pool.map(
            lambda _: run_apart(build, "up", "--port", "0", "--json"), range(4))]
    assert len({(state["pid"], state["port"]) for state in states}) == 1
    assert answers(states[0])


def test_what_it_holds_and_its_port_survive_down_and_up(build):
    state = up(build)
    client = RegistryClient(endpoints=parse_endpoints(state["endpoint"]))
    registry = registries.Registry(build / "unused")
    registry.address = state["url"].removeprefix("http://")
    pinned = images.push_image(registry, "hub.demo.test/mine/hello:1", images.multi_platform())
    assert run(build, "down").returncode == 0
    again = up(build, "--port", str(state["port"]))
    assert again["port"] == state["port"] and again["pid"] != state["pid"]
    assert again["repositories"] == [{"name": "mine/hello", "tags": ["1"]}]
    assert client.exists(parse(pinned), "manifests", parse(pinned).digest)
    client.close()


def test_the_port_of_before_is_taken_without_being_asked_for(build):
    port = up(build)["port"]
    run(build, "down")
    done = run(build, "up", "--json")
    assert json.loads(done.stdout)["port"] == port


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_was_killed_is_not_taken_for_running(build, number):
    state = up(build)
    kill(state["pid"])
    done = run(build, "status", "--json")
    assert done.returncode == 3 and not json.loads(done.stdout)["running"]
    assert run(build, "down").returncode == 0
    assert up(build)["pid"] != state["pid"]


def test_an_old_process_id_is_never_signalled(build):
    """The file names a process that has nothing to do with it, as after a reboot."""
    up(build)
    run(build, "down")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            (build / "registry" / "running").write_text(f"{stranger.pid}\n")
            assert run(build, "status").returncode == 3
            assert run(build, "down").returncode == 0
            assert stranger.poll() is None
            assert up(build)["pid"] != stranger.pid
        finally:
            stranger.kill()


@pytest.mark.parametrize("content", ["", "no number", "{}", '{"port": "x"}', '{"port": 99999}'])
def test_a_damaged_file_is_written_anew(build, content):
    (build / "registry").mkdir()
    (build / "registry" / "registry.json").write_text(content)
    (build / "registry" / "running").write_text("what?\n")
    assert run(build, "status").returncode == 3
    assert answers(up(build))


def test_a_port_that_is_taken_is_one_sentence(build):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run(build, "up", "--port", str(port))
    assert done.returncode == 5 and done.stdout == ""
    assert done.stderr.startswith(f"registry: port {port} of 127.0.0.1 is taken by another program: ")
    assert len(done.stderr.splitlines()) == 1
    assert run(build, "status").returncode == 3


def test_another_port_than_the_one_it_has_is_refused(build, free_port):
    port = up(build)["port"]
    done = run(build, "up", "--port", str(free_port))
    assert done.returncode == 2 and f"listens on port {port}: end it with 'scripts/registry down'" in done.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    (["up", "--port", "x"], "'x' is not a port"), (["up", "--port", "65536"], "'65536' is not a port"),
    (["down", "--port", "1"], "--port goes with up"), (["status", "--demo"], "--demo goes with up"),
    (["sideways"], "invalid choice"), ([], "required"), (["down", "--endpoint"], "--endpoint goes with"),
])
def test_wrong_usage(build, arguments, said):
    done = run(build, *arguments)
    assert done.returncode == 2 and said in done.stderr and not (build / "registry").exists()


def test_status_and_down_of_one_that_never_was(build):
    done = run(build, "status")
    assert done.returncode == 3 and "scripts/registry up" in done.stdout
    assert run(build, "down").returncode == 0
    assert not (build / "registry").exists()


def test_the_endpoint_alone_for_other_programs(build):
    state = up(build)
    assert run(build, "status", "--endpoint").stdout == f"hub.demo.test={state['url']}\n"
    run(build, "down")
    done = run(build, "status", "--endpoint")
    assert (done.returncode, done.stdout) == (3, "") and "scripts/registry up" in done.stderr


def test_up_says_what_to_do_next(build):
    out = run(build, "up", "--port", "0").stdout
    for step in ("scripts/composeapps publish", "scripts/gen-recipes --app", "scripts/build-image --preload",
                 "scripts/run-qemu", "scripts/registry down"):
        assert step in out


def test_a_silent_registry_is_one_sentence(build):
    state = up(build)
    os.kill(state["pid"], signal.SIGSTOP)
    try:
        done = run(build, "status")
    finally:
        os.kill(state["pid"], signal.SIGCONT)
    assert done.returncode == 5 and "runs but does not answer" in done.stderr


@pytest.mark.root
def test_another_user_gets_sentences(build):
    state = up(build)
    for path in (build, *build.parents):
        if path.stat().st_uid == 0 and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    assert json.loads(run_apart(build, "status", "--json", code=AS_NOBODY).stdout)["pid"] == state["pid"]
    for action in ("up", "down"):
        done = run_apart(build, action, code=AS_NOBODY)
        assert done.returncode == 5 and "belongs to another user: run this as that user, or with sudo" in done.stderr
    assert answers(state)


def test_interrupting_up_leaves_nothing_running(build):
    """The registry's program is one that never answers."""
    tools = build / "bin"
    tools.mkdir()
    (tools / "docker-registry").write_text("#!/bin/sh\necho up >&2\nexec sleep 600\n")
    (tools / "docker-registry").chmod(0o755)
    code = ("import sys, hostsetup; from pathlib import Path; hostsetup.TOOLS = Path(sys.argv[1]); "
            "from hub.command import main; sys.exit(main(['up', '--port', '0'], sys.argv[1], sys.argv[1]))")
    log = build / "registry" / "registry.log"
    with subprocess.Popen([sys.executable, "-B", "-c", code, str(build)], stderr=subprocess.PIPE, text=True,
                          env=ENVIRONMENT) as process:
        while not (log.exists() and log.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and "registry: interrupted" in process.stderr.read()
    assert KeptRegistry(build).state().pid is None


def test_the_commands_of_scripts_find_it_by_its_name(build):
    """Unless somebody says where it is."""
    state = up(build)
    environment = {}
    kept.provide(build, environment)
    assert environment == {"COMPOSEAPPS_ENDPOINTS": state["endpoint"]}
    environment = {"COMPOSEAPPS_ENDPOINTS": "other.test=http://127.0.0.1:1"}
    kept.provide(build, environment)
    assert environment["COMPOSEAPPS_ENDPOINTS"] == f"other.test=http://127.0.0.1:1 {state['endpoint']}"
    given = {"COMPOSEAPPS_ENDPOINTS": "hub.demo.test=http://127.0.0.1:1"}
    kept.provide(build, given)
    assert given == {"COMPOSEAPPS_ENDPOINTS": "hub.demo.test=http://127.0.0.1:1"}


def test_the_registry_of_the_demo_is_this_one(build):
    with demo_registry(build) as endpoint:
        assert KeptRegistry(build).state().pid is None
        assert endpoint.startswith("hub.demo.test=http://127.0.0.1:")
    state = up(build)
    with demo_registry(build) as endpoint:
        assert endpoint == state["endpoint"]
    assert KeptRegistry(build).state().pid == state["pid"]


def test_the_agents_command_runs_from_the_checkout():
    done = subprocess.run([sys.executable, hostsetup.TOP / "scripts" / "composeapps", "publish", "--help"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("Usage: composeapps publish"), done.stderr


def test_the_commands_write_no_byte_code_into_the_layer():
    code = ("import importlib.util, hostsetup; hostsetup.enter(); import composeapps; "
            "print(importlib.util.cache_from_source(composeapps.__file__))")
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPYCACHEPREFIX"}
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False,
                          env=environment)
    assert done.stdout.startswith(os.path.abspath(hostsetup.BUILD)), done.stderr


@pytest.mark.parametrize("name", sorted({*kas_repositories(), "downloads", "sstate-cache", "build"}))
def test_what_builds_write_beside_the_repositorys_files_is_ignored_by_git(name):
    done = subprocess.run(["git", "check-ignore", "--quiet", f"{name}/"], cwd=hostsetup.TOP, check=False)
    assert done.returncode == 0
