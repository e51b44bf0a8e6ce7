# SPDX-License-Identifier: MIT
"""composeapps bundle: made from a real registry, verified as a device would, and forged in many ways."""

import datetime
import fcntl
import json
import os
import shutil
import tarfile

import pytest

from composeapps.delivery import bundles, refresh
from composeapps.delivery.stored import Stored
from composeapps.delivery.trust import TrustError
from composeapps.errors import ComposeAppsError
from composeapps.signing import bundle as making
from composeapps.signing import documents as docs
from composeapps.signing import keys
from composeapps.signing.repository import Repository
from composeapps.store.store import Store
from signing.conftest import Factory, command
from support import apps, images

LATER = datetime.timedelta(days=60)


@pytest.fixture(scope="module")
def _made(first_factory, registry, tmp_path_factory):
    """The directory of a factory with shop-1 and shop-2, of one image more, and with a bundle of the second."""
    place = tmp_path_factory.mktemp("bundle") / "factory"
    shutil.copytree(first_factory, place)
    factory = Factory(place)
    factory.endpoint = registry.endpoint
    made = [images.multi_platform("front"), images.multi_platform("back")]
    for count in (1, 2):
        ref = apps.publish(registry, f"{registry.host}/bundled/shop:{count}",
                           {f"s{at}": image for at, image in enumerate(made[:count])})
        factory.do("create", "--name", "shop", "--hardware", "pc", "--tag", "main", "--app", ref, "--endpoint",
                   registry.endpoint)
    done = create(factory, place / "shop.bundle")
    assert done.status == 0, done.err
    return place


@pytest.fixture
def shop(_made, registry, tmp_path):
    """That factory, for one test; ``endpoint`` is the registry's, ``root`` the root that is trusted."""
    shutil.copytree(_made, tmp_path / "factory")
    factory = Factory(tmp_path / "factory")
    factory.endpoint, factory.root = registry.endpoint, factory.place / "trusted.json"
    factory.root.write_bytes((factory.repository / "1.root.json").read_bytes())
    return factory


@pytest.fixture
def made(shop):
    """The directory of its bundle."""
    return shop.place / "shop.bundle"


def create(factory, place, *words, tag="main"):
    return command("create", factory.repository, place, "--tag", tag, "--platform", "linux/amd64", "--endpoint",
                   factory.endpoint, "--keys", factory.keys, *words, of="bundle")


def verify(factory, place, *words):
    return command("verify", place, "--root", factory.root, *words, of="bundle")


def test_a_bundle_has_all_that_a_device_needs_and_says_for_whom(shop, made, tmp_path):
    done = verify(shop, made, "--json")
    assert done.status == 0, done.err
    value = json.loads(done.out)
    assert (value["tag"], value["hardware_ids"], value["lacking"]) == ("main", ["pc"], None)
    assert [each["target"] for each in value["targets"]] == ["shop-2"]
    assert not made.with_name("shop.bundle.part").exists()
    store = Store(made / "apps")
    assert [str(ref) for ref in store.list_apps()] == [value["targets"][0]["apps"]["shop"]]
    # A device that walked on by the network takes it as well, and one that saw newer metadata keeps that.
    state = tmp_path / "device"
    (state / "seeds").mkdir(parents=True)
    (state / "seeds" / "1.root.json").write_bytes(shop.root.read_bytes())
    shop.do("rotate", "root", "--add", shop.key("root2"), "--remove", shop.keys / "root.pub")
    shop.do("renew")
    stored, told = Stored(state / "state", state / "seeds", "main"), []

    def fetch(name, limit):
        path = shop.repository / name
        return path.read_bytes() if path.exists() else None

    refresh.refresh(stored, fetch)
    seen = stored.seen("timestamp").version
    offer = bundles.believe(bundles.Bundle(made), Stored(state / "state", state / "seeds", "main"), told.append)
    assert [each.name for each in offer.targets] == ["shop-2"] and "older than what is known" in told[0]
    assert Stored(state / "state", state / "seeds", "main").seen("timestamp").version == seen
    # What was revoked since is not given any more to who knows of that.
    shop.do("revoke", "shop-2")
    refresh.refresh(Stored(state / "state", state / "seeds", "main"), fetch)
    offer = bundles.believe(bundles.Bundle(made), Stored(state / "state", state / "seeds", "main"), told.append)
    assert offer.targets == ()


