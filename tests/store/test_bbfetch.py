# SPDX-License-Identifier: MIT
"""The oci:// fetch method through BitBake's own fetcher: registries, mirrors, checksums, no network."""

import json
import sys
import types
from pathlib import Path

import pytest

# BitBake's wheel lacks the hash server's client, which nothing here uses.
for _name in ("hashserv", "hashserv.client", "prserv"):
    sys.modules.setdefault(_name, types.ModuleType(_name))

import bb.data  # noqa: E402
import bb.fetch2  # noqa: E402
from bb.fetch2 import BBFetchException, Fetch, FetchError, MissingParameterError, NetworkAccess  # noqa: E402

import composeapps.bbfetch  # noqa: E402, F401 - registers the method
from composeapps.oci.digests import sha256  # noqa: E402
from composeapps.store.store import Store  # noqa: E402
from support.faults import FaultyProxy  # noqa: E402
from support.images import multi_platform, push_image  # noqa: E402


@pytest.fixture
def image(registry, factory_name):
    """An image of two platforms in the registry; ``image.ref`` is its repository."""
    made = multi_platform(factory_name)
    push_image(registry, f"{registry.host}/{factory_name}/thing:1", made)
    made.ref = f"{registry.host}/{factory_name}/thing"
    made.amd64 = next(m for m in made.document["manifests"] if m["platform"]["architecture"] == "amd64")
    made.layer = json.loads(made.manifests[made.amd64["digest"]][1])["layers"][0]
    made.url = f"oci://{made.ref};digest={made.digest};platform=linux/amd64"
    return made


@pytest.fixture
def metadata(registry, tmp_path):
    """Return a function that makes a datastore with a DL_DIR of its own."""
    def make(name="downloads", **variables):
        d = bb.data.init()
        (tmp_path / name).mkdir(exist_ok=True)
        values = {"DL_DIR": str(tmp_path / name), "OCI_ENDPOINTS": registry.endpoint, "PATH": "/usr/bin:/bin",
                  "PERSISTENT_DIR": str(tmp_path), "BB_STRICT_CHECKSUM": "1", "HOME": str(tmp_path), **variables}
        for key, value in values.items():
            d.setVar(key, value)
        return d

    return make


def downloads(d):
    return sorted(p.name for p in Path(d.getVar("DL_DIR")).iterdir() if p.suffix not in (".done", ".lock"))


def names(image):
    """The files that an image for linux/amd64 consists of."""
    manifest = json.loads(image.manifests[image.amd64["digest"]][1])
    digests = [image.digest, image.amd64["digest"], manifest["config"]["digest"], manifest["layers"][0]["digest"]]
    return sorted("oci-" + digest.replace(":", "-") for digest in digests)


def test_an_image_is_one_flat_file_a_blob(metadata, image):
    d = metadata()
    Fetch([image.url], d).download()
    assert downloads(d) == names(image)


def test_a_single_blob(metadata, image):
    d = metadata()
    Fetch([f"oci://{image.ref};type=blob;digest={image.layer['digest']};size={image.layer['size']}"], d).download()
    assert downloads(d) == ["oci-" + image.layer["digest"].replace(":", "-")]


def test_unpack_builds_the_store_offline(metadata, image, tmp_path):
    Fetch([image.url], metadata()).download()
    d = metadata(BB_NO_NETWORK="1", OCI_ENDPOINTS="")
    fetch = Fetch([image.url], d)
    fetch.download()
    fetch.unpack(str(tmp_path / "work"))
    store = Store(tmp_path / "work" / "store")
    assert store.read(image.digest) == image.content
    assert store.verify(image.layer["digest"], image.layer["size"]) is None
    download = tmp_path / "downloads" / ("oci-" + image.layer["digest"].replace(":", "-"))
    assert store.blob_path(image.layer["digest"]).samefile(download), "a hard link, not a copy"


def test_no_network_means_no_network(metadata, image):
    with pytest.raises(NetworkAccess):
        Fetch([image.url], metadata(BB_NO_NETWORK="1")).download()


def test_a_network_that_is_not_allowed(metadata, image):
    with pytest.raises(BBFetchException):
        Fetch([image.url], metadata(BB_ALLOWED_NETWORKS="*.example.com")).download()


def test_a_mirror_serves_without_a_network(metadata, image, tmp_path):
    Fetch([image.url], metadata("mirror")).download()
    d = metadata(BB_FETCH_PREMIRRORONLY="1", OCI_ENDPOINTS="", PREMIRRORS=f"oci://.*/.* file://{tmp_path}/mirror/")
    Fetch([image.url], d).download()
    assert downloads(d) == names(image)
    Fetch([image.url], d).unpack(str(tmp_path / "work"))
    assert Store(tmp_path / "work" / "store").verify(image.layer["digest"]) is None


@pytest.mark.parametrize("part", ["root", "layer"])
def test_a_corrupt_mirror_file_is_refused(metadata, image, tmp_path, part):
    Fetch([image.url], metadata("mirror")).download()
    digest = image.digest if part == "root" else image.layer["digest"]
    spoilt = tmp_path / "mirror" / ("oci-" + digest.replace(":", "-"))
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"?")
    d = metadata(BB_FETCH_PREMIRRORONLY="1", PREMIRRORS=f"oci://.*/.* file://{tmp_path}/mirror/")
    with pytest.raises(BBFetchException):
        Fetch([image.url], d).download()
    assert not (tmp_path / "downloads" / spoilt.name).exists()


