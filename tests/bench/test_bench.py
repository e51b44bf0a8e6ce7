# SPDX-License-Identifier: MIT
"""The benchmarks' own instruments: what they count, what they compare, and what their command says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import BENCHMARKS, BESIDE, command, sample, scale
from bench.disk import allocated, disk
from bench.figures import Figure, Run, compare, table
from composeapps.errors import NotFoundError
from fastlane.progress import Progress

TOP = Path(__file__).resolve().parents[2]
MB = 1000 * 1000
SMALL = (MB, MB // 2)


@pytest.mark.root
def test_a_disk_counts_what_is_written_to_it_and_leaves_nothing(tmp_path):
    scratch, mounted = tmp_path / "scratch", tmp_path / "mounted"
    scratch.mkdir()
    with disk(scratch, mounted, 200 * MB) as place:
        before = place.written()
        (mounted / "file").write_bytes(os.urandom(20 * MB))
        os.sync()
        assert 20 * MB <= place.written() - before < 21 * MB
        assert 20 * MB <= allocated([mounted]) < 20.2 * MB
        device = place.device
    assert list(scratch.iterdir()) == [] and list(mounted.iterdir()) == []
    assert str(scratch) not in subprocess.run(["losetup", device], capture_output=True, text=True, check=False).stdout


@pytest.mark.root
def test_with_eager_writeback_a_file_counts_that_does_not_last(tmp_path):
    with disk(tmp_path, tmp_path / "mounted", 400 * MB) as place:
        settings = Path("/sys/class/bdi", Path("/sys/block", Path(place.device).name, "dev").read_text().strip())
        kept = {name: (settings / name).read_text() for name in ("strict_limit", "max_ratio_fine")}
        before = place.written()
        with place.eager_writeback():
            for _ in range(2):
                (place.root / "file").write_bytes(os.urandom(100 * MB))
                (place.root / "file").unlink()
        assert place.written() - before > 100 * MB
        assert {name: (settings / name).read_text() for name in kept} == kept


@pytest.mark.root
def test_a_failure_leaves_no_disk(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(NotFoundError), disk(scratch, tmp_path / "mounted", 20 * MB):
        raise NotFoundError("no such image")
    assert list(scratch.iterdir()) == []


def test_variants_are_measured_in_turns(tmp_path):
    order = []
    run = Run(3, tmp_path, tmp_path, Progress(quiet=True))
    results = run.in_turns(a=lambda: order.append("a") or 1, b=lambda: order.append("b") or 2)
    assert order == ["a", "b", "b", "a", "a", "b"] and results == {"a": [1, 1, 1], "b": [2, 2, 2]}


def test_a_bar_is_for_the_ratio_of_the_medians():
    figure = compare("load", "s", {"new": [9.0, 1.0, 2.0], "old": [2.0, 2.0, 40.0]}, "new", "old", 1.05)
    assert (figure.value, figure.reference, figure.ratio, figure.met) == (2.0, 2.0, 1.0, True)
    assert compare("load", "s", {"new": [2.2], "old": [2.0]}, "new", "old", 1.05).met is False
    assert Figure("memory", 41, "MiB", bar=40).met is False
    head, *rows = table([("x", figure), ("y", Figure("memory", 41, "MiB", bar=40))])
    assert head.startswith("BENCHMARK") and rows[0].endswith("yes") and rows[1].endswith("NO")


def test_the_sample_is_the_same_wherever_it_is_made(tmp_path):
    digests = []
    for name in ("one", "two"):
        _, image = sample.image(tmp_path / name, Progress(quiet=True), layers=SMALL)
        digests.append(image.ref.digest)
        layers = image.variants[0].document.layers
        assert len(layers) == 2 and 0.4 * MB < sum(layer.size for layer in layers) < 1.3 * MB
    assert digests[0] == digests[1]
    store, image = sample.image(tmp_path / "one", Progress(quiet=True), layers=SMALL)
    assert all(store.verify(layer.digest, layer.size) is None for layer in image.variants[0].document.layers)


def test_the_command_lists_what_there_is_and_refuses_what_there_is_not(capsys):
    assert command.main(["--list"], "unused") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*BENCHMARKS, *BESIDE]
    for argv in (["nothing"], ["--rounds", "0"], ["beside-pull"], ["--composectl", "/nowhere"]):
        with pytest.raises(SystemExit) as ended:
            command.main(argv, "unused")
        assert ended.value.code == 2


def test_figures_decide_the_exit_status_only_when_asked(tmp_path, monkeypatch, capsys):
    def bad(run):
        yield Figure("load", 2, "s", "before", 1, 1.05)

    monkeypatch.setenv(command.INSIDE, "1")
    monkeypatch.setattr(command, "BENCHMARKS", {"bad": ("figures", "bad", "a bad one")})
    monkeypatch.setattr("bench.figures.bad", bad, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert command.main([], tmp_path) == 0
    assert command.main(["--check", "--json", str(tmp_path / "out.json")], tmp_path) == 1
    assert "NO" in capsys.readouterr().out
    (figure,) = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert (figure["benchmark"], figure["ratio"], figure["met"]) == ("bad", 2, False)
    assert command.main(["--json"], tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 5


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_an_exponent_is_found_above_what_a_command_costs_in_any_case(power):
    sizes = (10, 20, 40, 80)
    assert scale.exponent(sizes, [5 + 0.01 * size ** power for size in sizes]) == pytest.approx(power, abs=0.01)
    assert scale.exponent(sizes, [5, 5.01, 5, 5.02]) == 0 and scale.exponent(sizes, [5, 5.5, 5.2, 5.1]) == 0


def test_help_needs_no_setup():
    done = subprocess.run([sys.executable, TOP / "scripts" / "bench", "--help"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and "Examples:" in done.stdout
