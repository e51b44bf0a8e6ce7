# SPDX-License-Identifier: MIT
"""scripts/sbom: what is in the images of a store, as SPDX, and the gate for a report of grype."""

import json
import subprocess

import pytest

from composeapps.errors import CorruptError, NotFoundError
from fastlane import command as build_image
from fastlane import release
from sbom import command, packages
from support import apps, stores
from support.images import make_image, tar

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: a library
 of two lines
 .
 Package: not-one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: LGPL-2.1+

Files: x
License: MIT
 Permission is hereby granted
"""
APK = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\nP:busybox\nV:1.36.1-r5\nA:x86_64\nL:GPL-2.0-only\n"
RELEASE = 'NAME="A system"\nID=debian\nVERSION_ID="12"\n'


def read(*layers):
    return packages.read([data[begin:begin + 700] for begin in range(0, len(data), 700)] for data in layers)


def test_the_databases_of_dpkg_and_apk_are_read():
    found = read(tar({"var/lib/dpkg/status": DPKG, "usr/share/doc/libc6/copyright": COPYRIGHT,
                      "etc/os-release": RELEASE}))
    assert found.packages == (packages.Package("deb", "libc6", "2.36-9", "amd64", "LGPL-2.1+, MIT"),)
    assert (found.distribution, found.release, found.databases) == ("debian", "12", ("dpkg",))
    found = read(tar({"./lib/apk/db/installed": APK}))
    assert [(each.name, each.version, each.license) for each in found.packages] == [
        ("busybox", "1.36.1-r5", "GPL-2.0-only"), ("musl", "1.2.4-r2", "MIT")]
    found = read(tar({"var/lib/dpkg/status.d/base": "Package: base\nVersion: 1~2+b:3\n",
                      "var/lib/dpkg/status.d/base.md5sums": "Package: no\n"}))
    assert [each.url("debian") for each in found.packages] == ["pkg:deb/debian/base@1~2%2Bb%3A3"]
    assert read(tar({"bin/program": "x"})) == packages.Found(())


def test_later_layers_replace_and_take_away():
    lower = tar({"lib/apk/db/installed": APK, "var/lib/dpkg/status": DPKG})
    assert read(lower, tar({"lib/apk/db/.wh.installed": ""})).databases == ("dpkg",)
    assert read(lower, tar({"var/.wh.lib": ""})).databases == ("apk",)
    assert read(lower, tar({"var/lib/.wh..wh..opq": ""})).databases == ("apk",)
    newer = read(lower, tar({"lib/apk/db/installed": "P:musl\nV:2\n", "lib/.wh..wh..opq": ""}))
    assert [each.version for each in newer.packages if each.kind == "apk"] == ["2"]


def test_a_database_of_rpm_is_never_taken_for_none(monkeypatch):
    image = tar({"var/lib/rpm/rpmdb.sqlite": "no database"})
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(NotFoundError, match="program rpm"):
        read(image)
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    said = subprocess.CompletedProcess((), 0, "bash\t5.1-1.el9\tx86_64\tGPLv3+\n", "")
    monkeypatch.setattr(packages.subprocess, "run", lambda *words, **more: said)
    assert read(image).packages == (packages.Package("rpm", "bash", "5.1-1.el9", "x86_64", "GPLv3+"),)
    said.stdout = ""
    with pytest.raises(CorruptError, match="rpm does not read"):
        read(image)


def test_what_is_no_layer_is_told():
    with pytest.raises(CorruptError, match="no tar"):
        read(b"no tar" * 1000)


@pytest.fixture
def store(tmp_path):
    """A store with an app of two images: one with packages, one with a program alone."""
    images = {"web": make_image(layers=[tar({"lib/apk/db/installed": APK, "etc/os-release": "ID=alpine\n"})]),
              "tool": make_image({"tool": "x"})}
    pinned = {name: f"hub.demo.test/factory/{name}@{image.digest}" for name, image in images.items()}
    compose = apps.compose_text(pinned)
    app = apps.make_app(compose, {}, images.values())
    stores.write(tmp_path / "store", "hub.demo.test/factory/shop", app,
                 {pinned[name]: image for name, image in images.items()}, compose=compose)
    return tmp_path / "store"


def test_the_sbom_names_app_images_and_packages_and_is_the_same_each_time(store, tmp_path, capsys):
    files = [tmp_path / "x/shop.spdx.json", tmp_path / "y/shop.spdx.json"]
    for file in files:
        file.parent.mkdir()
        assert command.main([str(store), "--output", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "2 packages of apk" in capsys.readouterr().out
    value = json.loads(files[0].read_text())
    assert value["spdxVersion"] == "SPDX-2.3" and value["documentNamespace"].startswith("urn:uuid:")
    named = {each["SPDXID"]: each for each in value["packages"]}
    urls = {each["externalRefs"][0]["referenceLocator"] for each in value["packages"]}
    assert {"pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64", "pkg:apk/alpine/busybox@1.36.1-r5?arch=x86_64"} <= urls
    assert len(urls) == 5 and sum("pkg:oci/" in url for url in urls) == 3
    (described,) = [each for each in value["relationships"] if each["relationshipType"] == "DESCRIBES"]
    images = {each["relatedSpdxElement"] for each in value["relationships"]
              if each["spdxElementId"] == described["relatedSpdxElement"]}
    assert {named[each]["name"] for each in images} == {"hub.demo.test/factory/web", "hub.demo.test/factory/tool"}
    unknown = {named[each]["name"] for each in images if "not known" in named[each].get("comment", "")}
    assert unknown == {"hub.demo.test/factory/tool"}
    assert {named[each["relatedSpdxElement"]]["name"] for each in value["relationships"]
            if each["spdxElementId"] in images} == {"musl", "busybox"}


def test_a_release_names_the_sbom_of_its_apps(store, tmp_path):
    image = tmp_path / "image-machine.json"
    (tmp_path / "disk.wic").write_bytes(b"data" * 1000)
    image.write_text(json.dumps({"machine": "machine", "disk": "disk.wic", "apps": {}, "contents": {}}))
    made = build_image.sbom({"image": str(image), "stores": [str(store)]})
    manifest = json.loads(release.make(image, {}, None, made).read_text())
    assert manifest["sbom"] == "image-machine.spdx.json" in manifest["files"]
    assert "musl" in (tmp_path / "image-machine.spdx.json").read_text()
    assert build_image.sbom({"image": str(image), "stores": []}) == []


def test_a_store_without_apps_or_with_damage_makes_no_sbom(store, tmp_path, capsys):
    assert command.main([str(tmp_path / "none")]) == 3
    blob = max((store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * blob.stat().st_size)
    assert command.main([str(store), "--output", str(tmp_path / "x.json")]) == 4
    assert capsys.readouterr().err.count("\n") == 2 and not (tmp_path / "x.json").exists()


def match(identifier, severity, state="fixed"):
    return {"vulnerability": {"id": identifier, "severity": severity, "fix": {"state": state, "versions": []}},
            "artifact": {"name": "musl", "version": "1.2.4-r2", "type": "apk"}}


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"matches": [
        match("CVE-1", "Low"), match("CVE-2", "High"), match("CVE-3", "Critical", "not-fixed"),
        match("CVE-4", "Unknown"), match("CVE-2", "High")]}))
    return path


@pytest.mark.parametrize("words, expected", [
    ((), ["CVE-4", "CVE-3", "CVE-2"]), (("--fail-on", "negligible"), ["CVE-4", "CVE-3", "CVE-2", "CVE-1"]),
    (("--fixed-only",), ["CVE-4", "CVE-2"]), (("--fail-on", "critical"), ["CVE-4", "CVE-3"]),
])
def test_the_gate_counts_by_severity(report, capsys, words, expected):
    assert command.main(["--gate", str(report), "--json", *words]) == 1
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == expected


def test_what_is_allowed_does_not_count(report, tmp_path):
    (tmp_path / "allowed").write_text("CVE-2 # not reachable\n\n# more\nCVE-3\nCVE-4\n")
    assert command.main(["--gate", str(report), "--allow", str(tmp_path / "allowed")]) == 0


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"matches": {}}', '{"matches": []}x', '{"matches": [{}]}',
                                  '{"matches": null}'])
def test_what_is_no_report_is_not_taken_for_a_good_one(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    assert command.main(["--gate", str(tmp_path / "report.json")]) == 4
    assert command.main(["--gate", str(tmp_path / "none.json")]) == 2
