# SPDX-License-Identifier: MIT
"""The page for app developers, from a clone to one's own app: few commands, and they work in a new system."""

import json
import subprocess

import pytest

import hostsetup
from firsthour import command, steps, system
from moby.root import mirror


def test_the_page_leads_to_ones_own_app_in_ten_commands():
    wanted, cleaning = steps.steps()
    commands = [step.command for step in wanted if not step.is_file]
    # And the clone.
    assert 1 + len(commands) <= steps.MOST_COMMANDS
    assert [line.split()[0] for line in commands] == [
        "scripts/registry", "scripts/composeapps", "scripts/gen-recipes", "scripts/build-image", "scripts/run-qemu"]
    assert [step.command for step in cleaning] == ["scripts/registry down"]


def test_a_step_that_fails_ends_the_script_and_is_cleaned_up_after(tmp_path):

    script = steps.script([steps.Step("echo one"), steps.Step("(exit 7)"), steps.Step("echo three")],
                          [steps.Step("echo cleaned")]).replace("git clone --quiet /srv/origin", "mkdir")
    done = subprocess.run(["bash"], input=script, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert "one" in done.stdout and done.stdout.endswith("cleaned\n") and "three" not in done.stdout.split("step 3")[0]


def test_a_suite_that_is_none_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(["sarge"])
    assert end.value.code == 2 and "choose of bookworm, trixie, noble" in capsys.readouterr().err


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suite, who", [("bookworm", "root"), ("trixie", "sudo")])
def test_the_first_commands_work_in_a_new_system(suite, who, capsys):
    """Up to the recipe, each system and each kind of user once; scripts/first-hour does all of it, of all of them."""
    assert who in command.AS
    number = next(n for n, step in enumerate(steps.steps()[0], 2) if step.command.startswith("scripts/gen-recipes"))
    status = command.main([suite, "--as", who, "--until", str(number), "--lend-cache", "--json"], hostsetup.TOP,
                          hostsetup.BUILD)
    out, err = capsys.readouterr()
    assert status == 0, err + (hostsetup.BUILD / "first-hour" / f"{suite}-{who}.log").read_text()
    done, = json.loads(out)
    assert done["commands"][-1].startswith("scripts/gen-recipes --app")


@pytest.mark.root
@pytest.mark.slow
def test_nothing_of_a_run_is_left(tmp_path):
    tree = system.make("trixie", hostsetup.BUILD / "first-hour", mirror(), print)
    (tmp_path / "origin").mkdir()
    heard = []
    status = system.run(tree, tmp_path / "run", tmp_path / "origin", system.USER,
                        "sudo touch /etc/made && id -un && sleep 600 & disown; exit 5", tmp_path / "log", heard.append)
    assert status == 5
    assert not (tree / "etc" / "made").exists() and not (tmp_path / "run").exists()


@pytest.mark.root
@pytest.mark.slow
def test_a_user_is_lent_what_is_built_and_changes_nothing_of_it(tmp_path):
    tree = system.make("trixie", hostsetup.BUILD / "first-hour", mirror(), print)
    (tmp_path / "origin").mkdir()
    made = tmp_path / "lent" / "dockerd-1"
    made.mkdir(parents=True)
    (made / "dockerd").write_text("compiled\n")
    heard = []
    step = steps.Step("cat there/lent/dockerd-1/dockerd && touch there/lent/dockerd-1 there/lent/lock")
    script = steps.script([step], [steps.Step("echo cleaned")], lent="there/lent").replace(
        "git clone --quiet /srv/origin", "mkdir")
    status = system.run(tree, tmp_path / "run", tmp_path / "origin", system.USER, script, tmp_path / "log",
                        heard.append, cache=tmp_path / "lent")
    assert status == 0, heard
    assert "compiled" in heard and [path.name for path in (tmp_path / "lent").iterdir()] == ["dockerd-1"]