def test_it_is_good_for_longer_than_its_timestamp_but_not_for_ever(shop, made):
    now = datetime.datetime.now(datetime.UTC)
    offer, _absent = making.verify(made, shop.root, at=now + LATER)
    assert [each.name for each in offer.targets] == ["shop-2"]
    with pytest.raises(TrustError, match="was good until"):
        making.verify(made, shop.root, at=now + 2 * LATER)
    with pytest.raises(TrustError, match="root"):
        making.verify(made, shop.root, at=now + 20 * LATER)


def test_one_file_is_the_same_bundle(shop, tmp_path):
    place = tmp_path / "shop.tar"
    assert create(shop, place).status == 0
    with tarfile.open(place) as tar:
        names = tar.getnames()
    assert names[0].startswith("tuf/") and not any(name.startswith(("/", ".")) for name in names)
    assert [path.name for path in tmp_path.iterdir() if "shop" in path.name] == ["shop.tar"]
    assert verify(shop, place).status == 0
    place.write_bytes(place.read_bytes()[:-30_000])
    done = verify(shop, place)
    assert done.status in (3, 4) and done.err.count("\n") == 1
    hostile = tmp_path / "hostile.tar"
    with tarfile.open(hostile, "w") as tar:
        info = tarfile.TarInfo("../../outside")
        tar.addfile(info)
    done = verify(shop, hostile)
    assert done.status == 4 and not (tmp_path.parent / "outside").exists()


def test_what_a_named_version_has_is_left_out(shop, made, tmp_path):
    place = tmp_path / "small.bundle"
    assert create(shop, place, "--lacking", "shop-1").status == 0
    value = json.loads(verify(shop, place, "--json").out)
    assert value["lacking"] == "shop-1" and value["layers_left_out"] >= 1
    small, whole = ({path.name for path in (each / "apps/blobs/sha256").iterdir()} for each in (place, made))
    assert small < whole and len(whole) - len(small) == value["layers_left_out"]
    # A bundle that does not say so may lack nothing.
    (made / "apps/blobs/sha256" / sorted(whole - small)[0]).unlink()
    assert verify(shop, made).status == 4


def _rewrite(path, change):
    value = json.loads(path.read_text())
    change(value["signed"])
    path.write_text(json.dumps(value))


def test_what_is_forged_or_damaged_is_refused(shop, made, tmp_path):
    other = tmp_path / "other.json"
    other.write_bytes(shop.root.read_bytes().replace(b'"version":1', b'"version":2'))
    trusted, shop.root = shop.root, other
    assert verify(shop, made).status in (4, 17)
    shop.root = trusted
    tuf = made / "tuf"

    def spoil(name, action):
        copied = tmp_path / "copy"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(made, copied)
        action(copied / name)
        done = verify(shop, copied)
        assert done.status in (3, 4, 17) and done.err.count("\n") >= 1 and done.out == "", (name, done)
        return done

    said = "tuf/bundle-targets.json"
    for change in (lambda signed: signed["x-fio-offline-bundle"].update(tag="prod"),
                   lambda signed: signed["x-fio-offline-bundle"].update(targets=["shop-1"]),
                   lambda signed: signed.update(expires="2099-01-01T00:00:00Z"),
                   lambda signed: signed.pop("x-fio-offline-bundle")):
        assert spoil(said, lambda path, change=change: _rewrite(path, change)).status == 17
    targets = next(path.name for path in tuf.glob("*.targets.json"))
    for name in (f"tuf/{targets}", "tuf/timestamp.json", "tuf/3.snapshot.json"):
        spoil(name, lambda path: path.unlink())
        spoil(name, lambda path: path.write_bytes(b""))
        spoil(name, lambda path: path.write_bytes(path.read_bytes()[:-9]))
    spoil(said, lambda path: path.unlink())
    spoil(said, lambda path: path.write_bytes((tuf / targets).read_bytes()))
    spoil("apps", shutil.rmtree)
    # Among so many there are a manifest, a configuration, a layer and what is optional.
    for blob in sorted((made / "apps/blobs/sha256").iterdir())[::2]:
        spoil(f"apps/blobs/sha256/{blob.name}", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"~"))


