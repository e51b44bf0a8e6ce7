# SPDX-License-Identifier: MIT
"""Figures for Prometheus: of a form that it reads, and written so that its collector never sees half of them."""

import re

import pytest

from composeapps.cli.main import main
from composeapps.delivery import metrics
from composeapps.records import history, lock, rejection, reports
from composeapps.records.state import StateDirectory

LINE = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)+\})? [0-9.e+-]+')


@pytest.fixture
def render(config, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    return lambda: metrics.render(config)


def test_every_line_is_one_that_prometheus_reads(render, config):
    states = StateDirectory(config.state_dir)
    uri = "hub.test/factory/shop@sha256:" + "a" * 64
    rejection.reject(states, uri, 'a "reason"\nin lines', 3)
    history.append(states, {"app": "shop", "action": "update", "target": uri, "result": "failed", "reason": "x"})
    reports.append(config.state_dir, reports.event(reports.APPLIED, "c1"))
    text = render()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert text.endswith("\n") and all(LINE.fullmatch(line) for line in lines), text
    names = {re.match("[a-z_]+", line)[0] for line in lines}
    assert {f"composeapps_{name}" for name in (
        "ok", "info", "failures", "events_waiting", "checkin_failures", "certificate_end_timestamp_seconds")} <= names
    assert "composeapps_events_waiting 1\n" in text and f'composeapps_failures{{uri="{uri}"}} 3\n' in text
    for name in names:
        assert text.count(f"# TYPE {name} gauge\n") == 1
    assert metrics._escaped('a"b\\c\nd') == 'a\\"b\\\\c\\nd'


def test_without_a_server_nothing_is_told_of_check_ins(config, tmp_path):
    text = metrics.render(config._replace(server=""))
    assert "checkin" not in text and "composeapps_ok " in text


def test_the_file_is_replaced_as_a_whole(tmp_path, capsys):
    words = ("metrics", "--state-dir", str(tmp_path / "state"), "--store", str(tmp_path / "store"), "--docker-host",
             f"unix://{tmp_path}/none")
    target = tmp_path / "out" / "composeapps.prom"
    assert main([*words, "--textfile", str(target)]) == 7
    target.parent.mkdir()
    assert main([*words, "--textfile", str(target)]) == 0
    assert "composeapps_ok" in target.read_text() and [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.stat().st_mode & 0o777 == 0o644
    assert main([*words, "--textfile", str(tmp_path / "out" / "text")]) == 2
    assert "end in .prom" in capsys.readouterr().err
