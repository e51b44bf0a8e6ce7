# SPDX-License-Identifier: MIT
"""What docker compose reads is what the bundle says, whatever a container writes into its app's directory."""

import json
import os

import pytest

from composeapps.app.tree import whole
from composeapps.errors import CorruptError
from composeapps.installed import appfiles, inputs, install
from composeapps.installed.placed import Placed
from support.device import Device

FILES = {".env": "PLACE=./safe\n", "a.env": "A=1\n", "labels": "l=1\n", "conf/site": "site\n", "key": "secret\n",
         "safe/x": "1"}


@pytest.fixture
def shelf(memory):
    """A Device without a dockerd, in memory."""
    return Device(memory)


def read(shelf, app):
    """Place an app; return (its compose file, its environment) as docker compose gets them."""
    install.place_bundle(app, shelf.store, shelf.config, notify=shelf.notes.append)
    return given(shelf, app)


def given(shelf, app):
    _file, compose, _env, environment = appfiles.compose_arguments(app, shelf.config)
    with open(compose) as stream:
        text = stream.read()
    value = json.loads(text) if text.startswith("{") else text
    with open(environment) as stream:
        return value, stream.read()


def content(path):
    with open(path) as stream:
        return stream.read()


def test_all_that_is_read_is_the_bundles_and_the_agents_alone(shelf):
    app = shelf.version(
        {"a": {"image": "base", "volumes": [".:/data"], "env_file": ["./a.env", {"path": "conf/../a.env"}],
               "label_file": "labels", "configs": ["site"], "secrets": ["key"]},
         "b": {"image": "base", "env_file": "a.env"}},
        FILES, configs={"site": {"file": "./conf/site"}}, secrets={"key": {"file": "${PWD}/key"}, "o": {"file": "/o"}})
    for name in FILES:
        (shelf.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf.directory / name).write_text("of a container")
    for _ in range(2):
        value, environment = read(shelf, app)
        assert environment == "PLACE=./safe\n"
        services = value["services"]
        paths = [services["a"]["env_file"][0], services["a"]["env_file"][1]["path"], services["b"]["env_file"]]
        assert [content(path) for path in paths] == ["A=1\n"] * 3
        assert content(services["a"]["label_file"]) == "l=1\n"
        assert content(value["configs"]["site"]["file"]) == "site\n"
        assert content(value["secrets"]["key"]["file"]) == "secret\n" and value["secrets"]["o"]["file"] == "/o"
        assert services["a"]["volumes"] == [".:/data"], "what is mounted is the app's own"
        assert (shelf.directory / "key").read_text() == "of a container"
        # Damage is mended.
        with open(value["secrets"]["key"]["file"], "w") as stream:
            stream.write("damaged")


def test_what_stays_the_same_stays_the_same_file(shelf):
    services = {"a": {"image": "base", "secrets": ["key"]}}
    old = shelf.version(services, {"key": "1", "other": "1"}, secrets={"key": {"file": "key"}})
    new = shelf.version(services, {"key": "1", "other": "2"}, secrets={"key": {"file": "key"}})
    assert read(shelf, old)[0] == read(shelf, new)[0]


def test_without_an_env_file_a_container_cannot_bring_one(shelf):
    app = shelf.version({"a": {"image": "base", "volumes": [".:/data"]}}, {"x": "1"})
    shelf.directory.mkdir(parents=True)
    (shelf.directory / ".env").write_text("PLACE=/etc\n")
    assert read(shelf, app)[1] == ""
    assert "docker compose does not get it" in "\n".join(shelf.notes)


def test_the_owner_of_the_device_may_bring_one_where_no_container_writes(shelf):
    app = shelf.version({"a": {"image": "base", "volumes": ["./data:/data"], "env_file": "local.env"}}, {"x": "1"})
    shelf.directory.mkdir(parents=True)
    (shelf.directory / ".env").write_text("PLACE=./mine\n")
    (shelf.directory / "local.env").write_text("L=1\n")
    value, environment = read(shelf, app)
    assert environment == "PLACE=./mine\n" and content(value["services"]["a"]["env_file"]) == "L=1\n"
    (shelf.directory / "local.env").unlink()
    os.symlink("/etc/shadow", shelf.directory / "local.env")
    path = read(shelf, app)[0]["services"]["a"]["env_file"]
    assert not os.path.exists(path)


def test_links_of_the_bundle_are_followed_in_it_only(shelf):
    app = shelf.version({"a": {"image": "base"}}, {"a.env": "A=1\n", "d/x.env": "X"})
    index = {**_index(shelf, app), "one.env": _link("a.env"), "two": _link("d"), "loop": _link("loop")}
    assert [inputs._followed(index, place) for place in ("one.env", "two/x.env", "loop", "none", "d")] == [
        "a.env", "d/x.env", None, None, None]
    assert inputs._followed({"l": _link("/etc/shadow")}, "l") is None


