# SPDX-License-Identifier: MIT
"""What a command says of a name that is nobody's, or no name: usage or not found, and advice that helps."""

import pytest

from composeapps.cli.main import main
from composeapps.records import history
from composeapps.records.state import StateDirectory

DIGEST = "@sha256:" + "ab" * 32


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command on an empty device; return (exit status, what was said)."""
    def command(*words):
        capsys.readouterr()
        status = main(["--state-dir", str(tmp_path / "state"), "--store", str(tmp_path / "store"), *words])
        return status, "".join(capsys.readouterr())

    return command


@pytest.mark.parametrize("words", [["update", "fetch", "web"], ["allow", "web"], ["allow", "factory/web"],
                                   ["prune", "--keep", "web"], ["pull", "web"], ["update", "web"]])
def test_a_name_alone_is_no_version_and_nobody_is_sent_to_docker_hub(run, words, tmp_path):
    (tmp_path / "store").mkdir()
    status, said = run(*words)
    assert status == 2 and "HOST/PATH@sha256:…" in said and "docker.io" not in said


@pytest.mark.parametrize("words", [["inspect", "h:99999/x"], ["update", f"h:99999/x{DIGEST}"],
                                   ["pull", f"h:0/x{DIGEST}"], ["allow", f"h:70000/x{DIGEST}"]])
def test_a_port_that_there_is_not_is_wrong_usage(run, words):
    status, said = run(*words)
    assert status == 2 and "is not a number from 1 to 65535" in said


def test_history_of_an_app_of_which_nothing_is_known_is_not_found(run, tmp_path):
    states = StateDirectory(tmp_path / "state")
    assert run("history") == (0, "TIME  APP  ACTION  RESULT  FROM  TO  REASON\n")
    status, said = run("history", "web")
    assert status == 3 and "'web'" in said and "none" in said
    history.append(states, {"app": "shop", "action": "update", "result": "committed"})
    status, said = run("history", "web")
    assert status == 3 and "apps with a history: shop" in said
    assert run("history", "shop")[0] == 0
