# SPDX-License-Identifier: MIT
"""The local registry and the helpers that other tests stand on, against the real docker-registry."""

import json
import os
import select
import signal
import subprocess
import sys
import urllib.request

import pytest

from composeapps.errors import RegistryError
from factory.localregistry import LocalRegistry
from support import apps, images, registries

KINDS = ["registry", "auth_registry", "token_registry", "tls_registry"]


@pytest.fixture(params=KINDS)
def any_registry(request):
    return request.getfixturevalue(request.param)


def test_what_was_pushed_can_be_pulled(any_registry, factory_name):
    image = images.multi_platform()
    pinned = images.push_image(any_registry, f"{any_registry.host}/{factory_name}/hello:1", image)

    repo, digest = images.split_reference(pinned)
    status, headers, body = images.send(
        any_registry, "GET", f"/v2/{repo}/manifests/1", repo, headers={"Accept": images.INDEX}
    )
    assert (status, body) == (200, image.content)
    assert headers["Docker-Content-Digest"] == digest
    for blob, data in image.blobs.items():
        assert images.send(any_registry, "GET", f"/v2/{repo}/blobs/{blob}", repo)[2] == data


@pytest.mark.parametrize("kind", ["auth_registry", "token_registry"])
def test_registry_with_accounts_refuses_a_stranger(kind, request, monkeypatch):
    registry = request.getfixturevalue(kind)
    monkeypatch.setattr(registry, "authorization", lambda repo, *actions: None)
    status, headers, _ = images.send(registry, "GET", "/v2/", "x")
    assert status == 401
    assert headers["WWW-Authenticate"].split()[0] == ("Bearer" if registry.tokens else "Basic")


def test_token_for_pull_does_not_push(token_registry, factory_name, monkeypatch):
    token = token_registry.tokens.mint("tester", [
        {"type": "repository", "name": f"{factory_name}/x", "actions": ["pull"]},
    ])
    monkeypatch.setattr(token_registry, "authorization", lambda repo, *actions: f"Bearer {token}")
    status, _, _ = images.send(
        token_registry, "POST", f"/v2/{factory_name}/x/blobs/uploads/", "x", data=b""
    )
    assert status == 401


def test_data_survives_a_restart(tmp_path):
    with registries.open_registry(tmp_path) as registry:
        pinned = apps.publish(registry, "hub.demo.test/f/shop:1", {"web": images.multi_platform()})
    with registries.open_registry(tmp_path) as registry:
        repo, digest = images.split_reference(pinned)
        status, _, body = images.send(
            registry, "GET", f"/v2/{repo}/manifests/{digest}", repo, headers={"Accept": images.MANIFEST}
        )
    assert status == 200
    assert json.loads(body)["artifactType"] == apps.ARTIFACT_TYPE


def test_two_registries_run_side_by_side(tmp_path):
    with LocalRegistry(tmp_path / "a") as one, LocalRegistry(tmp_path / "b", host="other.test") as two:
        assert one.url != two.url
        assert one.endpoint == f"hub.demo.test={one.url}"
        assert two.endpoint == f"other.test={two.url}"


def test_users_registry_settings_do_not_reach_it(tmp_path, monkeypatch):
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with LocalRegistry(tmp_path / "a") as registry, urllib.request.urlopen(registry.url + "/v2/") as answer:
        assert answer.status == 200


def test_bad_storage_is_one_sentence(tmp_path):
    with pytest.raises(RegistryError, match="docker-registry ended at once"):
        LocalRegistry(tmp_path / "a", auth={"htpasswd": {"realm": "x"}}).start()


def test_no_registry_outlives_its_killed_parent(tmp_path):
    code = (
        "import sys, time\n"
        "from factory.localregistry import LocalRegistry\n"
        "registry = LocalRegistry(sys.argv[1]).start()\n"
        "print(registry._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True, env=env
    ) as parent:
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    # A pidfd becomes readable when its process has ended.
    ended = select.select([handle], [], [], 30)[0]
    if not ended:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    assert ended, "docker-registry still runs"