def test_behind_a_corrupt_mirror_the_registry_is_asked(metadata, image, tmp_path):
    Fetch([image.url], metadata("mirror")).download()
    spoilt = tmp_path / "mirror" / ("oci-" + image.layer["digest"].replace(":", "-"))
    spoilt.write_bytes(b"?")
    d = metadata(PREMIRRORS=f"oci://.*/.* file://{tmp_path}/mirror/")
    Fetch([image.url], d).download()
    assert sha256((tmp_path / "downloads" / spoilt.name).read_bytes()) == image.layer["digest"]


def test_a_damaged_download_is_fetched_again(metadata, image, tmp_path):
    Fetch([image.url], metadata()).download()
    damaged = tmp_path / "downloads" / ("oci-" + image.layer["digest"].replace(":", "-"))
    damaged.write_bytes(b"?")
    Fetch([image.url], metadata()).download()
    assert sha256(damaged.read_bytes()) == image.layer["digest"]


def test_a_missing_part_is_fetched_again(metadata, image, tmp_path):
    Fetch([image.url], metadata()).download()
    (tmp_path / "downloads" / ("oci-" + image.layer["digest"].replace(":", "-"))).unlink()
    Fetch([image.url], metadata()).download()
    assert downloads(metadata()) == names(image)


def test_a_download_damaged_after_the_fetch_is_not_unpacked(metadata, image, tmp_path):
    d = metadata()
    Fetch([image.url], d).download()
    (tmp_path / "downloads" / ("oci-" + image.layer["digest"].replace(":", "-"))).write_bytes(b"?")
    with pytest.raises(bb.fetch2.UnpackError, match="is not blob"):
        Fetch([image.url], d).unpack(str(tmp_path / "work"))
    assert Store(tmp_path / "work" / "store").size_of(image.layer["digest"]) is None


def test_corruption_on_the_way_leaves_no_file(metadata, image, registry):
    with FaultyProxy(registry.url, flip_at=30) as proxy:
        d = metadata(OCI_ENDPOINTS=f"{registry.host}={proxy.url}")
        with pytest.raises(FetchError):
            Fetch([f"oci://{image.ref};type=blob;digest={image.layer['digest']}"], d).download()
    assert downloads(d) == []


def test_login_from_the_authentication_file(metadata, auth_registry, token_registry):
    for where in (auth_registry, token_registry):
        made = multi_platform()
        push_image(where, f"{where.host}/factory/locked:1", made)
        url = f"oci://{where.host}/factory/locked;digest={made.digest};platform=linux/arm64"
        d = metadata(where.user + str(where.url.rsplit(":")[-1]), OCI_ENDPOINTS=where.endpoint)
        with pytest.raises(FetchError):
            Fetch([url], d).download()
        d.setVar("REGISTRY_AUTH_FILE", str(where.auth_file))
        Fetch([url], d, cache=False).download()
        assert len(downloads(d)) == 4


@pytest.mark.parametrize(
    ("tail", "error", "says"),
    [
        ("", MissingParameterError, "digest"),
        (";digest=latest", BBFetchException, "not a digest"),
        (";digest=sha256:" + "0" * 64 + ";type=layer", BBFetchException, "none of image, manifest, blob"),
        (";digest=sha256:" + "0" * 64 + ";platform=amd64", BBFetchException, "not of the form OS/ARCHITECTURE"),
        (";digest=sha256:" + "0" * 64 + ";size=many", BBFetchException, "not a number of bytes"),
    ],
)
def test_bad_urls(metadata, tail, error, says):
    with pytest.raises(error, match=says):
        Fetch([f"oci://hub.demo.test/a/b{tail}"], metadata())


def test_an_index_needs_a_platform(metadata, image, caplog):
    with pytest.raises(BBFetchException):
        Fetch([f"oci://{image.ref};digest={image.digest}"], metadata()).download()
    assert "say which image of it with platform=OS/ARCHITECTURE" in caplog.text


def test_an_absent_platform_is_named(metadata, image, caplog):
    with pytest.raises(FetchError):
        Fetch([f"oci://{image.ref};digest={image.digest};platform=linux/riscv64"], metadata()).download()
    assert "has no image for linux/riscv64; it has: linux/amd64, linux/arm64" in caplog.text


def test_checkstatus(metadata, image):
    d = metadata()
    Fetch([image.url], d).checkstatus()
    with pytest.raises(FetchError):
        Fetch([f"oci://{image.ref};type=blob;digest=sha256:{'0' * 64}"], d).checkstatus()
    assert downloads(d) == []


def test_subdir_stays_in_the_unpack_directory(metadata, image, tmp_path):
    url = f"oci://{image.ref};type=blob;digest={image.layer['digest']};subdir=../out"
    d = metadata()
    Fetch([url], d).download()
    with pytest.raises(bb.fetch2.UnpackError, match="leaves the unpack directory"):
        Fetch([url], d).unpack(str(tmp_path / "work"))
    assert not (tmp_path / "out").exists()
