# SPDX-License-Identifier: MIT
"""Images made of real Debian packages: the same every time, sharing layers, and able to run."""

import gzip
import hashlib
import json
import os
import subprocess
import tarfile

import pytest

from factory import demoimages
from factory.debpackages import PackageError, PackageSource
from factory.imagebuild import ImageSpec, build_images
from factory.layers import LayerSpec, file


def blob(layout, digest):
    data = (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def manifests(layout):
    """Return {platform: (manifest, config)} of a layout."""
    top = json.loads((layout / "index.json").read_text())
    index = json.loads(blob(layout, top["manifests"][0]["digest"]))
    found = {}
    for entry in index["manifests"]:
        manifest = json.loads(blob(layout, entry["digest"]))
        platform = f"{entry['platform']['os']}/{entry['platform']['architecture']}"
        found[platform] = manifest, json.loads(blob(layout, manifest["config"]["digest"]))
    return found


def test_the_same_inputs_give_the_same_digests(layouts, source, tmp_path):
    again = build_images(demoimages.IMAGES, source, tmp_path)
    for name, layout in layouts.items():
        assert (layout / "index.json").read_bytes() == (again[name] / "index.json").read_bytes()


def test_a_made_image_is_taken_from_the_cache(layouts, tmp_path):
    nowhere = PackageSource(tmp_path, demoimages.SUITE, ["amd64"], mirror="http://127.0.0.1:1/debian")
    cache = layouts["nginx"].parent
    assert build_images(demoimages.IMAGES, nowhere, cache) == layouts


def test_every_digest_and_diff_id_holds(layouts):
    for layout in layouts.values():
        for manifest, config in manifests(layout).values():
            packed = [blob(layout, layer["digest"]) for layer in manifest["layers"]]
            assert [len(data) for data in packed] == [layer["size"] for layer in manifest["layers"]]
            unpacked = ["sha256:" + hashlib.sha256(gzip.decompress(data)).hexdigest() for data in packed]
            assert unpacked == config["rootfs"]["diff_ids"]


def test_busybox_is_there_for_two_platforms(layouts):
    found = manifests(layouts["busybox"])
    assert set(found) == {"linux/amd64", "linux/arm64"}
    assert found["linux/arm64"][1]["architecture"] == "arm64"
    assert found["linux/arm64"][0]["layers"] != found["linux/amd64"][0]["layers"]


def test_nginx_and_redis_share_their_lower_layers(layouts):
    nginx, redis, busybox = (
        [layer["digest"] for layer in manifests(layouts[name])["linux/amd64"][0]["layers"]]
        for name in ("nginx", "redis", "busybox")
    )
    assert nginx[:2] == redis[:2]
    assert nginx[:1] == busybox


def test_images_tell_their_licence_and_version(layouts):
    for name, layout in layouts.items():
        labels = manifests(layout)["linux/amd64"][1]["config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == name
        assert labels["org.opencontainers.image.licenses"]
        assert labels["org.opencontainers.image.version"][0].isdigit()


def test_no_manual_pages_but_the_licence_terms(layouts):
    layout = layouts["nginx"]
    names = set()
    for layer in manifests(layout)["linux/amd64"][0]["layers"]:
        with tarfile.open(layout / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as archive:
            for member in archive:
                names.add(member.name)
                assert (member.uid, member.gid) == (0, 0)
    assert "usr/share/doc/nginx/copyright" in names
    assert not any("/man/" in name or "/locale/" in name for name in names)


def unpack(layout, root):
    for layer in manifests(layout)["linux/amd64"][0]["layers"]:
        with tarfile.open(layout / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as archive:
            # Python 3.11.2, that of Debian 12, has no filters; later ones take a strict filter by default.
            trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
            archive.extractall(root, numeric_owner=True, **trusted)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot takes root")
@pytest.mark.parametrize("name, argv, expected", [
    ("busybox", ["sh", "-c", "id -un"], "root"),
    ("nginx", ["nginx", "-v"], "nginx/"),
    ("redis", ["redis-server", "--version"], "Redis server v="),
    ("redis", ["redis-cli", "--version"], "redis-cli "),
])
def test_its_programs_find_all_their_libraries(layouts, tmp_path, name, argv, expected):
    unpack(layouts[name], tmp_path)
    done = subprocess.run(
        ["chroot", str(tmp_path), *argv], env={"PATH": "/usr/sbin:/usr/bin"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )
    assert done.returncode == 0, done.stdout
    assert expected in done.stdout


def small_spec(text):
    layer = LayerSpec(packages=("busybox-static",), entries={"etc/text": file(text)})
    return ImageSpec("small", ("linux/amd64",), (layer,), "busybox-static")


def made(cache):
    """Return what a cache holds besides its lock."""
    return [path.name for path in cache.iterdir() if path.name != ".lock"]


def test_a_changed_image_replaces_the_old_one_in_the_cache(source, tmp_path):
    first = build_images([small_spec("one")], source, tmp_path)["small"]
    second = build_images([small_spec("two")], source, tmp_path)["small"]
    assert first != second
    assert made(tmp_path) == [second.name]


def test_what_a_killed_run_left_is_cleared_away(source, tmp_path):
    (tmp_path / ".tmp-small-abc" / "blobs").mkdir(parents=True)
    layout = build_images([small_spec("one")], source, tmp_path)["small"]
    assert made(tmp_path) == [layout.name]


def test_unknown_package_is_one_sentence_and_leaves_nothing(source, tmp_path):
    spec = ImageSpec("odd", ("linux/amd64",), (LayerSpec(packages=("no-such-package-here",)),), "no-such-package-here")
    with pytest.raises(PackageError, match="no-such-package-here") as caught:
        build_images([spec], source, tmp_path)
    assert "\n" not in str(caught.value)
    assert not made(tmp_path)


def test_unreachable_mirror_is_one_sentence(tmp_path):
    nowhere = PackageSource(tmp_path / "apt", demoimages.SUITE, ["amd64"], mirror="http://127.0.0.1:1/debian")
    with pytest.raises(PackageError, match="http://127.0.0.1:1/debian") as caught:
        build_images([small_spec("one")], nowhere, tmp_path / "images")
    assert "\n" not in str(caught.value)
