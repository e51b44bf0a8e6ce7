# SPDX-License-Identifier: MIT
"""scripts/gen-recipes --target: recipes of what a factory signed, and of nothing else."""

import json

import pytest

import hostsetup
from recipes.command import main
from signing.conftest import Factory, make_key
from support import apps, images


@pytest.fixture
def factory(tmp_path, registry, factory_name):
    """A Factory with a Target "shop-1" of two apps that are in the registry; ``refs`` are theirs."""
    made = Factory(tmp_path / "factory")
    made.keys.mkdir(parents=True)
    for name in ("root", "targets", "online"):
        make_key(made.keys / f"{name}.pem")
    made.do("init")
    made.refs = [apps.publish(registry, f"{registry.host}/{factory_name}/{name}:1",
                              {"front": images.multi_platform(name)}) for name in ("front", "shop")]
    made.do("create", "--name", "shop", "--hardware", "pc", "--tag", "main", "--app", made.refs[0], "--app",
            made.refs[1], "--endpoint", registry.endpoint)
    return made


@pytest.fixture
def generate(tmp_path, registry, factory, monkeypatch, capsys):
    """Run gen-recipes for a Target; returns (status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    monkeypatch.setattr(hostsetup, "BUILD", tmp_path / "build")
    root = tmp_path / "root.json"
    root.write_bytes((factory.repository / "1.root.json").read_bytes())

    def run(name, *words, root=root):
        capsys.readouterr()
        status = main(["--target", f"{factory.repository}/{name}", "--root", str(root), *words], tmp_path)
        return (status, *capsys.readouterr())

    return run


def test_all_apps_of_a_target_become_recipes(generate, factory, tmp_path):
    status, out, errors = generate("shop-1", "--json")
    assert status == 0, errors
    assert {recipe["name"]: recipe["uri"] for recipe in json.loads(out)["recipes"]} == dict(
        zip(("front", "shop"), factory.refs, strict=True))
    text = (tmp_path / "build/recipes/composeapp-shop/composeapp-shop_1.0.bb").read_text()
    assert "# It is an app of the signed Target shop-1." in text and f'COMPOSEAPP_URI = "{factory.refs[1]}"' in text
    assert 'COMPOSEAPP_TARGET = "shop-1"\nCOMPOSEAPP_TARGET_VERSION = "1"\n' in text
    # The repository goes on, by another root key, and the same root still leads there.
    factory.do("rotate", "root", "--add", factory.key("new"), "--remove", factory.keys / "root.pub")
    assert generate("shop-1", "--check")[0] == 0


def test_what_is_not_signed_by_that_root_makes_no_recipe(generate, factory, tmp_path):
    (tmp_path / "other").mkdir()
    other = Factory(tmp_path / "other")
    other.keys.mkdir()
    for name in ("root", "targets", "online"):
        make_key(other.keys / f"{name}.pem")
    other.do("init")
    (tmp_path / "text").write_text("hello")
    for name, root, status, said in (
            ("shop-2", None, 3, "has no Target 'shop-2'"),
            ("shop-1", other.repository / "1.root.json", 4, "signatures that the root 1 asks for are good"),
            ("shop-1", tmp_path / "text", 4, "is no root of signed metadata"),
            ("shop-1", tmp_path / "none", 3, "cannot be read"),
            ("", None, 2, "is not REPO/NAME-VERSION"),
            ("nothing/shop-1", None, 3, "no directory with a repository")):
        done = generate(name, **({"root": root} if root else {}))
        assert (done[0], done[2].count("\n")) == (status, 1) and said in done[2], done


def test_what_somebody_wrote_into_the_repository_makes_no_recipe(generate, factory):
    path = factory.repository / "2.targets.json"
    path.write_bytes(path.read_bytes().replace(b"front", b"frond"))
    done = generate("shop-1")
    assert done[0] == 4 and "is not believed" in done[2]


def test_a_repository_that_goes_back_is_noticed(generate, factory):
    before = factory.files()
    factory.do("renew")
    assert generate("shop-1")[0] == 0
    (factory.repository / "timestamp.json").write_bytes(before["timestamp.json"])
    done = generate("shop-1")
    # In the standard's workflow an older timestamp is refused.
    assert done[0] == 4 and "goes back from" in done[2]
