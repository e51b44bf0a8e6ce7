# SPDX-License-Identifier: MIT
"""scripts/gen-recipes against a real registry: what a recipe says, when it changes, what is refused."""

import json
import re

import pytest

from recipes.command import main
from support import apps, images

TWO = ("linux/amd64", "linux/arm64")
ZERO = "sha256:" + "0" * 64


def licensed(text, label, platforms=TWO):
    labels = {"org.opencontainers.image.licenses": label} if label else {}
    return images.multi_platform(text, platforms, labels)


@pytest.fixture
def top(tmp_path):
    (tmp_path / "conf" / "apps").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def generate(top, registry, monkeypatch, capsys):
    """Run gen-recipes over ``top``; returns (status, output, errors)."""
    monkeypatch.chdir(top)
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)

    def run(*argv):
        status = main(["--output", "recipes", *argv], top)
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def shop(top, registry, factory_name):
    """An app of two services with its file conf/apps/shop.yml; its ``uri`` and images."""
    service_images = {"front": licensed("front", "MIT AND BSD-3-Clause"), "back": licensed("back", "MIT OR Apache-2.0")}
    reference = f"{registry.host}/{factory_name}/shop:1"
    pinned = apps.publish(registry, reference, service_images, {"site.conf": "listen 80;\n"})
    write(top, "shop", f"uri: {reference}\nversion: '2.5'\nsummary: A shop\nhomepage: https://shop.example/\n")
    return {"reference": reference, "uri": pinned, "images": service_images}


def write(top, name, text):
    path = top / "conf" / "apps" / f"{name}.yml"
    path.write_text(text)
    return path


def read(path):
    """Return the variables of a recipe; a flag is "NAME[flag]"."""
    found = re.findall(r'^([A-Z_]+(?:\[[a-z0-9-]+\])?) = "((?:[^"\\]|\\\n)*)"$', path.read_text(), re.MULTILINE)
    return {name: " ".join(value.replace("\\\n", " ").split()) for name, value in found}


def recipe_of(top, name="shop", version="2.5"):
    return top / "recipes" / f"composeapp-{name}" / f"composeapp-{name}_{version}.bb"


def expected_url(repo, digest, size, kind):
    return f"oci://{repo};digest={digest};type={kind};size={size}"


def test_recipe_pins_the_app_with_every_blob(generate, shop, top, registry):
    assert generate()[0] == 0
    recipe = read(recipe_of(top))
    repo, digest = shop["uri"].split("@")
    pinned = {name: f"{repo}-{name}@{image.digest}" for name, image in shop["images"].items()}

    assert recipe["COMPOSEAPP_NAME"] == "shop"
    assert recipe["COMPOSEAPP_URI"] == shop["uri"]
    assert recipe["COMPOSEAPP_IMAGES"].split() == sorted(pinned.values())
    assert recipe["COMPOSEAPP_PLATFORMS"] == "linux/amd64 linux/arm64"
    assert (recipe["SUMMARY"], recipe["HOMEPAGE"]) == ("A shop", "https://shop.example/")
    assert "inherit composeapp\n" in recipe_of(top).read_text()

    common = recipe["COMPOSEAPP_BLOBS"].split()
    for name, image in shop["images"].items():
        assert expected_url(f"{repo}-{name}", image.digest, len(image.content), "manifest") in common
        for entry in image.document["manifests"]:
            platform = f"{entry['platform']['os']}-{entry['platform']['architecture']}"
            own = recipe[f"COMPOSEAPP_BLOBS[{platform}]"].split()
            manifest = json.loads(image.manifests[entry["digest"]][1])
            assert expected_url(f"{repo}-{name}", entry["digest"], entry["size"], "manifest") in own
            for blob in (manifest["config"], *manifest["layers"]):
                assert expected_url(f"{repo}-{name}", blob["digest"], blob["size"], "blob") in own
    urls = common + recipe["COMPOSEAPP_BLOBS[linux-amd64]"].split() + recipe["COMPOSEAPP_BLOBS[linux-arm64]"].split()
    assert len(urls) == len(set(urls))
    for url in urls:
        check_served(registry, url)
    assert any(digest in url for url in common)


