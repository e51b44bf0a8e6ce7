# SPDX-License-Identifier: MIT
"""scripts/demo with a user's own apps and registry, up to the image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import apps
from support.images import multi_platform

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo"


def demo(*arguments, endpoints):
    return subprocess.run(
        [sys.executable, DEMO, "--no-boot", "--json", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "COMPOSEAPPS_ENDPOINTS": endpoints})


def test_a_users_own_app_is_preloaded(registry, factory_name):
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/shop:v3", {"front": multi_platform("mine")})
    done = demo(f"{registry.host}/{factory_name}/shop:v3", endpoints=registry.endpoint)
    assert done.returncode == 0, done.stderr
    image = Path(json.loads(done.stdout)["image"])
    assert json.loads(image.read_text())["apps"] == {"shop": uri}


def test_a_registry_that_is_not_there_is_one_sentence(registry, free_port):
    done = demo(f"{registry.host}/factory/shop:v3", endpoints=f"{registry.host}=http://127.0.0.1:{free_port}")
    problems = [line for line in done.stderr.splitlines() if line.startswith("demo: ")]
    assert done.returncode == 1 and len(problems) == 1 and "cannot be reached: Connection refused" in problems[0]
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_a_reference_that_is_none_is_one_sentence():
    done = demo("Not A Reference", endpoints="")
    assert done.returncode == 1 and "demo: app 'Not A Reference' is not of the form" in done.stderr
