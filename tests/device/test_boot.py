# SPDX-License-Identifier: MIT
"""The chain's end: the image with the demo apps boots in QEMU, with no network, and runs them.

One device for the module, since each boot takes minutes under emulation: it loses power
in the middle of its first boot, comes back, and is then looked at from all sides.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from demonstration import device as demo
from emulator.apps import wait_for_apps
from emulator.machine import Machine
from oeqatarget import SerialTarget, run_cases

pytestmark = [pytest.mark.qemu, pytest.mark.root, pytest.mark.timeout(1500)]

TOP = Path(__file__).resolve().parents[2]
# What the cases import of openembedded-core, which a test run does not have.
OEQA = TOP / "tests" / "support" / "oeqa_standin"


@pytest.fixture(scope="module")
def image():
    """The description of the image that scripts/demo builds, with the demo apps preloaded."""
    done = subprocess.run([sys.executable, TOP / "scripts" / "demo", "--no-boot", "--json"], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["image"]


@pytest.fixture(scope="module")
def booted(image):
    """The device after a power cut in the middle of its first boot, booted again, its apps started.

    ``first_check`` is what systemd said of the check of dockerd's store at the first boot, when dockerd was running.
    """
    machine = Machine(image, name="test-boot")
    failed = True
    try:
        machine.start()
        # The power goes when the agent has begun: dockerd has part of the images, no app runs.
        machine.run("journalctl --boot --follow --output cat _SYSTEMD_UNIT=composeapps-start.service | "
                    "grep --quiet --max-count 1 'loading hub.demo.test/demo/nginx'", timeout=300)
        machine.first_check = machine.run("systemctl is-active docker-store-fsck.service", check=False).stdout
        machine.power_cut()
        machine.start()
        wait_for_apps(machine, lambda line: None)
        yield machine
        failed = False
    finally:
        machine.close(failed=failed)


def oeqa(machine, image, *modules):
    """Run the layer's oeqa cases; return {case: (outcome, text)}, without the module's name."""
    packages = json.loads(Path(image).read_text())["contents"]["recipes"]
    results = run_cases(SerialTarget(machine, logging.getLogger("oeqa")), packages, OEQA, modules=modules)
    return {result.case.split(".", 1)[1]: (result.outcome, result.text) for result in results}


def test_the_apps_of_the_image_are_those_of_the_device(booted, image):
    built = json.loads(Path(image).read_text())["apps"]
    listed = json.loads(booted.run("composeapps ls --json").stdout)
    assert {app["name"]: app["uri"] for app in listed} == built and set(built) == {"shellhttpd", "web"}
    assert all(app["installed"] for app in listed)


def test_the_apps_answer(booted):
    assert "Hello from a restorable compose app" in demo.fetch(booted, "http://127.0.0.1:8080/")
    first = demo.fetch(booted, "http://127.0.0.1:8081/")
    second = demo.fetch(booted, "http://127.0.0.1:8081/")
    assert "Hello from nginx: redis counts visit" in first
    assert int(second.split("visit ")[1].split()[0]) == int(first.split("visit ")[1].split()[0]) + 1


def test_there_is_no_network(booted):
    links = booted.run("ls /sys/class/net").stdout.split()
    assert not [link for link in links if link.startswith(("eth", "en"))]


def test_all_services_run_as_installed(booted):
    result = booted.run("composeapps ps --json", timeout=60)
    services = {(app["name"], s["name"]): s for app in json.loads(result.stdout) for s in app["services"]}
    assert set(services) == {("shellhttpd", "httpd"), ("web", "nginx"), ("web", "counter"), ("web", "redis")}
    assert all(s["state"] == "running" and s["current"] for s in services.values())




def test_the_store_is_pinned_to_overlay2(booted):
    booted.run("ls -d /var/lib/docker/image/overlay2/imagedb")
    assert booted.run("test -e /var/lib/docker/containerd/daemon", check=False).exit_status



def test_stop_and_run(booted, image):
    booted.run("composeapps stop shellhttpd", timeout=120)
    shown = booted.run("composeapps ps shellhttpd", timeout=60)
    assert shown.exit_status == 0 and "exited" in shown.stdout, "what was stopped is not to run"
    results = oeqa(booted, image, "compose_apps.ComposeAppsRunningTest")
    booted.run("composeapps run shellhttpd", timeout=300)
    assert "Hello" in demo.fetch(booted, "http://127.0.0.1:8080/")
    # The oeqa case must have named the service that did not run, and what depends on it must not have run.
    outcome, text = results["ComposeAppsRunningTest.test_preloaded_apps_run"]
    assert outcome == "failed" and "service httpd of app shellhttpd does not run" in text
    assert results["ComposeAppsRunningTest.test_stop_and_run"][0] == "skipped"


def test_the_oeqa_cases_pass(booted, image):
    results = oeqa(booted, image, "compose_apps")
    assert len(results) == 10
    assert {case: result for case, result in results.items() if result != ("passed", "")} == {}


def test_no_unit_failed(booted):
    assert booted.run("systemctl --failed --no-legend --plain").stdout.strip() == ""


def test_the_first_boot_checks_dockerds_store_before_there_is_one(booted):
    """Left out then, it would be started beside a dockerd that comes up, by whatever wants that, and fail."""
    assert booted.first_check == "active\n"


def test_nothing_was_built_into_the_layer():
    # BitBake hashes the layer: byte code or an egg-info there would force rebuilds.
    left = [path for name in ("__pycache__", "*.egg-info") for path in (TOP / "meta-composeapps").rglob(name)]
    assert left == []
