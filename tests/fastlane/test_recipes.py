# SPDX-License-Identifier: MIT
"""BitBake's library runs recipes: what is built, what is built again, and what is refused."""

import json
from pathlib import Path

APP = """\
LICENSE = "MIT"
inherit composeapp
COMPOSEAPP_NAME = "web"
COMPOSEAPP_URI = "hub.demo.test/demo/web@sha256:{digest}"
COMPOSEAPP_IMAGES = "hub.demo.test/demo/nginx@sha256:{digest}"
COMPOSEAPP_PLATFORMS = "{platforms}"
COMPOSEAPP_BLOBS = "oci://hub.demo.test/demo/web;digest=sha256:{digest};type=manifest;size=10"
COMPOSEAPP_BLOBS[linux-amd64] = "oci://hub.demo.test/demo/nginx;digest={blob};type=blob;size=10"
"""
DIGEST = "a" * 64


def _app(layer, platforms="linux/amd64", blob=f"sha256:{DIGEST}"):
    layer.write("apps/composeapp-web/composeapp-web_1.bb", APP.format(digest=DIGEST, platforms=platforms, blob=blob))
    return "--apps-dir", str(layer.directory / "apps")


def test_do_install_runs_with_modes_kept(layer):
    layer.add_hello()
    result, message = layer.run("hello")
    assert message == ""
    assert result["built"] == ["hello"]
    greeting = Path(result["D"]["hello"], "usr/share/hello/greeting.txt")
    assert greeting.read_text() == "hello\n"
    assert greeting.stat().st_mode & 0o777 == 0o640


def test_only_what_changed_and_what_needs_it_is_built_again(layer):
    layer.add_hello()
    layer.add_other()
    layer.write("recipes/third/third.bb", 'LICENSE = "MIT"\ninherit allarch\n')
    names = ("hello", "other", "third")
    assert layer.run(*names)[0]["built"] == list(names)
    assert layer.run(*names)[0]["unchanged"] == list(names)
    layer.write("recipes/hello/files/greeting.txt", "changed\n")
    result, _ = layer.run(*names)
    assert (result["built"], result["unchanged"]) == (["hello", "other"], ["third"])
    assert Path(result["D"]["hello"], "usr/share/hello/greeting.txt").read_text() == "changed\n"
    recipe = layer.directory / "recipes/third/third.bb"
    recipe.write_text(recipe.read_text() + 'do_install() {\n    install -d ${D}/srv\n}\n')
    assert layer.run(*names)[0]["built"] == ["third"]


def test_a_failed_build_is_not_taken_for_a_finished_one(layer):
    layer.add_hello()
    recipe = layer.directory / "recipes/hello/hello_1.0.bb"
    good = recipe.read_text()
    assert layer.run("hello")[0]
    recipe.write_text(good.replace("do_install() {", "do_install() {\n    echo the cup is broken\n    false"))
    assert "hello, do_install: the cup is broken" in layer.run("hello")[1]
    recipe.write_text(good)
    assert layer.run("hello")[0]["built"] == ["hello"]


def test_a_bbappend_and_a_setting_reach_the_recipe(layer):
    layer.add_hello()
    layer.write("recipes/hello/hello_%.bbappend",
                "do_install:append() {\n    echo ${MOOD} > ${D}${datadir}/hello/mood\n}\n")
    result, _ = layer.run("hello", options=("--set", "MOOD=good"))
    assert Path(result["D"]["hello"], "usr/share/hello/mood").read_text() == "good\n"
    result, _ = layer.run("hello", options=("--set", "MOOD=better"))
    assert result["built"] == ["hello"]


def test_deployed_files_that_are_gone_leave_the_deploy_directory(layer):
    text = ('LICENSE = "MIT"\ninherit allarch deploy\n'
            "do_deploy() {\n    install -d ${DEPLOYDIR}/d\n    : > ${DEPLOYDIR}/d/%s\n}\n"
            "addtask deploy after do_compile before do_build\n")
    layer.write("recipes/dep/dep_1.bb", text % "old")
    deploy = Path(layer.run("dep")[0]["deploy"])
    assert (deploy / "d/old").exists()
    (layer.directory / "recipes/dep/dep_1.bb").rename(layer.directory / "recipes/dep/dep_2.bb")
    layer.write("recipes/dep/dep_2.bb", text % "new")
    assert layer.run("dep")[0]["built"] == ["dep"]
    assert sorted(path.name for path in (deploy / "d").iterdir()) == ["new"]


def test_a_parse_error_names_file_and_line(refused, layer):
    layer.write("recipes/bad/bad_1.bb", 'LICENSE = "MIT"\n\nthis is no recipe\n')
    message = refused()
    assert "bad_1.bb:3" in message


