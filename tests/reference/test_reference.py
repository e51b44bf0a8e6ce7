# SPDX-License-Identifier: MIT
"""The reference pages are what the code says, and the code says all of it."""

import ast
import re
import subprocess
import sys

import pytest

import commandlines
from composeapps.cli import config, environment, main
from composeapps.cli.config import Config
from composeapps.registry import settings as registries
from reference import command, layer, pages, schema
from support.pages import TOP

LAYER = TOP / "meta-composeapps"
REFERENCE = LAYER / "docs" / "reference"
# Variables that processes of this project hand to each other, and those that every program has.
INTERNAL = {"COMPOSEAPPS_CALLER", "COMPOSEAPPS_DEMO_STARTED", "COMPOSEAPPS_IN_NAMESPACE", "JOURNAL_STREAM",
            "HOME", "PATH", "PYTHONHASHSEED", "PYTHONPYCACHEPREFIX", "TERM", "TMPDIR", "KILL_AT", "KAS_WORK_DIR",
            "GIT_TERMINAL_PROMPT", "DOCKER_HOST", "COMPOSE_APPS_PROXY"}


@pytest.fixture(scope="module")
def rendered():
    return pages.render(TOP)


def test_the_pages_are_what_the_code_says(rendered):
    there = {path.name: path.read_text() for path in REFERENCE.iterdir()}
    for name in sorted({*there, *rendered}):
        assert there.get(name) == rendered.get(name), f"{name} differs from the code: run scripts/docs"