def check_served(registry, url):
    """Check that a registry serves what an oci:// URL promises, in the size that it promises."""
    place, *parameters = url.removeprefix("oci://").split(";")
    values = dict(parameter.split("=", 1) for parameter in parameters)
    repo = place.split("/", 1)[1]
    collection = {"manifest": "manifests", "blob": "blobs"}[values["type"]]
    status, _, body = images.send(
        registry, "GET", f"/v2/{repo}/{collection}/{values['digest']}", repo,
        headers={"Accept": f"{images.MANIFEST}, {images.INDEX}"},
    )
    assert status == 200, url
    assert (images.sha256(body), len(body)) == (values["digest"], int(values["size"]))


def test_no_layer_is_downloaded(generate, shop, top, registry):
    for image in shop["images"].values():
        for content in (json.loads(data) for _, data in image.manifests.values()):
            for layer in content["layers"]:
                registry.blob_path(layer["digest"]).unlink()
    assert generate()[0] == 0
    assert recipe_of(top).exists()


def test_licences_of_all_images_are_joined(generate, shop, top):
    generate()
    assert read(recipe_of(top))["LICENSE"] == "(MIT | Apache-2.0) & BSD-3-Clause & MIT"


def test_licence_of_the_file_wins(generate, shop, top):
    write(top, "shop", f"uri: {shop['reference']}\nlicense: GPL-2.0-only WITH Linux-syscall-note OR MIT\n")
    assert generate()[0] == 0
    assert read(recipe_of(top, version="1.0"))["LICENSE"] == "GPL-2.0-only-with-Linux-syscall-note | MIT"


@pytest.mark.parametrize("label", [None, "see the (web site"])
def test_undeclared_licence_is_closed_and_warned_of(generate, top, registry, factory_name, label):
    reference = f"{registry.host}/{factory_name}/odd:1"
    apps.publish(registry, reference, {"one": licensed("one", "MIT"), "two": licensed("two", label)})
    write(top, "odd", f"uri: {reference}\n")
    status, _, errors = generate()
    assert status == 0
    assert read(recipe_of(top, "odd", "1.0"))["LICENSE"] == "CLOSED"
    assert "warning: conf/apps/odd.yml: image " in errors
    assert "odd-two@sha256:" in errors
    assert "set 'license'" in errors


def test_what_an_image_declares_cannot_break_out_of_the_recipe(generate, top, registry, factory_name):
    reference = f"{registry.host}/{factory_name}/evil:1"
    apps.publish(registry, reference, {"one": licensed("one", 'MIT"\nEVIL = "1"\n# \\\n')})
    write(top, "evil", f"uri: {reference}\n")
    assert generate()[0] == 0
    text = recipe_of(top, "evil", "1.0").read_text()
    assert not re.search(r"^EVIL", text, re.MULTILINE)
    assert not [line for line in text.splitlines() if line.startswith("#") and line.endswith("\\")]


def test_second_run_changes_nothing(generate, shop, top):
    generate()
    recipe = recipe_of(top)
    before = recipe.stat(), recipe.read_bytes()
    status, output, _ = generate()
    after = recipe.stat()
    assert status == 0
    assert "shop: unchanged" in output
    assert (after.st_ino, after.st_mtime_ns, recipe.read_bytes()) == (
        before[0].st_ino, before[0].st_mtime_ns, before[1])


def test_recipe_says_that_it_is_generated_and_from_what(generate, shop, top):
    generate()
    first = recipe_of(top).read_text().splitlines()[0]
    assert first == "# Generated by scripts/gen-recipes from conf/apps/shop.yml: do not edit."


def test_moved_tag_changes_the_recipe(generate, shop, top, registry):
    generate()
    old = recipe_of(top).read_text()
    assert generate("--check")[0] == 0
    newer = {**shop["images"], "back": licensed("another back", "MIT")}
    pinned = apps.publish(registry, shop["reference"], newer)

    status, output, _ = generate("--check")
    assert status == 1
    assert "would be written" in output
    assert recipe_of(top).read_text() == old

    assert generate()[0] == 0
    assert read(recipe_of(top))["COMPOSEAPP_URI"] == pinned != shop["uri"]
    assert generate("--check")[0] == 0


def test_pinned_uri_stays_when_the_tag_moves(generate, shop, top, registry):
    write(top, "shop", f"uri: {shop['uri']}\n")
    generate()
    before = recipe_of(top, version="1.0").read_text()
    apps.publish(registry, shop["reference"], {"front": licensed("new", "MIT")})
    generate()
    assert recipe_of(top, version="1.0").read_text() == before