def _index(shelf, app):
    return whole(app, shelf.store).contents.index


def _link(target):
    from composeapps.app import bundle

    return bundle.Member(bundle.LINK, target=target)


@pytest.mark.parametrize("more", [{"extends": {"file": "common.yml", "service": "x"}}, {"include": ["common.yml"]}])
def test_files_that_would_define_services_are_not_read_where_containers_write(shelf, more):
    top = {key: more[key] for key in more if key == "include"}
    service = {key: more[key] for key in more if key != "include"}
    fine = shelf.version({"a": {"image": "base", "volumes": ["./data:/data"], **service}}, {"common.yml": "x"}, **top)
    read(shelf, fine)
    app = shelf.version({"a": {"image": "base", "volumes": [".:/data"], **service}}, {"common.yml": "x"}, **top)
    with pytest.raises(CorruptError, match=r"'common\.yml', and a container may write that file"):
        read(shelf, app)


def test_what_is_mounted_is_no_link_that_a_container_made(shelf):
    app = shelf.version({"a": {"image": "base", "volumes": [".:/data"]},
                         "b": {"image": "base", "volumes": ["./deep/er/conf:/conf:ro"]}}, {"deep/er/conf/x": "1"})
    read(shelf, app)
    os.rename(shelf.directory / "deep/er", shelf.directory / "deep/away")
    os.symlink("/etc", shelf.directory / "deep/er")
    with pytest.raises(CorruptError, match="deep/er is a symbolic link that a container may have made"):
        appfiles.compose_arguments(app, shelf.config)
    assert appfiles.compose_arguments(app, shelf.config, starting=False)


def test_a_link_of_the_bundle_may_be_mounted_as_long_as_it_is_that(shelf):
    app = shelf.version({"a": {"image": "base", "volumes": [".:/data", "./current/x:/x:ro"]}}, {"releases/1/x": "1"})
    placed, found = Placed(shelf.config.compose_root, app.ref.app_name), None
    read(shelf, app)
    found = inputs.of(shelf.config, app.ref)[1]._replace(links=(("current", "releases/1"),))
    (shelf.directory / "current").symlink_to("releases/1")
    inputs.check_sources(placed, found)
    (shelf.directory / "releases/1").rename(shelf.directory / "releases/2")
    (shelf.directory / "releases/1").symlink_to("/etc")
    with pytest.raises(CorruptError, match="releases/1 is a symbolic link"):
        inputs.check_sources(placed, found)
    (shelf.directory / "current").unlink()
    (shelf.directory / "current").symlink_to("/etc")
    with pytest.raises(CorruptError, match="current is a symbolic link"):
        inputs.check_sources(placed, found)
    (shelf.directory / "current").unlink()
    (shelf.directory / "current").symlink_to("current")
    with pytest.raises(CorruptError, match="current is a symbolic link"):
        inputs.check_sources(placed, found._replace(links=()))
    inputs.check_sources(placed, found._replace(links=(("current", "current"),)))


def test_the_owner_of_the_device_may_make_a_link(shelf, tmp_path):
    app = shelf.version({"a": {"image": "base", "volumes": ["./data:/data"]}}, {"x": "1"})
    read(shelf, app)
    os.symlink(tmp_path, shelf.directory / "data")
    assert read(shelf, app)


def test_an_app_that_an_older_agent_installed_can_be_stopped_at_once(shelf):
    app = shelf.version({"a": {"image": "base", "env_file": "a.env"}}, FILES)
    shelf.directory.mkdir(parents=True)
    (shelf.directory / "a.env").write_text("mine")
    assert content(given(shelf, app)[0]["services"]["a"]["env_file"]) == "A=1\n"
    assert sorted(os.listdir(shelf.directory)) == ["a.env"]


def test_what_no_version_and_no_container_needs_is_removed(shelf):
    services = {"a": {"image": "base", "secrets": ["key"]}}
    versions = [shelf.version(services, {"key": str(number)}, secrets={"key": {"file": "key"}}) for number in range(3)]

    class Engine:
        """A dockerd with a container of the first version."""

        used = None

        def containers(self, _label=None):
            return [{"Mounts": [{"Type": "bind", "Source": self.used, "RW": False}]}] if self.used else []

    engine, paths = Engine(), []
    for app in versions:
        install.place_bundle(app, shelf.store, shelf.config, engine)
        paths.append(given(shelf, app)[0]["secrets"]["key"]["file"])
        engine.used = paths[0]
    assert [os.path.exists(path) for path in paths] == [True, False, True]
