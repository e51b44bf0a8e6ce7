# SPDX-License-Identifier: MIT
"""check-layer --execute without openembedded-core: its stand-ins fit the layer, and its judges judge.

The excerpts of manifests are those of an image that the check built.
"""

import json
import os
import re
import stat
import subprocess
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from layercheck import appfacts, execute, manifests
from layercheck.errors import CheckError
from layercheck.rootimage import RootImage

TOP = Path(__file__).resolve().parents[2]
LAYER = TOP / "meta-composeapps"
STANDINS = TOP / "scripts" / "lib" / "layercheck" / "standins"
CONFIGURATION = (STANDINS / "conf" / "composeapps-execute.conf").read_text()

APP = "hub.demo.test/demo/shellhttpd@sha256:95539910f5b9691290767b8be4080e0bc8e0832af6c1662df88057a97aaad33d"
IMAGE = "hub.demo.test/demo/busybox@sha256:ea503d88ecaf20a9444c68bdfd4bdafbdd0ef7c311af181719f8db67c931875c"
BLOB = "79320b48bd9ce23009db0c3ea10eec403ed4e6de6be7b0be66041de6173b7f2a"
LAYER_BLOB = "6a6cc09ef5cecac6aae2fbee81a75d3ba4ebe253ce358db295a89d983b55bb72"
ARM_BLOB = "efa1742d71d1a5501987103dee909699e73954b99b8255c010e536738efa5f40"
RECIPE = f"""\
LICENSE = "GPL-2.0-only"

inherit composeapp

COMPOSEAPP_NAME = "shellhttpd"
COMPOSEAPP_URI = "{APP}"
COMPOSEAPP_IMAGES = "\\
    {IMAGE} \\
"
COMPOSEAPP_PLATFORMS = "linux/amd64 linux/arm64"

COMPOSEAPP_BLOBS = "\\
    oci://hub.demo.test/demo/shellhttpd;digest=sha256:{BLOB};type=blob;size=827 \\
"
COMPOSEAPP_BLOBS[linux-amd64] = "\\
    oci://hub.demo.test/demo/busybox;digest=sha256:{LAYER_BLOB};type=blob;size=1065526 \\
"
COMPOSEAPP_BLOBS[linux-arm64] = "\\
    oci://hub.demo.test/demo/busybox;digest=sha256:{ARM_BLOB};type=blob;size=1018072 \\
"
"""
LICENCES = f"""\
PACKAGE NAME: composeapp-shellhttpd
PACKAGE VERSION: 1.0
RECIPE NAME: composeapp-shellhttpd
LICENSE: GPL-2.0-only

PACKAGE NAME: run-postinsts
PACKAGE VERSION: 1.0
RECIPE NAME: standin-packages
LICENSE: MIT

APP: {APP}
RECIPE NAME: composeapp-shellhttpd
PLATFORM: linux/amd64
CONTAINER IMAGE: {IMAGE}
LICENSE: GPL-2.0-only

"""


@pytest.fixture
def facts(tmp_path):
    recipe = tmp_path / "composeapp-shellhttpd" / "composeapp-shellhttpd_1.0.bb"
    recipe.parent.mkdir()
    recipe.write_text(RECIPE)
    return appfacts.read(tmp_path, "linux/amd64")


def value(name):
    """Return the words of a variable of the configuration."""
    found = re.findall(rf'^{name} \+?= "((?:[^"\\]|\\\n|\\\.)*)"', CONFIGURATION, re.MULTILINE)
    return " ".join(found).replace("\\\n", " ").split()


def test_kas_takes_the_files():
    schema = json.loads(resources.files("kas").joinpath("schema-kas.json").read_text())
    for name in execute.COMBINATION.files:
        jsonschema.validate(yaml.safe_load((TOP / name).read_text()), schema)
    layers = yaml.safe_load((STANDINS / "execute.yml").read_text())["repos"]["meta-composeapps"]["layers"]
    assert [(TOP / layer / "conf" / "layer.conf").exists() for layer in layers] == [True]