def test_new_version_replaces_the_old_recipe(generate, shop, top):
    generate()
    write(top, "shop", f"uri: {shop['reference']}\nversion: '2.6'\n")
    assert generate()[0] == 0
    assert [path.name for path in (top / "recipes" / "composeapp-shop").iterdir()] == ["composeapp-shop_2.6.bb"]


def test_recipe_of_an_app_that_is_gone(generate, shop, top):
    generate()
    (top / "conf" / "apps" / "shop.yml").rename(top / "conf" / "apps" / "store.yml")
    with (top / "conf" / "apps" / "store.yml").open("a") as stream:
        stream.write("name: store\n")
    own = top / "recipes" / "composeapp-mine" / "composeapp-mine_1.0.bb"
    own.parent.mkdir()
    own.write_text('SUMMARY = "written by hand"\n')

    status, _, errors = generate()
    assert status == 0
    assert "composeapp-shop_2.5.bb is of an app that is gone" in errors
    assert recipe_of(top).exists()

    assert generate("--prune")[0] == 0
    assert not recipe_of(top).parent.exists()
    assert recipe_of(top, "store").exists()
    assert own.exists()


def test_one_file_alone_leaves_the_other_recipes(generate, shop, top, registry, factory_name):
    apps.publish(registry, f"{registry.host}/{factory_name}/other:1", {"one": licensed("one", "MIT")})
    other = write(top, "other", f"uri: {registry.host}/{factory_name}/other:1\n")
    generate()
    status, output, errors = generate("--prune", str(other))
    assert status == 0
    assert "shop" not in output + errors
    assert recipe_of(top).exists()


def test_handwritten_recipe_is_not_overwritten(generate, shop, top):
    recipe_of(top).parent.mkdir(parents=True)
    recipe_of(top).write_text('SUMMARY = "written by hand"\n')
    status, _, errors = generate()
    assert status == 2
    assert "was not generated" in errors
    assert recipe_of(top).read_text() == 'SUMMARY = "written by hand"\n'


def test_json_tells_a_machine_the_same(generate, shop, top):
    status, output, _ = generate("--json")
    told = json.loads(output)["recipes"][0]
    assert status == 0
    assert (told["name"], told["state"], told["uri"]) == ("shop", "written", shop["uri"])
    recipe = read(top / told["recipe"])
    for platform in TWO:
        urls = recipe["COMPOSEAPP_BLOBS"] + " " + recipe[f"COMPOSEAPP_BLOBS[{platform.replace('/', '-')}]"]
        assert told["platforms"][platform] == sum(map(int, re.findall(r"size=(\d+)", urls)))


def test_platforms_are_those_that_every_image_has(generate, top, registry, factory_name):
    reference = f"{registry.host}/{factory_name}/mixed:1"
    three = ("linux/amd64", "linux/arm/v7", "linux/arm64/v8")
    apps.publish(registry, reference, {
        "one": licensed("one", "MIT", three), "two": licensed("two", "MIT", ("linux/arm/v7", "linux/arm64")),
    })
    write(top, "mixed", f"uri: {reference}\n")
    assert generate()[0] == 0
    recipe = read(recipe_of(top, "mixed", "1.0"))
    assert recipe["COMPOSEAPP_PLATFORMS"] == "linux/arm/v7 linux/arm64"
    assert "COMPOSEAPP_BLOBS[linux-arm-v7]" in recipe
    assert "COMPOSEAPP_BLOBS[linux-amd64]" not in recipe


def test_platforms_can_be_narrowed(generate, shop, top):
    write(top, "shop", f"uri: {shop['reference']}\nplatforms: [linux/arm64]\n")
    assert generate()[0] == 0
    recipe = read(recipe_of(top, version="1.0"))
    assert recipe["COMPOSEAPP_PLATFORMS"] == "linux/arm64"
    assert "COMPOSEAPP_BLOBS[linux-amd64]" not in recipe


def test_image_without_index_has_the_platform_of_its_config(generate, top, registry, factory_name):
    reference = f"{registry.host}/{factory_name}/single:1"
    label = {"org.opencontainers.image.licenses": "MIT"}
    apps.publish(registry, reference, {"one": images.make_image(platform="linux/riscv64", labels=label)})
    write(top, "single", f"uri: {reference}\n")
    assert generate()[0] == 0
    recipe = read(recipe_of(top, "single", "1.0"))
    assert recipe["COMPOSEAPP_PLATFORMS"] == "linux/riscv64"


