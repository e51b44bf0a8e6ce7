# SPDX-License-Identifier: MIT
"""The examples of two root file systems, conf/ab: kas's reading of them, and that the names in them agree."""

import argparse
import configparser
import json
import re
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml
from kas.context import create_global_context
from kas.includehandler import IncludeHandler

TOP = Path(__file__).resolve().parents[2]
LAYER, EXAMPLES = TOP / "meta-composeapps", TOP / "conf" / "ab"
SLOTS = EXAMPLES / "meta-slots"
WICS = LAYER / "files" / "wic"


def parts(path):
    """Return {partition name: its line of a wks file}."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("part ")]
    return {re.search(r"--part-name (\S+)", line)[1]: line for line in lines}


@pytest.mark.parametrize("name, machine", [("rauc", "raspberrypi4-64"), ("swupdate", "raspberrypi4-64"),
                                           ("mender", "qemux86-64")])
def test_kas_takes_the_files(name, machine):
    create_global_context(argparse.Namespace(no_color=True))
    own = EXAMPLES / f"{name}.yml"
    config, missing = IncludeHandler([str(TOP / "kas" / "base.yml"), str(TOP / "kas" / f"{machine}.yml"),
                                      str(own)]).get_config()
    assert not missing and name in config["local_conf_header"]
    document = yaml.safe_load(own.read_text())
    jsonschema.validate(document, json.loads(resources.files("kas").joinpath("schema-kas.json").read_text()))
    for layer in document["repos"].get("meta-composeapps", {}).get("layers", {}):
        assert (TOP / layer / "conf" / "layer.conf").is_file()
    target = document.get("target", "composeapps-image")
    assert any(path.stem == target for top in (LAYER, SLOTS) for path in top.rglob("*.bb"))


def test_variables_are_the_layers():
    known = (LAYER / "conf" / "composeapps-documentation.conf").read_text()
    for path in EXAMPLES.glob("*.yml"):
        for name in re.findall(r"^ +(COMPOSEAPPS_\w+) ", path.read_text(), re.M):
            assert f"{name}[doc]" in known
        wks = re.search(r'COMPOSEAPPS_WKS_FILE = "(\S+)"', path.read_text())
        assert wks is None or (SLOTS / "files" / "wic" / wks[1]).is_file()


def test_the_disk_without_efi_has_the_same_partitions():
    efi, bsp = parts(WICS / "composeapps-disk.wks.in"), parts(WICS / "composeapps-bsp.wks.in")
    assert list(efi) == list(bsp) == ["boot", "root", "factory", "provision", "data"]
    assert {name: line for name, line in efi.items() if name != "boot"} == {
        name: line for name, line in bsp.items() if name != "boot"}


def test_the_slots_are_the_root_of_that_disk_with_the_factory_store():
    bsp, slots = parts(WICS / "composeapps-bsp.wks.in"), parts(SLOTS / "files" / "wic" / "slots.wks.in")
    assert list(slots) == ["boot", "root.0", "root.1", "provision", "data"]
    assert all(slots[name] == bsp[name] for name in ("boot", "provision", "data"))
    same = bsp["root"].replace(" ${COMPOSEAPPS_FACTORY_PATH}/", "")
    for number, mountpoint in enumerate(("/", "/slot")):
        line = slots[f"root.{number}"].replace(f"root.{number} ", "root ").replace(f"part {mountpoint} ", "part / ", 1)
        for end in ("UUID", "FSUUID"):
            line = re.sub(rf"--{end.lower()} \S+ '[^']+'\)\}}", f"--{end.lower()} ${{COMPOSEAPPS_ROOT_{end}}}", line)
        assert line == same
    # No identifier stands twice.
    given = re.findall(r"--(?:fs)?uuid (\$\{.*?\}) ", " ".join(slots.values()) + " ")
    assert len(given) == len(set(given)) == 9


def test_the_slots_of_both_programs_are_those_partitions():
    rauc = configparser.ConfigParser()
    rauc.read(SLOTS / "recipes-core/rauc/rauc-conf/system.conf")
    devices = {rauc[section]["device"] for section in rauc.sections() if section.startswith("slot.rootfs.")}
    swupdate = (SLOTS / "recipes-images/slots/slots-update/sw-description").read_text()
    assert devices == set(re.findall(r'device = "([^"]+)"', swupdate)) == {
        f"/dev/disk/composeapps/root.{number}" for number in (0, 1)}
    bundle = (SLOTS / "recipes-images/slots/slots-bundle.bb").read_text()
    assert f'"{rauc["system"]["compatible"]}"' in bundle


def test_the_links_are_made_for_every_partition_that_something_mounts_or_writes():
    rule = next((LAYER / "recipes-composeapps").rglob("65-composeapps-disk.rules")).read_text()
    patterns = re.search(r'COMPOSEAPPS_NAME\}!="([^"]+)"', rule)[1].split("|")
    named = {*parts(WICS / "composeapps-bsp.wks.in"), *parts(SLOTS / "files" / "wic" / "slots.wks.in")}
    # That one the table is asked for, by what takes it over.
    for name in named - {"provision"}:
        assert any(Path(name).match(pattern) for pattern in patterns)
