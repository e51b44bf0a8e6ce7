# SPDX-License-Identifier: MIT
"""Which services a start brings up is one answer, from the compose file and the .env beside it."""

import json

import pytest

from composeapps.app import compose
from composeapps.installed import expected

HASH = "0" * 64


def _service(**keys):
    value = {"services": {"a": {"image": f"hub.demo.test/f/a@sha256:{HASH}", **keys}}}
    return compose.services(json.dumps(value).encode(), "the test's")[0]


@pytest.mark.parametrize("keys, text, count", [
    ({}, "", 1), ({"scale": 0}, "", 0), ({"scale": 3}, "", 3), ({"deploy": {"replicas": 2}}, "", 2),
    ({"deploy": {"replicas": 0}}, "", 0), ({"scale": 1, "deploy": {"replicas": 1}}, "", 1),
    ({"scale": "${N:-2}"}, "", 2), ({"scale": "${N:-2}"}, "N=4", 4), ({"deploy": {"replicas": "$N"}}, "N='0'", 0),
    ({"deploy": {"replicas": "${N}"}}, "", 1), ({"scale": "many"}, "", 1), ({"scale": True}, "", 1),
    ({"deploy": None}, "", 1), ({"deploy": []}, "", 1), ({"scale": "9" * 5000}, "", 1),
    ({"profiles": ["full"]}, "", 0), ({"profiles": []}, "", 1), ({"profiles": ["full"]}, "COMPOSE_PROFILES=full", 1),
    ({"profiles": ["full"]}, "COMPOSE_PROFILES=\"lean, full\" # all", 1),
    ({"profiles": ["full"]}, "COMPOSE_PROFILES=*", 1),
    ({"profiles": ["full"]}, "COMPOSE_PROFILES=fuller", 0), ({"profiles": ["full"]}, "COMPOSE_PROFILES=", 0),
    ({"profiles": ["full"]}, "P=full\nCOMPOSE_PROFILES=a,${P}", 1),
    ({"profiles": ["full"], "scale": 2}, "COMPOSE_PROFILES=full", 2),
    ({"profiles": ["full"], "scale": 0}, "COMPOSE_PROFILES=full", 0), ({"profiles": ["x"]}, "COMPOSE_PROFILES='x", 0),
])
def test_a_start_brings_up_so_many(keys, text, count):
    assert expected.count(_service(**keys), expected.environment(text)) == count


def test_the_callers_environment_turns_nothing_on(monkeypatch):
    monkeypatch.setenv("COMPOSE_PROFILES", "full")
    monkeypatch.setenv("N", "5")
    variables = expected.environment("")
    assert expected.count(_service(profiles=["full"]), variables) == 0
    assert expected.count(_service(scale="${N:-1}"), variables) == 1


def test_the_file_beside_the_compose_file_counts_and_no_other(tmp_path):
    assert "A" not in expected.environment_in(tmp_path / "absent")
    (tmp_path / ".env").write_text("A=1\n")
    assert expected.environment_in(tmp_path)["A"] == "1"
    (tmp_path / "elsewhere").write_text("A=2\n")
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").symlink_to("elsewhere")
    assert "A" not in expected.environment_in(tmp_path), "a container may have made the link"
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").write_bytes(b"A=1\n" + b"#" * expected.LARGEST)
    assert "A" not in expected.environment_in(tmp_path)


def _container(status="running", code=0, policy="", version=HASH):
    return {"State": {"Status": status, "Running": status == "running", "ExitCode": code},
            "HostConfig": {"RestartPolicy": {"Name": policy}}, "Config": {"Labels": {compose.CONFIG_HASH: version}}}


def test_of_what_no_start_brings_up_counts_what_runs_or_is_of_this_version():
    variables = expected.environment("")
    mine = _service(profiles=["debug"], labels={compose.CONFIG_HASH: HASH})
    running, ours, old = _container(version="1"), _container("exited", 1), _container("exited", 1, version="1")
    assert expected.counted(mine, [running, ours, old], variables) == ([running, ours], 0)
    assert expected.counted(_service(), [old], variables) == ([old], 1)


@pytest.mark.parametrize("container, finished", [
    (_container("exited"), True), (_container("exited", policy="on-failure"), True),
    (_container("exited", policy="no"), True),
    (_container("exited", 1), False), (_container("exited", policy="always"), False),
    (_container("exited", policy="unless-stopped"), False), (_container(), False), (_container("created"), False),
])
def test_what_ended_well_and_may_rest_is_finished(container, finished):
    assert expected.is_finished(container) is finished


@pytest.mark.parametrize("text, seconds", [
    ("10s", 10), ("1m30s", 90), ("1h", 3600), ("1.5m", 90), ("100ms", 0.1), ("${T:-20s}", 20), (None, 0), ("soon", 0),
    ("10", 0), ("s", 0), ("9999999h", 86400), ("1m" * 100, 3000), (["1s"], 0),
])
def test_durations(text, seconds):
    assert expected.seconds(text, {}) == pytest.approx(seconds)