def refused(generate, top, status, *words):
    """Check that gen-recipes ends with ``status`` and one sentence that has ``words``, and writes nothing."""
    got, output, errors = generate("--quiet")
    assert got == status, errors
    assert len(errors.splitlines()) == 1, errors
    for word in words:
        assert word in errors
    assert not output
    assert not (top / "recipes").exists()


def test_missing_platform(generate, shop, top):
    write(top, "shop", f"uri: {shop['reference']}\nplatforms: [linux/amd64, linux/riscv64]\n")
    refused(generate, top, 3, "conf/apps/shop.yml", "no image for linux/riscv64", "linux/amd64, linux/arm64")


def test_images_without_a_platform_in_common(generate, top, registry, factory_name):
    reference = f"{registry.host}/{factory_name}/torn:1"
    apps.publish(registry, reference, {
        "one": licensed("one", "MIT", ("linux/amd64",)), "two": licensed("two", "MIT", ("linux/arm64",)),
    })
    write(top, "torn", f"uri: {reference}\n")
    refused(generate, top, 3, "conf/apps/torn.yml", "no Linux platform in common")


def test_one_bad_app_keeps_all_from_being_written(generate, shop, top, registry, factory_name):
    write(top, "zz-missing", f"uri: {registry.host}/{factory_name}/nowhere:1\n")
    refused(generate, top, 3, "conf/apps/zz-missing.yml", f"{factory_name}/nowhere:1")


def test_unreachable_registry(generate, shop, top, monkeypatch):
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", "hub.demo.test=http://127.0.0.1:1")
    refused(generate, top, 5, "conf/apps/shop.yml", "registry hub.demo.test (http://127.0.0.1:1) cannot be reached")


def test_endpoint_option_goes_before_the_environment(generate, shop, top, registry, monkeypatch):
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", "hub.demo.test=http://127.0.0.1:1")
    assert generate("--endpoint", registry.endpoint)[0] == 0


def test_damaged_manifest_in_the_registry(generate, shop, top, registry):
    image = shop["images"]["front"]
    digest = image.document["manifests"][0]["digest"]
    content = registry.blob_path(digest).read_bytes()
    registry.blob_path(digest).write_bytes(content.replace(b'"size":', b'"size":1'))
    refused(generate, top, 4, "conf/apps/shop.yml", digest)


def test_damaged_bundle_in_the_registry(generate, shop, top, registry):
    repo, digest = images.split_reference(shop["uri"])
    manifest = json.loads(images.send(
        registry, "GET", f"/v2/{repo}/manifests/{digest}", repo, headers={"Accept": images.MANIFEST})[2])
    bundle = registry.blob_path(manifest["layers"][0]["digest"])
    bundle.write_bytes(bundle.read_bytes()[:-4] + b"oops")
    refused(generate, top, 4, "conf/apps/shop.yml", manifest["layers"][0]["digest"])


def test_bundle_without_a_compose_file(generate, top, registry, factory_name):
    reference = f"{registry.host}/{factory_name}/empty:1"
    apps.push_app(registry, reference, apps.make_app(None, {"readme": "no compose file here\n"}))
    write(top, "empty", f"uri: {reference}\n")
    refused(generate, top, 3, "conf/apps/empty.yml", "has no docker-compose.yml")


def test_compose_file_that_is_not_pinned(generate, top, registry, factory_name):
    reference = f"{registry.host}/{factory_name}/loose:1"
    apps.push_app(registry, reference, apps.make_app("services:\n  web:\n    image: hub.demo.test/f/web:1\n"))
    write(top, "loose", f"uri: {reference}\n")
    refused(generate, top, 4, "conf/apps/loose.yml", "service 'web'", "no digest")


def test_plain_image_is_no_app(generate, top, registry, factory_name):
    images.push_image(registry, f"{registry.host}/{factory_name}/plain:1", images.multi_platform())
    write(top, "plain", f"uri: {registry.host}/{factory_name}/plain:1\n")
    refused(generate, top, 4, "conf/apps/plain.yml", "no compose app")