def test_the_command_says_the_same():
    done = subprocess.run([sys.executable, TOP / "scripts" / "docs", "--check"], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_page_that_differs_is_told_and_written_anew(tmp_path, capsys):
    wanted, check, write = {"a.md": "new\n", "b.md": "same\n"}, *map(command.parse, (["--check"], []))
    (tmp_path / "b.md").write_text("same\n")
    (tmp_path / "a.md").write_text("old\n")
    (tmp_path / "gone.md").write_text("x\n")
    before = (tmp_path / "b.md").stat().st_mtime_ns
    assert command._run(check, tmp_path, wanted) == 1
    said = capsys.readouterr()
    assert "-old\n+new\n" in said.out and "a.md, gone.md differ" in said.err
    assert command._run(write, tmp_path, wanted) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == wanted
    assert (tmp_path / "b.md").stat().st_mtime_ns == before
    assert command._run(check, tmp_path, wanted) == 0


@pytest.mark.parametrize("part", ["command", "option", "key", "registry key", "status", "variable"])
def test_a_part_that_is_taken_out_of_the_code_is_missed(part, rendered, monkeypatch, tmp_path):
    """Each of the pages depends on what it is about: none of it is written by hand."""
    if part == "command":
        monkeypatch.delitem(main.COMMANDS, "history")
        page, gone = "commands.md", "## composeapps history"
    elif part == "option":
        monkeypatch.setattr(main, "_COMMON", {name: each for name, each in main._COMMON.items() if name != "--store"})
        page, gone = "commands.md", "--store DIR"
    elif part == "key":
        monkeypatch.setattr(config, "KEYS", [key for key in config.KEYS if key.name != "soak_time"])
        page, gone = "settings.md", "| `soak_time` |"
    elif part == "registry key":
        monkeypatch.setattr(registries, "KEYS", [key for key in registries.KEYS if key.name != "mirrors"])
        page, gone = "config.example.toml", "mirrors ="
    elif part == "status":
        monkeypatch.delitem(pages.statuses.STATUSES, 11)
        parser_of = pages._parser
        monkeypatch.setattr(pages, "_parser", lambda name: parser_of("ls" if name == "fsck" else name))
        page, gone = "exit-status.md", "\n| 11 |"
    else:
        monkeypatch.delitem(environment.VARIABLES, "KAS_PREMIRRORS")
        monkeypatch.setattr(environment, "explained", lambda names: {})
        page, gone = "environment.md", "KAS_PREMIRRORS"
    assert gone in rendered[page] and gone not in pages.render(TOP)[page]


def test_the_example_is_read_and_has_every_key():
    found = config.load(REFERENCE / "config.example.toml")
    text = (REFERENCE / "config.example.toml").read_text()
    for key in (*config.KEYS, *registries.KEYS):
        assert re.search(rf"^{key.name} = ", text, re.MULTILINE), key.name
    where, defaults = {"store", "compose_root", "factory_file", "factory_store", "state_dir", "identity_dir",
                       "docker_host", "root_dir"}, Config()
    same = {key.field for key in config.KEYS if getattr(found, key.field) == getattr(defaults, key.field)}
    assert same == where
    (settings,) = found.registries.values()
    assert all(settings)
    assert f"```toml\n{text}```" in (REFERENCE / "settings.md").read_text()


def test_every_field_can_be_set():
    assert [key.field for key in registries.KEYS] == list(registries.RegistrySettings._fields)
    assert {key.field for key in config.KEYS} | {"registries"} == set(Config._fields)


def test_every_variable_of_the_layer_is_described_or_its_own():
    described = {each.name for _heading, variables in layer.documented(LAYER) for each in variables}
    used = layer.used(LAYER)
    assert len(used) > 20
    unknown = {name: files for name, files in used.items() if name not in described | layer.own(LAYER)}
    assert not unknown, "describe them in conf/composeapps-documentation.conf"
    for _heading, variables in layer.documented(LAYER):
        for each in variables:
            assert not re.search(r"Default: ", each.text) or not each.defaults or "when" in each.text, (
                f"the default of {each.name} stands in {each.defaults[0][1]}")


def _names_read(path):
    """Return the environment variables that a source file reads by name."""
    tree = ast.parse(path.read_text())
    constants = {target.id: node.value.value for node in ast.walk(tree) if isinstance(node, ast.Assign)
                 and isinstance(node.value, ast.Constant) for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        where = name = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in ("get", "setdefault", "getenv", "pop"):
                where, name = node.func.value, node.args[0]
        elif isinstance(node, ast.Subscript):
            where, name = node.value, node.slice
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            where, name = node.comparators[0], node.left
        if where is None or not re.search(r"\b_?environ$|\bos$", ast.unparse(where)):
            continue
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value
        elif isinstance(name, ast.Name) and isinstance(constants.get(name.id), str):
            yield constants[name.id]


def test_every_environment_variable_is_described():
    files = [*(LAYER / "lib").rglob("*.py"), *(TOP / "scripts").rglob("*.py"), TOP / "scripts" / "demo",
             *(path for room in ("bench", "crash", "fuzz", "kills") for path in (TOP / "tests" / room).rglob("*.py"))]
    parsers = [*map(commandlines.parser, commandlines.SCRIPTS), *map(pages._parser, main.COMMANDS)]
    for name, _text, commands in pages._environment({each.prog: each for each in parsers}):
        assert commands is None or commands, f"{name} is in no command's help"
    described = {name for names in environment.VARIABLES for name in names.split(", ")}
    read = {name: path.name for path in files for name in _names_read(path)}
    assert {"COMPOSEAPPS_ENDPOINTS", "REGISTRY_AUTH_FILE", "COMPOSEAPPS_BUILD", "XDG_CACHE_HOME", "NO_COLOR",
            "COMPOSEAPPS_ACCEL"} <= set(read)
    missing = {name: where for name, where in read.items() if name not in described | INTERNAL
               and not name.endswith("_INSIDE") and name.lower() not in described}
    assert not missing


def test_every_field_of_the_status_document_is_described():
    found = schema.fields(LAYER / "docs" / "status.schema.json")
    assert len(found) > 40
    assert [field.path for field in found if not field.text] == []
    assert all(text for field in found for _value, text in field.values)


def test_links_lead_to_files():
    for path in REFERENCE.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            assert (path.parent / target.replace("%25", "%")).exists(), f"{path.name}: {target}"


def test_tables_are_whole():
    for path in REFERENCE.glob("*.md"):
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        lines = text.splitlines()
        assert sum(line.startswith("|---") for line in lines) >= 1
        for above, line in zip(lines, lines[1:], strict=False):
            if above.startswith("|") and line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", line)), line
