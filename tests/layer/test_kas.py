# SPDX-License-Identifier: MIT
"""The kas files, checked with kas's own schema."""

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
FILES = sorted((TOP / "kas").glob("*.yml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_schema(path):
    schema = json.loads(resources.files("kas").joinpath("schema-kas.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_base_has_the_layers_that_ours_depends_on():
    base = yaml.safe_load((TOP / "kas" / "base.yml").read_text())
    assert {"bitbake", "openembedded-core", "meta-openembedded", "meta-virtualization", "meta-composeapps"} == set(
        base["repos"])
    layer = TOP / "meta-composeapps" / "conf" / "layer.conf"
    assert f'LAYERSERIES_COMPAT_composeapps = "{base["defaults"]["repos"]["branch"]}"' in layer.read_text()


def test_each_machine_is_one_fragment():
    machines = [yaml.safe_load(path.read_text()).get("machine") for path in FILES]
    assert {machine for machine in machines if machine} == {"qemux86-64", "qemuarm64"}
