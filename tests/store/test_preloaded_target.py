# SPDX-License-Identifier: MIT
"""An image all of whose apps are of one signed Target tells its devices so, any other one does not."""

import json

import pytest

from composeapps.cli.config import Config
from composeapps.store.factoryset import factory_apps, factory_target
from composeapps.store.preload import merge_store
from support import apps, stores
from support.images import multi_platform


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A deploy directory with the stores of two apps, "web" and "blog"."""
    place, image = tmp_path_factory.mktemp("deploy"), multi_platform("x")
    pinned = f"hub.demo.test/f/x@{image.digest}"
    compose = apps.compose_text({"web": pinned})
    for name in ("web", "blog"):
        stores.write(place / name, f"hub.demo.test/f/{name}", apps.make_app(compose, {"of": name}, [image]),
                     {pinned: image}, compose=compose)
    return place


@pytest.mark.parametrize(("web", "blog", "target"), [
    (("shop-6", 6), ("shop-6", 6), ("shop-6", 6)), (("shop-6", 6), ("shop-5", 5), ("", 0)),
    (("shop-6", 6), ("", 0), ("", 0)), (("", 0), ("", 0), ("", 0)), (None, ("shop-6", 6), ("", 0))])
def test_one_target_for_all_apps_is_noted(deployed, tmp_path, web, blog, target):
    for name, told in (("web", web), ("blog", blog)):
        (deployed / f"{name}.json").unlink(missing_ok=True)
        if told:
            (deployed / f"{name}.json").write_text(json.dumps({"target": told[0], "target_version": told[1]}))
    merge_store([deployed / "web", deployed / "blog"], tmp_path / "store", tmp_path / "factory.json")
    config = Config(factory_file=tmp_path / "factory.json")
    assert factory_target(config) == target and set(factory_apps(config)) == {"web", "blog"}