def test_the_mask_leaves_our_recipes_and_the_stand_ins():
    masks = [re.compile(mask) for mask in value("BBMASK")]

    def masked(path):
        return any(mask.search(str(path)) for mask in masks)

    assert masked("/w/openembedded-core/meta/recipes-core/systemd/systemd_259.bb")
    assert masked("/w/build/../meta-openembedded/meta-python/recipes-devtools/python/python3-docker_7.1.0.bb")
    assert masked("/w/meta-virtualization/recipes-containers/docker/docker-moby_git.bb")
    ours = [*LAYER.rglob("recipes-*/*/*.bb"), *STANDINS.rglob("*.bb")]
    assert ours and not [path for path in ours if masked(path)]
    # An append without its recipe would end BitBake.
    appends = list(LAYER.rglob("*.bbappend"))
    assert appends and all(masked(path) for path in appends)


def test_the_image_finds_a_package_for_whatever_our_recipes_need():
    recipes = execute.recipes_of(LAYER)
    there = {*value("STANDIN_PACKAGES"), *recipes}
    needs = re.compile(r'^(?:RDEPENDS:\$\{PN\}|IMAGE_INSTALL) \+?= "((?:[^"\\]|\\\n)*)"', re.MULTILINE)
    missing = {}
    for path in LAYER.glob("recipes-*/*/*.bb"):
        for words in needs.findall(path.read_text()):
            lacking = {word for word in words.replace("\\\n", " ").split() if not word.startswith("$")} - there
            if lacking:
                missing[path.name] = lacking
    assert not missing
    assert {"composeapps", "composeapps-image", "packagegroup-composeapps", "python3-tuf"} <= set(recipes)


def test_facts_are_those_of_one_platform(facts):
    [app] = facts
    assert (app.name, app.uri, app.images, app.license) == ("shellhttpd", APP, (IMAGE,), "GPL-2.0-only")
    assert app.blobs == {f"sha256:{BLOB}": 827, f"sha256:{LAYER_BLOB}": 1065526}


def test_a_recipe_of_somebody_else_is_named(tmp_path):
    (tmp_path / "composeapp-odd_1.0.bb").write_text('LICENSE = "MIT"\n')
    with pytest.raises(CheckError, match=r"composeapp-odd_1.0.bb has no COMPOSEAPP_PLATFORMS"):
        appfacts.read(tmp_path, "linux/amd64")


def test_licence_manifest_that_names_all(facts):
    assert manifests.licence_problems(LICENCES, facts) == []


@pytest.mark.parametrize("old, new, sentence", [
    ("PACKAGE NAME: composeapp-shellhttpd", "PACKAGE NAME: other", "has no package composeapp-shellhttpd"),
    (f"CONTAINER IMAGE: {IMAGE}", "CONTAINER IMAGE: other", f"does not name {IMAGE}"),
    (f"APP: {APP}", "APP: other", f"does not name {APP}"),
    ("LICENSE: GPL-2.0-only", "LICENSE: CLOSED", r"says ['CLOSED'], not GPL-2.0-only"),
])
def test_licence_manifest_that_lacks_something(facts, old, new, sentence):
    assert [problem for problem in manifests.licence_problems(LICENCES.replace(old, new), facts) if sentence in problem]


@pytest.fixture
def sbom():
    documents = "http://spdx.org/spdxdocs/composeapp-shellhttpd-8aacb285-2838-5f91-b9bf-1c3c5f976210/77cfb074"
    image = "http://spdx.org/spdxdocs/composeapps-image-8368cba6-a118-5dd3-869f-5af8383b1ee4/ecd51ef1"
    quoted = {name: reference.partition("@")[2].replace(":", "%3A") for name, reference in
              (("app", APP), ("image", IMAGE))}
    purls = [f"pkg:oci/busybox@{quoted['image']}?repository_url=hub.demo.test%2Fdemo%2Fbusybox&arch=amd64",
             f"pkg:oci/shellhttpd@{quoted['app']}?repository_url=hub.demo.test%2Fdemo%2Fshellhttpd",
             "pkg:yocto/composeapp-shellhttpd@1.0"]
    return {"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": [
        {"type": "software_Package", "spdxId": f"{documents}/recipe/composeapp-shellhttpd",
         "software_primaryPurpose": "specification", "name": "composeapp-shellhttpd"},
        {"type": "software_Package", "spdxId": f"{documents}/package/composeapp-shellhttpd",
         "software_packageUrl": "pkg:yocto/composeapp-shellhttpd@1.0", "software_packageVersion": "1.0",
         "software_primaryPurpose": "install", "name": "composeapp-shellhttpd",
         "externalIdentifier": [{"type": "ExternalIdentifier", "externalIdentifierType": "packageUrl",
                                 "identifier": purl} for purl in purls]},
        {"type": "build_Build", "spdxId": f"{image}/build/rootfs",
         "name": "composeapps-image:do_create_rootfs_spdx:rootfs",
         "build_buildType": "http://openembedded.org/bitbake/do_create_rootfs_spdx/rootfs"},
        {"type": "LifecycleScopedRelationship", "spdxId": f"{image}/relationship/b2f9", "scope": "build",
         "from": f"{image}/build/rootfs", "relationshipType": "hasInput",
         "to": [f"{documents}/package/composeapp-shellhttpd"]},
    ]}


