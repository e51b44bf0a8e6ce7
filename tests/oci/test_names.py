# SPDX-License-Identifier: MIT
"""Names of apps: a value with one grammar, checked where it enters, never a path."""

import pytest

from composeapps.cli.main import main
from composeapps.errors import UsageError
from composeapps.oci.names import MAX_NAME, AppName, from_file_stem
from composeapps.oci.reference import parse
from composeapps.records.state import AppState, StateDirectory
from composeapps.store.store import Store

HEX = "0123456789abcdef" * 4
NO_NAMES = ["", "/", ".", "..", "../x", "x/..", "web/", "/etc", "a//b", ".hidden", "team/.hid", "-v", "a\0b", "a\nb",
            "a\x1b[2Jb", "Web", "a b", "a%2fb", "naïve", "a\udcffb", "*", "a*", "~", "$HOME", "a:b", "a@b", "a\\b",
            "x" * (MAX_NAME + 1), "a/" * 80 + "a", f"team/{HEX}", "__a", "a.", "a..b", "a___b"]
NAMES = ["web", "team/shop", "a.b", "a_b", "a__b", "a---b", "0", "x" * MAX_NAME, "a/b/c", HEX[:63]]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_is_refused_in_one_clean_sentence(text):
    with pytest.raises(UsageError) as refused:
        AppName(text)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300
    assert from_file_stem(text) is None


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_its_text_and_has_components(text, tmp_path):
    name = AppName(text)
    assert name == text and "/".join(name.components) == text and AppName(name) is name
    assert "/" not in name.file_stem and from_file_stem(name.file_stem) == name
    assert name.below(tmp_path).is_relative_to(tmp_path) and name.below(tmp_path) != tmp_path


def test_a_reference_gives_a_name_or_says_why_not():
    assert parse("hub.example.com/factory/team/shop:1").app_name == "team/shop"
    assert isinstance(parse("hub.example.com/factory/web").app_name, AppName)
    with pytest.raises(UsageError, match="digest"):
        _ = parse(f"hub.example.com/factory/web/{HEX}").app_name


def test_one_app_lies_in_another():
    assert AppName("team").holds(AppName("team/shop")) and not AppName("team").holds(AppName("teams/shop"))
    assert not AppName("team").holds(AppName("team"))


def test_listings_leave_out_what_no_app_is_called(tmp_path):
    states, store = StateDirectory(tmp_path / "state"), Store(tmp_path / "store")
    states.put("team/shop", AppState("x"))
    for odd in ("..%2Fx", "Web", "%00", "a%0ab", "team%2fshop"):
        (tmp_path / "state/apps" / f"{odd}.json").write_text("{}")
        (tmp_path / "state/updates").mkdir(exist_ok=True)
        (tmp_path / "state/updates" / f"{odd}.json").write_text('{"app": "../x", "target": "x", "step": "fetching"}')
    assert states.names() == ["team/shop"]
    for place in ("web", "Web", ".hidden", "team/shop"):
        (tmp_path / "store/apps" / place / HEX).mkdir(parents=True)
    assert [str(name) for name, _hex, _path in store.app_directories()] == ["team/shop", "web"]


@pytest.mark.parametrize("command", ("rm", "rm --volumes", "stop", "run", "install", "ps", "rollback", "status"))
def test_no_command_takes_a_path_for_a_name(command, tmp_path, capsys):
    victim = tmp_path / "compose" / "web" / "data"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    (tmp_path / "x").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'[pacman]\nreset_apps_root = "{tmp_path}/store"\ncompose_apps_root = "{tmp_path}/compose"\n'
                      f'[composeapps]\nstate_dir = "{tmp_path}/state"\ndocker_host = "unix://{tmp_path}/none"\n')
    for text in ("", "/", ".", "../x", "web/", "web/data", str(victim), "a\0b", "x" * 5000):
        assert main(["--config", str(config), *command.split(), text]) in (2, 3), text
        assert "Traceback" not in capsys.readouterr().err
    assert victim.read_text() == "mine" and (tmp_path / "x").is_dir()
