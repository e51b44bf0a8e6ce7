# SPDX-License-Identifier: MIT
"""The restorable store: what it shows is whole, whatever happened to its writers."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from composeapps import durable
from composeapps.app.tree import RegistrySource, StoreSource, load_app
from composeapps.errors import CorruptError, NotFoundError, StorageError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse
from composeapps.store import appdir, damaged, inventory, partial
from composeapps.store.store import Store
from support import apps, stores
from support.images import make_image, multi_platform

DATA = b"some bytes" * 1000
DIGEST = sha256(DATA)
AMD64 = [Platform("linux", "amd64")]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def everything(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def fill(store, client, uri):
    """Copy an app from a registry into a store; return it as the store has it."""
    ref = parse(uri)
    app = load_app(RegistrySource(client), ref, AMD64)
    for blob in app.blobs():
        digest, size = blob.descriptor.digest, blob.descriptor.size
        if blob.kind == "manifests":
            data = client.manifest(blob.ref, digest)
        else:
            data = client.read_blob(blob.ref, digest, size)
        store.add_blob(digest, [data], size)
    app = load_app(StoreSource(store), ref, AMD64)
    store.add_app(app)
    return app


def test_a_blob_comes_back(store):
    store.add_blob(DIGEST, [DATA[:100], DATA[100:]], len(DATA))
    assert store.read(DIGEST) == DATA
    assert store.blob_path(DIGEST) == store.root / "blobs" / "sha256" / DIGEST[7:]


@pytest.mark.parametrize("chunks", [[DATA[:-1]], [DATA + b"x"], [b"x" + DATA[1:]], []],
                         ids=["short", "long", "other", "empty"])
def test_wrong_bytes_leave_nothing(store, chunks):
    with pytest.raises(CorruptError, match=DIGEST):
        store.add_blob(DIGEST, chunks, len(DATA))
    assert everything(store.root) == []


def test_an_interrupted_source_leaves_nothing(store):
    def chunks():
        yield DATA[:50]
        raise ConnectionResetError("gone")

    with pytest.raises(StorageError):
        store.add_blob(DIGEST, chunks(), len(DATA))
    assert everything(store.root) == []


def test_reading_notices_every_single_flipped_bit(store):
    store.add_blob(DIGEST, [DATA])
    for at in (0, len(DATA) // 2, len(DATA) - 1):
        damaged = bytearray(DATA)
        damaged[at] ^= 1
        store.blob_path(DIGEST).write_bytes(damaged)
        with pytest.raises(CorruptError, match="is damaged"):
            store.read(DIGEST)
        with pytest.raises(CorruptError, match="is damaged"):
            store.parse(DIGEST, lambda stream: stream.read(1))


def test_a_damaged_blob_is_replaced_by_adding_it_again(store):
    store.add_blob(DIGEST, [DATA])
    store.blob_path(DIGEST).write_bytes(DATA[:-1])
    store.add_blob(DIGEST, [DATA])
    assert store.read(DIGEST) == DATA


def test_a_missing_blob_is_named(store):
    with pytest.raises(NotFoundError, match=f"blob {DIGEST} is not in the store"):
        store.read(DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "a" * 64, ""])
def test_no_digest_becomes_another_path(store, digest):
    with pytest.raises(CorruptError, match="is not a digest"):
        store.blob_path(digest)


def test_a_file_is_linked_not_copied(store, tmp_path):
    file = tmp_path / "download"
    file.write_bytes(DATA)
    store.add_file(file, DIGEST, len(DATA))
    assert store.blob_path(DIGEST).samefile(file)
    store.add_file(file, DIGEST, len(DATA))


def test_a_link_to_a_file_becomes_the_file(store, tmp_path):
    (tmp_path / "mirror").write_bytes(DATA)
    (tmp_path / "download").symlink_to(tmp_path / "mirror")
    store.add_file(tmp_path / "download", DIGEST)
    assert not store.blob_path(DIGEST).is_symlink()


def test_a_wrong_file_is_refused(store, tmp_path):
    (tmp_path / "download").write_bytes(DATA[:-1])
    with pytest.raises(CorruptError, match="download is not blob"):
        store.add_file(tmp_path / "download", DIGEST)
    assert everything(store.root) == []


@pytest.mark.parametrize(("number", "words"), [
    (errno.EROFS, r"adding it \(new-0 to conf\): the file system is read-only: mount it for writing"),
    (errno.EPERM, r"adding it \(new-0 to conf\): operation not permitted: .*chattr -i"),
    (errno.ENOTDIR, r"adding it \(new-0 to conf\): Not a directory: something else stands .*move that away"),
    (errno.EIO, r"adding it \(new-0 to conf\): Input/output error"),
])
def test_a_refusal_names_both_names_of_a_rename_and_what_to_do(number, words):
    with pytest.raises(StorageError, match=words), durable.storage_errors("adding it"):
        raise OSError(number, os.strerror(number), "new-0", None, "conf")


@pytest.mark.root
def test_a_full_disk_is_one_sentence_and_leaves_nothing(small_disk):
    store = Store(small_disk / "store")
    big = os.urandom(1024 * 1024)
    with pytest.raises(StorageError, match="the file system is full: free space"):
        store.add_blob(sha256(big * 16), [big] * 16)
    assert everything(store.root) == []


KILLED = textwrap.dedent("""
    import os, signal, sys
    from composeapps import durable
    from composeapps.store import store
    step, data, root = int(sys.argv[1]), sys.stdin.buffer.read(), sys.argv[2]
    count = 0
    def at_each(name):
        real = getattr(os, name)
        def call(*args, **kwargs):
            global count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(os, name, call)
    for name in ("open", "fsync", "rename", "fchmod"):
        at_each(name)
    store.Store(root).add_blob("sha256:" + __import__("hashlib").sha256(data).hexdigest(), [data[:7], data[7:]])
    print("done")