def test_registry_that_wants_a_login(generate, top, auth_registry, factory_name, monkeypatch):
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", auth_registry.endpoint)
    reference = f"{auth_registry.host}/{factory_name}/private:1"
    apps.publish(auth_registry, reference, {"one": licensed("one", "MIT")})
    write(top, "private", f"uri: {reference}\n")
    refused(generate, top, 5, "conf/apps/private.yml", "REGISTRY_AUTH_FILE")

    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth_registry.auth_file))
    status, output, errors = generate()
    assert status == 0
    assert auth_registry.password not in output + errors + recipe_of(top, "private", "1.0").read_text()


@pytest.mark.parametrize("text, complaint", [
    ("uri: h.test/f/a:1\nverison: '1'\n", ":2: verison: unknown field; did you mean 'version'?"),
    ("uri: h.test/f/a:1\nversion: 1.10\n", ":2: version: 1.1 is not text: put it in quotes"),
    ("uri: h.test/f/a:1\nversion: '1_0'\n", ":2: version: \"1_0\" is not made of letters"),
    ("# nothing\nversion: '1'\n", ":1: uri: missing: the published app"),
    ("", ":1: uri: missing"),
    ("- a\n- b\n", ":1: uri: missing"),
    ("uri: h.test/f/a:1\n\nplatforms:\n  - linux/amd64\n  - windows/x\n", ":5: platforms[1]: \"windows/x\" is not"),
    ("uri: h.test/f/a:1\nplatforms: [linux/arm64, linux/arm64]\n", ":2: platforms: names a platform twice"),
    ("uri: h.test/f/a:1\nplatforms: linux/arm64\n", ":2: platforms: \"linux/arm64\" is not a list of platforms"),
    ("uri: H.test/F/A:1\n", ":1: uri: app 'H.test/F/A:1' is not of the form"),
    (f"uri: h.test/f/a@{ZERO[:-1]}\n", ":1: uri: app 'h.test/f/a@sha256:"),
    ("uri: h.test/f/a_b:1\n", ":1: uri: 'a_b' cannot be part of a recipe's name: set 'name'"),
    ("uri: h.test/f/a:1\nversion: |\n  1.0\n", ":2: version: \"1.0\\n\" is not made of letters"),
    ("uri: h.test/f/a:1\nname: Web\n", ":2: name: \"Web\" is not made of lower-case letters"),
    ("uri: h.test/f/a:1\nlicense: MIT AND\n", ":2: license: 'MIT AND' is not a licence expression"),
    ("uri: h.test/f/a:1\nsummary: 'say \"hi\"'\n", ":2: summary: \"say \\\"hi\\\"\" is not made of text without"),
    ("uri: h.test/f/a:1\ndescription: ${@os.system('x')}\n", ":2: description: "),
    ("uri: h.test/f/a:1\nhomepage: shop\n", ":2: homepage: \"shop\" is not an http or https URL"),
    ("uri: h.test/f/a:1\nuri: h.test/f/b:1\n", ":2: uri: is given twice (line 1)"),
    ("uri: h.test/f/a:1\n  bad: : indent\n", ":2: not YAML"),
    ("uri: [h.test/f/a:1\n", "not YAML"),
    ("uri: h.test/f/a:1\nversion: '1\\n0'\nsummary: !!python/object:os.system x\n", "not YAML"),
])
def test_bad_app_file_names_file_line_and_field(generate, top, text, complaint):
    write(top, "bad", text)
    refused(generate, top, 2, "gen-recipes: conf/apps/bad.yml" + (complaint if complaint[0] == ":" else ":"), complaint)


def test_every_complaint_is_told_at_once(generate, top):
    write(top, "a", "version: 1\ncolour: red\n")
    write(top, "b", "uri: h.test/f/b:1\nplatforms: []\n")
    status, _, errors = generate()
    assert status == 2
    complaints = [": ".join(line.split(": ")[1:3]) for line in errors.splitlines()]
    assert sorted(complaints) == [
        "conf/apps/a.yml:1: uri", "conf/apps/a.yml:1: version", "conf/apps/a.yml:2: colour",
        "conf/apps/b.yml:2: platforms",
    ]


def test_two_files_for_one_app(generate, top):
    write(top, "a", "uri: h.test/f/web:1\n")
    write(top, "b", "uri: h.test/g/web:1\n")
    refused(generate, top, 2, "conf/apps/b.yml:1: name: 'web' is the app of conf/apps/a.yml already")


def test_no_app_files_at_all(generate, top):
    refused(generate, top, 3, "conf/apps has no *.yml")
    status, _, errors = generate("nowhere.yml")
    assert (status, len(errors.splitlines())) == (3, 1)