def test_a_wave_cannot_make_a_bundle(shop, made):
    ci = shop.key("ci")
    shop.do("wave", "canary", "--wave-key", ci, "--tag", "main")
    (shop.keys / "targets.pem").unlink()
    done = create(shop, shop.place / "forged")
    assert done.status == 2 and "targets lacks 1 signature" in done.err
    assert not (shop.place / "forged").exists() and not (shop.place / "forged.part").exists()
    state = Repository(shop.repository).read()
    document = docs.Metadata.from_bytes((made / "tuf" / "bundle-targets.json").read_bytes())
    document.signatures.clear()
    document.sign(keys.find(ci, keys.PassPhrases()).signer())
    (made / "tuf" / "bundle-targets.json").write_bytes(document.to_bytes())
    assert verify(shop, made).status == 17 and "canary" in state.waves


def test_what_cannot_be_made_is_one_sentence(shop, made, tmp_path):
    for words, tag, status, said in (
            ([], "nothing", 3, "no Target for the tag nothing"), (["--hardware", "arm"], "main", 3, "the hardware arm"),
            (["--target", "shop-9"], "main", 3, "no Target 'shop-9'"), (["--lacking", "x"], "main", 3, "no Target 'x'"),
            (["--target", "shop-1", "--hardware", "arm"], "main", 2, "would not take it"),
            (["--days", "0"], "main", 2, "--days 0"), (["--platform", "what"], "main", 2, "what")):
        done = create(shop, tmp_path / "x", *words, tag=tag)
        assert (done.status, done.err.count("\n")) == (status, 1) and said in done.err, done.err
    done = create(shop, made)
    assert done.status == 2 and "is there already" in done.err
    assert create(shop, tmp_path / "arm", "--platform", "linux/riscv64").status == 3
    assert not (tmp_path / "arm").exists()
    for place in (tmp_path, tmp_path / "none"):
        assert verify(shop, place).status == 3


def test_a_try_that_was_cut_off_is_gone_on_with(shop, monkeypatch, tmp_path):
    place, real = tmp_path / "cut.bundle", docs.dump

    def cut(document, role):
        raise ComposeAppsError("the stick is gone")

    monkeypatch.setattr(docs, "dump", cut)
    assert create(shop, place).status == 1
    monkeypatch.setattr(docs, "dump", real)
    part = place.with_name("cut.bundle.part")
    assert part.is_dir() and not place.exists()
    kept = {path.stat().st_ino for path in (part / "apps/blobs/sha256").iterdir()}
    # Nothing of another bundle gets into this one.
    (part / "apps/apps/strange").mkdir()
    descriptor = os.open(part, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    done = create(shop, place)
    assert done.status == 9 and "another command is at work" in done.err
    os.close(descriptor)
    assert create(shop, tmp_path / "other.bundle", "--target", "shop-1").status == 0
    (tmp_path / "other.bundle").rename(tmp_path / "again.bundle.part")
    assert create(shop, tmp_path / "again.bundle").status == 0
    assert len(list(Store(tmp_path / "again.bundle" / "apps").list_apps())) == 1
    (part / "apps/apps/strange").rmdir()
    assert create(shop, place).status == 0 and verify(shop, place).status == 0
    assert kept <= {path.stat().st_ino for path in (place / "apps/blobs/sha256").iterdir()}
    assert not (place / "made-for.json").exists()
    assert not place.with_name("cut.bundle.part").exists()