""")


def test_killed_at_each_step_the_blob_is_there_whole_or_not_at_all(store):
    finished = False
    for step in range(1, 60):
        done = subprocess.run([sys.executable, "-c", KILLED, str(step), str(store.root)], input=DATA,
                              capture_output=True, check=False)
        if store.size_of(DIGEST) is not None:
            assert store.read(DIGEST) == DATA
            store.blob_path(DIGEST).unlink()
        if done.returncode == 0:
            finished = True
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert finished and step > 5
    store.add_blob(DIGEST, [DATA])
    store.remove_stale()
    assert everything(store.root) == [f"blobs/sha256/{DIGEST[7:]}"]


def test_layout_is_the_one_the_field_reads(store, client, registry, factory_name):
    images = {"front": multi_platform("front"), "back": make_image()}
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/shop:1", images, {"site.conf": "x"})
    app = fill(store, client, uri)
    home = store.root / "apps" / "shop" / parse(uri).hex
    assert (home / "uri").read_text() == uri
    assert (home / "manifest.json").samefile(store.blob_path(app.ref.digest))
    assert (home / f"{app.bundle.digest[7:]}.tgz").samefile(store.blob_path(app.bundle.digest))
    assert (home / "docker-compose.yml").read_bytes() == app.compose
    for image in app.images.values():
        place = home / "images" / image.ref.host / image.ref.path / image.ref.hex
        assert '"imageLayoutVersion"' in (place / "oci-layout").read_text()
        index = json.loads((place / "index.json").read_text())
        assert [m["digest"] for m in index["manifests"]] == [v.descriptor.digest for v in image.variants]
    # Other platforms' layers are none of this store's business.
    arm = next(m for m in images["front"].document["manifests"] if m["platform"]["architecture"] == "arm64")
    assert store.size_of(arm["digest"]) is None


@pytest.mark.parametrize("manifests", [
    None, {"a": 1}, [3], [{"digest": ["x"]}], [{"digest": {}}], [{}], "x", [{"digest": "sha256:0"}]])
def test_an_odd_list_of_manifests_is_damage(store, client, registry, factory_name, manifests):
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/shop:1", {"front": multi_platform("front")})
    app = fill(store, client, uri)
    listed = next(store.app_dir(app.ref).glob("images/**/index.json"))
    good = json.loads(listed.read_text())["manifests"][0]
    assert appdir.problems(store, app) == []
    for value in (manifests, [{**good, "platform": {"os": ["linux"]}}], [{**good, "annotations": {"a": {}}}]):
        listed.write_text(json.dumps({"schemaVersion": 2, "manifests": value}))
        assert appdir.problems(store, app) == [(listed, "is damaged")]


def test_half_an_app_is_no_app(store, client, registry, factory_name):
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/shop:1", {"front": multi_platform()})
    app = fill(store, client, uri)
    home = store.app_dir(app.ref)
    (home / "uri").unlink()
    assert store.list_apps() == []
    store.add_app(app)
    assert [str(ref) for ref in store.list_apps()] == [uri]
    (home / "uri").write_text("hub.demo.test/other/app@sha256:" + "0" * 64)
    assert store.list_apps() == [], "an app directory that names another app is no app"


def test_what_vouches_for_an_app_comes_when_all_else_is_durable(store, client, registry, factory_name, monkeypatch):
    """Each directory is synced after the last name in it was made, and before uri.sha256 and uri get theirs."""
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/web:1", {"web": multi_platform()})
    app = fill(store, client, uri)
    shutil.rmtree(store.apps)
    changed, syncs = set(), []
    rename, mkdir, sync = os.rename, Path.mkdir, durable.fsync_directory

    def renamed(source, target):
        if Path(target).name.startswith("uri"):
            assert not changed, f"{target} vouches for what may not last"
        rename(source, target)
        changed.add(Path(target).parent)

    def made(path, *args, **options):
        mkdir(path, *args, **options)
        changed.add(path.parent)

    def synced(path):
        sync(path)
        syncs.append(Path(path))
        changed.discard(Path(path))

    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(Path, "mkdir", made)
    monkeypatch.setattr(durable, "fsync_directory", synced)
    store.add_app(app)
    assert not changed and store.list_apps() == [app.ref] and appdir.problems(store, app) == []
    assert store.root in syncs and len(syncs) < 20


def test_finding_apps(store, client, registry, factory_name):
    first = apps.publish(registry, f"{registry.host}/{factory_name}/shop:1", {"front": multi_platform("1")})
    second = apps.publish(registry, f"{registry.host}/{factory_name}/shop:2", {"front": multi_platform("2")})
    fill(store, client, first)
    assert str(store.find_app("shop")) == first
    fill(store, client, second)
    assert str(store.find_app(second)) == second
    with pytest.raises(UsageError, match="2 versions of shop"):
        store.find_app("shop")
    with pytest.raises(NotFoundError, match="app 'bakery' is not in the store .* its apps: shop"):
        store.find_app("bakery")


def test_an_image_without_the_platform_is_named(client, registry, factory_name):
    uri = apps.publish(registry, f"{registry.host}/{factory_name}/shop:1",
                       {"front": multi_platform(platforms=["linux/arm64"])})
    with pytest.raises(NotFoundError, match=r"front@sha256:.* has no image for linux/amd64; it has: linux/arm64"):
        load_app(RegistrySource(client), parse(uri), AMD64)


def test_a_blob_that_cannot_be_read_is_a_damaged_one(tmp_path, monkeypatch):
    store = Store(tmp_path)
    digest = sha256(b"x")
    store.blob_path(digest).mkdir(parents=True)
    assert "cannot be read (Is a directory)" in store.verify(digest)
    with pytest.raises(CorruptError, match="cannot be read"):
        store.read(digest, 1)
    store.blob_path(digest).rmdir()
    store.add_blob(digest, [b"x"], 1)

    def bad_sector(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(store, "_check_size", bad_sector)
    assert "cannot be read (Input/output error)" in store.verify(digest, 1)


@pytest.fixture
def in_time():
    """Have a test fail that waits for ever."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)