def test_sbom_that_names_all(facts, sbom):
    assert manifests.sbom_problems(sbom, facts) == []


def test_sbom_without_an_image(facts, sbom):
    del sbom["@graph"][1]["externalIdentifier"][0]
    assert manifests.sbom_problems(sbom, facts) == [f"app shellhttpd: no Package URL in the SBOM is that of {IMAGE}"]


def test_sbom_with_another_digest(facts, sbom):
    entry = sbom["@graph"][1]["externalIdentifier"][1]
    entry["identifier"] = entry["identifier"].replace("95539910", "00000000")
    assert manifests.sbom_problems(sbom, facts) == [f"app shellhttpd: no Package URL in the SBOM is that of {APP}"]


def test_sbom_of_a_build_that_did_not_install_the_app(facts, sbom):
    sbom["@graph"][3]["to"] = []
    assert manifests.sbom_problems(sbom, facts) == [
        "app shellhttpd: the SBOM does not say that its package is in the root file system"]


def test_sbom_that_knows_the_recipe_only(facts, sbom):
    del sbom["@graph"][1]
    assert manifests.sbom_problems(sbom, facts) == ["app shellhttpd: the SBOM has no package composeapp-shellhttpd"]


@pytest.fixture
def root(tmp_path):
    tree = tmp_path / "tree"
    (tree / "var" / "store").mkdir(parents=True)
    (tree / "factory").mkdir()
    (tree / "var" / "store" / "blob").write_bytes(b"x" * 5000)
    os.link(tree / "var" / "store" / "blob", tree / "factory" / "blob")
    (tree / "run").symlink_to("var/run")
    (tree / "var" / "open").write_text("")
    (tree / "var" / "open").chmod(0o666)
    image = tmp_path / "root.ext4"
    argv = ["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(tree), str(image), "8M"]
    subprocess.run(argv, check=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    return RootImage(image)


def test_what_an_image_holds(root):
    entries = root.entries()
    assert set(entries) == {"/factory", "/factory/blob", "/run", "/var", "/var/open", "/var/store", "/var/store/blob"}
    assert entries["/var/store/blob"].size == 5000
    assert entries["/var/store/blob"].inode == entries["/factory/blob"].inode
    assert stat.S_ISLNK(entries["/run"].mode) and stat.S_IMODE(entries["/var/open"].mode) == 0o666
    assert entries["/var/open"].uid == os.getuid()


def test_a_directory_of_an_image_is_copied(root, tmp_path):
    copied = root.copy("/var/store", tmp_path / "copy")
    assert [path.name for path in copied.iterdir()] == ["blob"] and (copied / "blob").stat().st_size == 5000


def test_what_is_no_image(tmp_path):
    (tmp_path / "odd.ext4").write_bytes(b"0" * 100000)
    with pytest.raises(CheckError, match=r"debugfs cannot read odd\.ext4: .*[Bb]ad magic"):
        RootImage(tmp_path / "odd.ext4").entries()


def test_a_directory_that_is_not_in_the_image(root, tmp_path):
    with pytest.raises(CheckError, match="not found"):
        root.copy("/nowhere", tmp_path / "copy")