def test_a_class_that_the_fast_lane_lacks_is_named(refused, layer):
    layer.write("recipes/bad/bad_1.bb", 'LICENSE = "MIT"\ninherit cmake\n')
    assert "bad_1.bb:2" in (message := refused()) and "cmake" in message


def test_a_package_that_nothing_provides_is_named(refused, layer):
    message = refused("--set", "IMAGE_INSTALL:append= nosuchthing")
    assert "'nosuchthing'" in message and "FASTLANE_DEBIAN[nosuchthing]" in message


def test_an_app_without_a_recipe_is_named_with_those_there_are(refused, layer):
    message = refused(*_app(layer), "--preload", "shop")
    assert "no app 'shop'" in message and "there are web" in message and "gen-recipes" in message


def test_an_app_without_images_for_the_machine_is_refused(refused, layer):
    message = refused(*_app(layer, platforms="linux/arm64"), "--preload", "web")
    assert "web has no images for linux/amd64 (it has linux/arm64)" in message


def test_images_of_an_older_machine_are_taken_where_there_are_no_others(layer):
    old = f"oci://hub.demo.test/demo/old;digest=sha256:{'b' * 64};type=blob"
    options = (*_app(layer, platforms="linux/386 linux/arm64"), "--set", f"COMPOSEAPP_BLOBS[linux-386]={old}",
               "--set", "OCI_ENDPOINTS=hub.demo.test=http://127.0.0.1:9")
    _, message = layer.run("composeapp-web", options=options)
    assert "has no images for" not in message and "do_fetch" in message


def test_a_blob_without_a_digest_is_refused(refused, layer):
    assert "has no digest" in refused(*_app(layer, blob="latest"), "--preload", "web")


def test_a_registry_that_does_not_answer_is_named(layer):
    options = (*_app(layer), "--set", "OCI_ENDPOINTS=hub.demo.test=http://127.0.0.1:9")
    _, message = layer.run("composeapp-web", options=options)
    assert "composeapp-web, do_fetch: fetching oci://hub.demo.test/demo/" in message


def test_a_missing_file_is_named(layer):
    layer.add_hello()
    (layer.directory / "recipes/hello/files/greeting.txt").unlink()
    assert "greeting.txt" in layer.run("hello")[1]


def test_an_unknown_machine_lists_the_known_ones(refused):
    assert "qemux86-64" in refused("--machine", "toaster")


def test_an_unknown_image_and_a_recipe_that_is_none_are_refused(refused):
    assert "'nosuch-image'" in refused("--image", "nosuch-image")
    assert "not an image recipe" in refused("--image", "composeapps-config")


def test_an_image_feature_that_the_fast_lane_lacks_is_refused(refused):
    assert "read-only-rootfs" in refused("--set", "EXTRA_IMAGE_FEATURES=read-only-rootfs")


def test_a_value_that_would_be_read_as_metadata_is_refused(refused):
    assert "MOOD" in refused("--set", "MOOD=a\"b'c")
    assert "'do it()'" in refused("--set", "do it()=x")


def _root(path, version=1, kind="root", **more):
    path.write_text(json.dumps({"signed": {"_type": kind, "version": version, **more}, "signatures": []}))
    return str(path)


def test_the_roots_that_devices_trust_are_named_by_their_version(layer, tmp_path):
    def run(*paths):
        return layer.run("composeapps-config", options=("--set", f"COMPOSEAPPS_TUF_ROOT={' '.join(paths)}"))

    first, later = _root(tmp_path / "first.json"), _root(tmp_path / "other", 12, "Root")
    result, message = run(first, later)
    assert message == ""
    place = Path(result["D"]["composeapps-config"], "usr/share/composeapps/tuf")
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "1.root.json": Path(first).read_text(), "12.root.json": Path(later).read_text()}
    assert run(first, later)[0]["unchanged"] == ["composeapps-config"]
    _root(tmp_path / "first.json", more="x")
    assert run(first, later)[0]["built"] == ["composeapps-config"]
    assert not Path(run()[0]["D"]["composeapps-config"], "usr/share/composeapps/tuf").exists()
    (tmp_path / "text").write_text("hello")
    for paths, said in (([_root(tmp_path / "targets", 1, "targets")], "no root of signed metadata"),
                        ([str(tmp_path / "text")], "no root of signed metadata"), (["1.root.json"], "no absolute path"),
                        ([str(tmp_path / "none")], "cannot be read: No such file"),
                        ([first, _root(tmp_path / "again")], "two roots of version 1")):
        result, message = run(*paths)
        assert said in message, message