KINDS = {"pipe": os.mkfifo, "directory": lambda path: (path / "deep").mkdir(parents=True),
         "link": lambda path: path.symlink_to("nowhere"), "circle": lambda path: path.symlink_to(path.name),
         "socket": lambda path: socket_at(path), "file": Path.touch}


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as server:
        # Its address may not be as long as the path is.
        here = os.getcwd()
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(here)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["apps/shop/*/uri", "apps/shop/*/uri.sha256", "apps/shop/*/manifest.json",
                                   "apps/shop/*/*.tgz", "apps/shop/*/docker-compose.yml", "apps/shop/*/images",
                                   "apps/shop/*/images/**/index.json", "apps/shop/*", "apps", "blobs/sha256/MANIFEST",
                                   "blobs/sha256", "ingest", "ingest/MANIFEST.part", "ingest/MANIFEST.json",
                                   "ingest/MANIFEST.damaged"])
def test_whatever_a_damaged_file_system_made_of_a_file_is_looked_at_without_waiting_and_put_right(
        tmp_path, in_time, kind, place):
    image = make_image({"a": "layer"})
    pinned = f"hub.demo.test/f/x@{image.digest}"
    compose = apps.compose_text({"web": pinned})
    uri = stores.write(tmp_path / "store", "hub.demo.test/f/shop", apps.make_app(compose, {}, [image]), {pinned: image},
                       compose=compose)
    store, ref = Store(tmp_path / "store"), parse(uri)
    content = {path.name: path.read_bytes() for path in store.blobs.iterdir()}
    pattern = place.replace("MANIFEST", ref.hex)
    path = next(iter(sorted(store.root.glob(pattern))), store.root / pattern)
    directory = path.is_dir()
    if path.exists():
        shutil.rmtree(path) if directory else path.unlink()
    path.parent.mkdir(exist_ok=True)
    KINDS[kind](path)
    # Whoever looks at it comes to an end.
    assert set(map(str, store.list_apps())) <= {uri}
    store.has_app(ref)
    store.image_layout(parse(pinned))
    inventory.take(store, ref)
    damaged.check(store, ref.digest, "it")
    for digest in content:
        store.verify(f"sha256:{digest}")
    # Who fetches it again gets a whole one.
    for digest, data in content.items():
        file = partial.Partial(store, f"sha256:{digest}", len(data), "shop")
        if store.verify(f"sha256:{digest}") is None:
            file.remove()
            file.close()
        else:
            file.restart()
            file.append(data)
            file.finish()
    app = load_app(StoreSource(store), ref, AMD64)
    store.add_app(app)
    assert appdir.problems(store, app) == [] and list(map(str, store.list_apps())) == [uri]
    assert all(value is None for value in store.verify_all({f"sha256:{each}": None for each in content}).values())
