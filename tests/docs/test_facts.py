# SPDX-License-Identifier: MIT
"""Facts that pages state and other files know: packages of the build host, layers, features, kernel options, paths."""

import json
import re
import subprocess
import sys

import pytest
import yaml

import hostsetup
from composeapps.cli.main import COMMANDS, FACTORY_COMMANDS
from emulator.machine import Machine
from support.pages import TOP, page

DOCS = TOP / "meta-composeapps" / "docs"
LAYER = TOP / "meta-composeapps"


def blocks(name, anchor, language):
    """Return the texts of the blocks below a heading of a page."""
    found = page(DOCS / name)
    text = found.section(anchor)
    return [block.text for block in found.blocks if block.language == language and block.text.strip() in text]


def test_packages_of_the_build_host():
    line, = blocks("building.md", "the-build-host", "sh")
    assert set(line.split()[2:]) == set(hostsetup.FEATURES["bitbake"].values())


def test_layers_are_those_of_kas():
    shown, = blocks("integration.md", "layers", "bitbake")
    layers = {path.removeprefix("${TOPDIR}/../") for path in re.findall(r"\$\{TOPDIR\}\S+", shown)}
    repos = yaml.safe_load((TOP / "kas" / "base.yml").read_text())["repos"]
    known = {f"{repo}/{layer}".removesuffix("/.") for repo, value in repos.items()
             for layer, state in value["layers"].items() if state != "disabled"}
    assert layers == known


def test_features_are_those_of_kas():
    shown, = blocks("integration.md", "distribution-features", "bitbake")
    header = yaml.safe_load((TOP / "kas" / "base.yml").read_text())["local_conf_header"]["composeapps"]
    assert set(shown.splitlines()) <= set(header.splitlines())


def test_paths_are_those_of_the_layer():
    recipes = (LAYER / "classes-recipe" / "composeapps-paths.bbclass").read_text()
    variables = {"localstatedir": "/var", "datadir": "/usr/share"}
    for name, value in re.findall(r'^(\w+) \?= "([^"]+)"', recipes, re.M):
        variables[name] = re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], value)
    rows = re.findall(r"^\| `(/\S+)` \|.*\| `(COMPOSEAPPS_\w+)` \|$", page(DOCS / "device.md").section(
        "where-things-lie"), re.M)
    assert len(rows) == 5 and {name: path for path, name in rows}.items() <= variables.items()


def test_partitions_are_those_of_the_disk():
    wks = (LAYER / "files" / "wic" / "composeapps-disk.wks.in").read_text()
    rows = re.findall(r"^\| (\w+) \| (?:`|nowhere)", page(DOCS / "device.md").section("the-disk"), re.M)
    assert rows == re.findall(r"--part-name (\w+)", wks)


def test_units_are_those_of_the_layer():
    rows = re.findall(r"^\| `(\S+\.service)` \|", page(DOCS / "device.md").section("at-boot"), re.M)
    there = {path.name for path in (LAYER / "recipes-composeapps").rglob("*.service")}
    assert there == set(rows) - {"docker.service"}


@pytest.mark.root
@pytest.mark.slow
def test_kernel_options_are_on_in_the_kernel_that_the_tests_boot():
    """A misspelt option, or one that is gone from kernels, would be in no kernel's configuration."""
    done = subprocess.run([sys.executable, TOP / "scripts" / "build-image", "--base-only", "--json", "--quiet"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    configuration, = (TOP / json.loads(done.stdout)["base_tree"] / "boot").glob("config-*")
    on = set(re.findall(r"^(CONFIG_\w+)=[ym]$", configuration.read_text(), re.M))
    section = page(DOCS / "integration.md").section("kernel-options")
    # That one came with Linux 6.17, which the base does not have yet.
    assert set(re.findall(r"CONFIG_\w+", section)) - on == {"CONFIG_NETFILTER_XTABLES_LEGACY"}


def test_commands_are_the_agents():
    named = set(re.findall(r"`composeapps ([\w-]+)", page(DOCS / "device.md").section("commands")))
    assert named == {each for each in COMMANDS if each not in FACTORY_COMMANDS}


def test_what_the_emulators_machine_can_do():
    table = page(DOCS / "qa.md").section("4-a-test-that-cuts-the-power")
    cells = re.findall(r"^\| (`[^|]*`) \|", table, re.M)
    names = {name for cell in cells for name in re.findall(r"`(\w+)", cell) if name != "Machine"}
    assert len(names) == 11 and all(callable(getattr(Machine, name)) for name in names)
