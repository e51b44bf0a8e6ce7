# SPDX-License-Identifier: MIT
"""The example of a product, conf/product: what the pages show of it, kas's reading of it, its image."""

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from composeapps import __version__
from composeapps.cli.config import load
from recipes import appconf
from support import apps
from support.images import multi_platform
from support.pages import TOP, page

PRODUCT = TOP / "conf" / "product"
DOCS = TOP / "meta-composeapps" / "docs"
URL = "https://git.example.com/meta-composeapps"


def test_the_pages_show_the_files_as_they_are():
    shown = 0
    for path in [TOP / "README.md", *DOCS.glob("*.md")]:
        for block in page(path).blocks:
            names = [mark.removeprefix("file:").strip() for mark in block.marks if mark.startswith("file:")]
            if names and (TOP / names[0]).is_file() and names[0].startswith("conf/"):
                assert block.text == (TOP / names[0]).read_text(), f"{path.name}:{block.line} is not {names[0]}"
                shown += names[0].startswith("conf/product/")
    assert shown == sum(1 for path in PRODUCT.rglob("*") if path.is_file())


def _git(directory, *words):
    identity = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.com", "GIT_COMMITTER_NAME": "t",
                "GIT_COMMITTER_EMAIL": "t@example.com", "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "-C", str(directory), *words], env={**os.environ, **identity}, check=True,
                   capture_output=True)


def test_kas_takes_the_products_file(tmp_path):
    """kas itself clones this repository, for the files that are included; the other layers are not needed for that."""
    product, layer = tmp_path / "shop", tmp_path / "meta-composeapps"
    shutil.copytree(PRODUCT, product)
    shutil.copytree(TOP / "kas", layer / "kas")
    (layer / "meta-composeapps").mkdir()
    (layer / "meta-composeapps" / "README").write_text("the layer\n")
    for directory in (product, layer):
        _git(directory, "init", "-q", "-b", "main")
        _git(directory, "add", ".")
        _git(directory, "commit", "-q", "-m", "start")
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f'[url "file://{layer}"]\n\tinsteadOf = {URL}\n')
    # What a file includes is cloned before the rest is known; the rest of the layers is not for this test.
    done = subprocess.run(
        [sys.executable, "-m", "kas", "dump", "--skip", "finish_setup_repos", "--skip", "repos_checkout", "kas.yml"],
        cwd=product, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KAS_WORK_DIR": str(tmp_path / "work"),
             "GITCONFIG_FILE": str(configuration)})
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    jsonschema.validate(yaml.safe_load((product / "kas.yml").read_text()),
                        json.loads(resources.files("kas").joinpath("schema-kas.json").read_text()))
    assert (config["machine"], config["target"]) == ("intel-corei7-64", "shop-image")
    assert set(config["repos"]["meta-composeapps"]["layers"]) == {"meta-composeapps"}
    assert set(config["repos"]["shop"]["layers"]) == {"meta-shop"}
    # The revisions come with the files.
    assert set(config["overrides"]["repos"]) >= {"bitbake", "openembedded-core", "meta-virtualization", "meta-intel"}
    assert {"composeapps", "intel-corei7-64", "shop"} <= set(config["local_conf_header"])


def test_gen_recipes_takes_the_products_app():
    conf = appconf.load(PRODUCT / "apps" / "shop.yml")
    assert conf.name == "shop" and str(conf.ref) == "registry.example.com/factory/shop:v3"


def test_layer_and_package_have_one_version():
    layer = TOP / "meta-composeapps"
    recipes = [path for name in ("recipes-composeapps",) for path in (layer / name).rglob("*_*.bb")]
    assert {path.stem.rpartition("_")[2] for path in recipes} == {__version__}
    assert __version__ in (layer / "CHANGELOG.md").read_text()


@pytest.mark.root
@pytest.mark.slow
def test_the_products_image_is_built(registry, factory_name, tmp_path):
    """build-image takes the product's layer, image and configuration; only the registry is another one."""
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/shop:v3", {"front": multi_platform("shop")})
    product = tmp_path / "shop"
    shutil.copytree(PRODUCT, product)
    conf = product / "apps" / "shop.yml"
    conf.write_text(conf.read_text().replace("registry.example.com/factory/shop:v3",
                                             f"{registry.host}/{factory_name}/shop:v3"))
    environment = {**os.environ, "COMPOSEAPPS_ENDPOINTS": registry.endpoint}
    for command in (["gen-recipes", "--quiet", "--output", product / "meta-shop" / "recipes-apps", product / "apps"],
                    ["build-image", "--json", "--quiet", "--layer", product / "meta-shop", "--image", "shop-image"]):
        done = subprocess.run([sys.executable, TOP / "scripts" / command[0], *command[1:]], env=environment,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["apps"] == {"shop": uri}

    # The agent's configuration in it is the one that the page shows, and the agent takes it.
    image = Path(result["image"])
    disk = image.parent / json.loads(image.read_text())["disk"]
    text = subprocess.run(["debugfs", "-R", "cat /etc/composeapps/config.toml", disk], capture_output=True, text=True,
                          check=True).stdout
    integration = page(DOCS / "integration.md")
    shown, = (block.text for block in integration.blocks if block.language == "toml")
    assert text == shown
    file = tmp_path / "config.toml"
    file.write_text(text)
    config = load(file)
    assert (config.soak_time, config.storage_watermark, config.bandwidth) == (60, 90, 500000)
    assert config.registries["registry.example.com"]._asdict()["mirrors"] == ("https://mirror.lan",)
