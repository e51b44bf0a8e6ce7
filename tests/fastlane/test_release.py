# SPDX-License-Identifier: MIT
"""What a manufacturer gets of a disk: the same bytes each time, sums, a manifest, a signature."""

import json
import os
import subprocess

import pytest

from fastlane import disk, release
from fastlane.errors import BuildError

MEBIBYTE = 1 << 20
APPS = {"shop": "hub.example.com/shop@sha256:" + "0" * 64}


@pytest.fixture
def description(tmp_path):
    """A published disk of which half is used, and a repository beside it."""
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    with open(deploy / "image-0123456789ab.wic", "wb") as stream:
        stream.truncate(8 * MEBIBYTE)
        stream.write(b"data" * MEBIBYTE)
    path = deploy / "image.json"
    path.write_text(json.dumps({"machine": "qemux86-64", "disk": "image-0123456789ab.wic", "kernel": "vmlinuz",
                                "initrd": "initrd.img", "apps": APPS, "contents": {"recipes": {"a": "1"}}}))
    return path


@pytest.fixture
def layer(tmp_path):
    directory = tmp_path / "meta-shop"
    directory.mkdir()
    (directory / "file").write_text("1")
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t")):
        subprocess.run(["git", "-C", directory, *words], check=True)
    return directory


@pytest.fixture
def key(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "signers").write_text(f"release@example.com {(tmp_path / 'key.pub').read_text()}")
    return tmp_path / "key"


def test_the_manifest_names_what_was_made_and_the_sums_fit(description, layer):
    path = release.make(description, {"meta-shop": layer, "other": description.parent})
    manifest = json.loads(path.read_text())
    assert manifest["apps"] == APPS and manifest["contents"] == {"recipes": {"a": "1"}}
    assert manifest["files"].keys() == {"image-0123456789ab.wic.zst", "image-0123456789ab.wic.bmap"}
    head = subprocess.run(["git", "-C", layer, "rev-parse", "HEAD"], capture_output=True, text=True,
                          check=True).stdout.strip()
    assert manifest["layers"] == {"meta-shop": {"revision": head, "changed": False},
                                  "other": {"revision": "", "changed": False}}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "image.SHA256SUMS"], cwd=path.parent, check=True)
    release.check(path, [path.parent / name for name in manifest["files"]])
    assert not path.with_name(f"{path.name}.sig").exists() and not list(path.parent.glob(".*"))
    (layer / "file").write_text("2")
    assert json.loads(release.make(description, {"meta-shop": layer}).read_text())["layers"]["meta-shop"]["changed"]


def test_two_builds_of_the_same_disk_give_the_same_release(description, layer):
    path = release.make(description, {"meta-shop": layer})
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    for each in path.parent.glob("*.wic.*"):
        each.unlink()
    os.utime(path.parent / "image-0123456789ab.wic", (1, 1))
    release.make(description, {"meta-shop": layer})
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_a_signature_tells_who_made_it(description, key):
    path = release.make(description, {}, key)
    signers = key.with_name("signers")
    release.verify(path, signers, "release@example.com")
    with pytest.raises(BuildError, match="not signed by other"):
        release.verify(path, signers, "other@example.com")
    path.write_text(path.read_text().replace("shop", "shed"))
    with pytest.raises(BuildError, match="not signed by release"):
        release.verify(path, signers, "release@example.com")
    # A manifest without a signature has none of before.
    release.make(description, {})
    with pytest.raises(BuildError, match="not signed"):
        release.verify(path, signers, "release@example.com")


def test_a_signature_for_another_purpose_is_none(description, key):
    path = release.make(description, {})
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", key, path], check=True, capture_output=True)
    with pytest.raises(BuildError, match="not signed"):
        release.verify(path, key.with_name("signers"), "release@example.com")


def test_other_files_are_told(description):
    path = release.make(description, {})
    compressed = path.parent / "image-0123456789ab.wic.zst"
    link = path.parent / "image.wic.zst"
    link.symlink_to(compressed.name)
    release.check(path, [link])
    compressed.write_bytes(compressed.read_bytes() + b"x")
    with pytest.raises(BuildError, match="is not the file"):
        release.check(path, [link])
    for text in ("[]", "{", '{"files": []}'):
        path.write_text(text)
        with pytest.raises(BuildError, match="no manifest"):
            release.check(path, [link])


@pytest.mark.parametrize("name, said", [("none", "is no file"), ("deploy/image.json", "cannot be signed")])
def test_a_key_that_is_none_is_named(description, tmp_path, name, said):
    with pytest.raises(BuildError, match=said):
        release.make(description, {}, tmp_path / name)


def test_what_a_release_has_goes_with_its_disk(description):
    release.make(description, {})
    new = json.loads(description.read_text()) | {"disk": "image-ba9876543210.wic"}
    os.rename(description.parent / "image-0123456789ab.wic", description.parent / new["disk"])
    description.write_text(json.dumps(new))
    release.make(description, {})
    disk._drop_old(description.parent, "image")
    assert {each.name for each in description.parent.glob("*.wic*")} == {
        "image-ba9876543210.wic", "image-ba9876543210.wic.zst", "image-ba9876543210.wic.bmap"}
