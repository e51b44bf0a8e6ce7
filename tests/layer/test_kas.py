# SPDX-License-Identifier: MIT
"""The kas files: their schema, one axis each, pinned revisions, and every combination loads."""

import argparse
import itertools
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml
from kas.context import create_global_context
from kas.includehandler import IncludeHandler

TOP = Path(__file__).resolve().parents[2]
KAS = TOP / "kas"
LOCKS = sorted(KAS.glob("*.lock.yml"))
FILES = sorted(set(KAS.glob("*.yml")) - set(LOCKS))
DOCUMENTS = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
MACHINES = sorted(name for name, document in DOCUMENTS.items() if "machine" in document)
OPTIONS = sorted(set(DOCUMENTS) - set(MACHINES) - {"base"})

# What each layer that ours depends on, or that a fragment adds, is called in BBFILE_COLLECTIONS.
COLLECTIONS = {"core": "openembedded-core/meta", "virtualization-layer": "meta-virtualization/."}


@pytest.fixture(autouse=True, scope="module")
def _context():
    """What kas asks for its settings; the command line makes it before it reads a file."""
    create_global_context(argparse.Namespace(no_color=True))


def load(*names):
    """Return what kas makes of the joined files, with the lock file's overrides in it."""
    config, missing = IncludeHandler([str(KAS / f"{name}.yml") for name in names]).get_config()
    assert missing == []
    return config


def layers(config):
    return {f"{repo}/{layer}" for repo, value in config["repos"].items()
            for layer, state in (value.get("layers") or {}).items() if state != "disabled"}


@pytest.mark.parametrize("path", [*FILES, *LOCKS], ids=lambda path: path.name)
def test_schema(path):
    schema = json.loads(resources.files("kas").joinpath("schema-kas.json").read_text())
    document = yaml.safe_load(path.read_text())
    jsonschema.validate(document, schema)
    # 20 is what kas 5.4, the oldest that is supported, surely knows.
    assert document["header"]["version"] <= 20


def test_the_machines_and_options_that_the_readme_promises():
    assert MACHINES == ["intel-corei7-64", "qemuarm64", "qemux86-64", "raspberrypi4-64"]
    assert OPTIONS == ["lmp", "mirror-only", "preload", "read-only-root", "sstate", "testimage"]


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_nothing_else(name):
    document = DOCUMENTS[name]
    assert document["machine"] == name
    assert not {"distro", "target", "env"} & set(document)
    assert "DISTRO" not in json.dumps(document) and "WKS_FILE" not in json.dumps(document)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_of_no_machine(name):
    document = DOCUMENTS[name]
    assert "machine" not in document and "target" not in document
    assert ("distro" in document) == (name == "lmp")


def test_no_two_files_use_one_header_name():
    # kas joins by key: a second header of the same name would replace the first.
    names = [header for document in DOCUMENTS.values() for header in document.get("local_conf_header", {})]
    assert len(names) == len(set(names))


def test_base_has_the_layers_that_ours_depends_on():
    text = (TOP / "meta-composeapps" / "conf" / "layer.conf").read_text()
    depends = re.search(r'^LAYERDEPENDS_composeapps = "([^"]*)"', text, re.MULTILINE)[1].split()
    assert {COLLECTIONS[name] for name in depends} <= layers(load("base", "qemux86-64"))
    assert f'LAYERSERIES_COMPAT_composeapps = "{DOCUMENTS["base"]["defaults"]["repos"]["branch"]}"' in text
    assert "meta-composeapps/meta-composeapps" in layers(load("base", "qemux86-64"))


def test_base_enables_the_layer():
    header = DOCUMENTS["base"]["local_conf_header"]["composeapps"]
    features = re.search(r'^DISTRO_FEATURES:append = " ([^"]*)"', header, re.MULTILINE)[1].split()
    assert {"composeapps", "virtualization"} <= set(features)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_combination_loads_and_is_pinned(machine):
    for options in [*itertools.combinations(OPTIONS, 0), *itertools.combinations(OPTIONS, 1),
                    *itertools.combinations(OPTIONS, 2), tuple(OPTIONS)]:
        config = load("base", machine, *options)
        assert config["machine"] == machine
        assert config["distro"] == ("lmp" if "lmp" in options else "nodistro")
        headers = {name for file in ("base", machine, *options)
                   for name in DOCUMENTS[file].get("local_conf_header", {})}
        assert set(config["local_conf_header"]) == headers
        pinned = config["overrides"]["repos"]
        for name, repo in config["repos"].items():
            if "url" in repo:
                commit = pinned.get(name, {}).get("commit") or repo.get("commit")
                assert commit and re.fullmatch("[0-9a-f]{40}", commit), f"{name} is not pinned"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_nothing_that_is_gone(lock):
    named = {name for document in DOCUMENTS.values() for name in document.get("repos", {})}
    assert set(yaml.safe_load(lock.read_text())["overrides"]["repos"]) <= named
    # kas reads the lock file of each file that it is given.
    assert lock.name.removesuffix(".lock.yml") in DOCUMENTS


def test_lmp_has_the_revisions_of_its_own_manifest():
    # Its appends name versions of recipes in openembedded-core and meta-openembedded.
    pinned = yaml.safe_load((KAS / "lmp.lock.yml").read_text())["overrides"]["repos"]
    assert {"bitbake", "meta-lmp", "meta-openembedded", "meta-updater", "meta-virtualization",
            "openembedded-core"} <= set(pinned)
    for machine in MACHINES:
        assert load("base", machine, "lmp")["overrides"]["repos"]["openembedded-core"] == pinned["openembedded-core"]


def test_lmp_has_the_layers_that_its_own_depend_on():
    assert {"meta-lmp/meta-lmp-base", "meta-lmp/meta-lmp-bsp", "meta-updater/.", "meta-security/.",
            "meta-security/meta-integrity", "meta-security/meta-tpm", "meta-openembedded/meta-perl",
            "meta-openembedded/meta-oe"} <= layers(load("base", "intel-corei7-64", "lmp"))


def test_every_source_of_a_layer_is_public():
    for document in DOCUMENTS.values():
        for repo in document.get("repos", {}).values():
            if "url" in repo:
                assert re.match(r"https://(git\.openembedded\.org|git\.yoctoproject\.org|github\.com)/", repo["url"])


def test_preload_names_the_described_apps_that_run_on_each_machine():
    described = {path.stem for path in (TOP / "conf" / "apps").glob("*.yml")
                 if "platforms" not in yaml.safe_load(path.read_text())}
    assert described and set(DOCUMENTS["preload"]["env"]["COMPOSEAPPS_PRELOAD"].split()) == described


def test_kas_itself_takes_the_files_without_a_warning(tmp_path):
    # Cloning is left out: what is asked for here is how kas reads the files.
    skipped = ["repo_setup_loop", "finish_setup_repos", "repos_checkout"]
    done = subprocess.run(
        [sys.executable, "-m", "kas", "dump", *itertools.chain(*(["--skip", step] for step in skipped)),
         "kas/base.yml:kas/raspberrypi4-64.yml:kas/preload.yml"],
        cwd=TOP, env={"PATH": "/usr/bin:/bin", "KAS_WORK_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr
    assert yaml.safe_load(done.stdout)["machine"] == "raspberrypi4-64"
