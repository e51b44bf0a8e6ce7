# SPDX-License-Identifier: MIT
"""composeapps publish, through its command line, into a real registry."""

import io
import json
import re
import subprocess
import sys
import tarfile

import pytest
import yaml

from composeapps.app import compose
from composeapps.cli.main import main
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse
from support.apps import make_app, push_app
from support.images import make_image, multi_platform, push_image


@pytest.fixture
def publish(registry, factory_name, app_dir, capsys):
    """Run composeapps publish; return (exit status, standard output, standard error)."""
    def run(*options, directory=app_dir, target=f"{registry.host}/{factory_name}/shop:v1"):
        status = main(["publish", "--endpoint", registry.endpoint, *options, str(directory), target])
        return (status, *capsys.readouterr())

    return run


def fetch_bundle(client, ref):
    manifest = json.loads(client.manifest(ref))
    layer = manifest["layers"][0]
    return manifest, tarfile.open(fileobj=io.BytesIO(client.read_blob(ref, layer["digest"], layer["size"])))


def test_what_is_pushed_has_the_fields_format(publish, client):
    status, out, _ = publish()
    assert status == 0
    ref = parse(out.strip())
    manifest, bundle = fetch_bundle(client, ref)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.fio+compose-app"
    assert manifest["annotations"] == {"compose-app": "v1"}
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    bundle_layer, meta_layer = manifest["layers"]
    assert bundle_layer["mediaType"] == "application/octet-stream"
    assert meta_layer["annotations"] == {"layers-meta": "v1"}
    notes = bundle_layer["annotations"]
    index = json.loads(client.read_blob(ref, notes["org.foundries.app.bundle.index.digest"],
                                        int(notes["org.foundries.app.bundle.index.size"])))
    assert index["site.conf"] == sha256(b"listen 80\n")
    assert sorted(bundle.getnames()) == ["docker-compose.yml", "site.conf"]


def test_the_compose_file_is_pinned_and_otherwise_kept(publish, client, registry, factory_name):
    ref = parse(publish()[1].strip())
    _, bundle = fetch_bundle(client, ref)
    front = yaml.safe_load(bundle.extractfile("docker-compose.yml"))["services"]["front"]
    digest = multi_platform("front").digest
    assert front["image"] == f"{registry.host}/{factory_name}/front@{digest}", "the index stays, for every platform"
    assert "build" not in front
    assert front["environment"] == {"GREETING": "${GREETING:-hello}"}
    purpose, mark = front["labels"]
    assert purpose == "purpose=shop", "a list stays one: only in a list docker compose fills in a key's variables"
    assert re.fullmatch("io.compose-spec.config-hash=[0-9a-f]{64}", mark)


def test_config_hash_follows_the_service(publish, client, app_dir):
    def hashes():
        _, bundle = fetch_bundle(client, parse(publish()[1].strip()))
        services = compose.services(bundle.extractfile("docker-compose.yml").read(), "it")
        return {service.name: service.config_hash for service in services}

    before = hashes()
    text = (app_dir / "docker-compose.yml").read_text()
    (app_dir / "docker-compose.yml").write_text(text.replace("hello", "good day"))
    after = hashes()
    assert before["front"] != after["front"] and before["back"] == after["back"]


def test_layers_metadata_counts_blocks(publish, client):
    manifest, _ = fetch_bundle(client, ref := parse(publish()[1].strip()))
    meta = json.loads(client.read_blob(ref, manifest["layers"][1]["digest"], manifest["layers"][1]["size"]))
    assert set(meta) == {"amd64", "arm64"}
    assert meta["amd64"]["fs_block_size"] == 4096
    for layer in meta["amd64"]["layers"].values():
        assert layer["usage"] % 4096 == 0 and layer["usage"] >= layer["size"] > 0 and layer["archive_size"] > 0


def test_the_same_app_gets_the_same_digest(publish):
    assert publish()[1] == publish()[1]


def test_the_tag_names_what_was_pushed(publish, client, registry, factory_name):
    pinned = parse(publish()[1].strip())
    assert sha256(client.manifest(parse(f"{registry.host}/{factory_name}/shop:v1"))) == pinned.digest


def test_dry_run_pushes_nothing(publish, client, registry, factory_name):
    status, out, _ = publish("--dry-run")
    assert status == 0 and '"image": ' in out and "bundle index" in out
    assert not client.exists(parse(f"{registry.host}/{factory_name}/shop:v1"), "manifests", "v1")


def test_json_says_what_was_done(publish):
    value = json.loads(publish("--json")[1])
    assert value["pushed"] is True and set(value["services"]) == {"front", "back"}
    assert value["platforms"] == ["linux/amd64", "linux/arm64"]
    roles = {blob["role"] for blob in value["blobs"]}
    assert roles == {"manifest", "bundle", "bundle index", "config", "layers metadata"}


def test_a_single_arch_image_is_taken(publish, client, registry, factory_name):
    push_image(registry, f"{registry.host}/{factory_name}/back:1", make_image(platform="linux/amd64"))
    assert json.loads(publish("--json")[1])["platforms"] == ["linux/amd64"]


def test_images_without_a_common_platform(publish, registry, factory_name):
    push_image(registry, f"{registry.host}/{factory_name}/back:1", make_image(platform="linux/riscv64"))
    push_image(registry, f"{registry.host}/{factory_name}/front:1", make_image(platform="linux/amd64"))
    status, _, err = publish()
    assert status == 2 and "have no platform in common" in err


@pytest.mark.parametrize(
    ("written", "status", "says"),
    [
        ("services: {web: {image: 'a:b:c'}}", 2, "image of service 'web'"),
        ("services: {web: {build: .}}", 2, "service 'web' has no image"),
        ("services: {web: {image: '$IMAGE'}}", 2, "holds a variable"),
        ("version: '3'\n", 2, "is not a compose file: it has no services"),
        ("services:\n  web: [\n", 2, "line"),
        ("services: [web]", 2, "is not a compose file"),
        ("services: {web: nginx}", 2, "service 'web' is not a mapping"),
        ("services: {web: {image: '{host}/{factory}/back:1', labels: 3}}", 2, "labels of service 'web'"),
        ("\x00\x01", 2, "not YAML"),
        ("services: {web: {image: '{host}/{factory}/absent:1'}}", 3, "absent:1 is not in the registry"),
    ],
)
def test_bad_compose_files(publish, app_dir, registry, factory_name, written, status, says):
    text = written.replace("{host}", registry.host).replace("{factory}", factory_name)
    (app_dir / "docker-compose.yml").write_text(text)
    code, out, err = publish()
    problems = [line for line in err.splitlines() if line.startswith("composeapps: ")]
    assert out == "" and len(problems) == 1 and says in problems[0] and "Traceback" not in err
    assert code == status


def test_no_compose_file(publish, app_dir):
    (app_dir / "docker-compose.yml").unlink()
    status, _, err = publish()
    assert status == 3 and "has no docker-compose.yml: name another file with --file" in err


def test_a_compose_file_of_another_name_becomes_the_devices(publish, client, app_dir):
    """Beside docker-compose.yml a compose.yaml would be taken in its place."""
    (app_dir / "docker-compose.yml").rename(app_dir / "compose.yaml")
    (app_dir / "compose.override.yml").write_text("services: {back: {environment: [A=1]}}")
    _, bundle = fetch_bundle(client, parse(publish()[1].strip()))
    assert sorted(bundle.getnames()) == ["docker-compose.yml", "site.conf"]
    found = compose.load(bundle.extractfile("docker-compose.yml").read(), "it")
    assert found["services"]["back"]["environment"] == ["A=1"]


def test_a_compose_file_that_is_a_link_is_a_file_in_the_bundle(publish, client, app_dir):
    (app_dir / "docker-compose.yml").rename(app_dir / "stack.yml")
    (app_dir / "docker-compose.yml").symlink_to("stack.yml")
    (app_dir / "stack.yml").chmod(0o640)
    _, bundle = fetch_bundle(client, parse(publish()[1].strip()))
    member = bundle.getmember("docker-compose.yml")
    assert member.isreg() and member.mode == 0o640 and bundle.getmember("stack.yml").isreg()


def test_a_target_with_a_digest(publish, registry):
    status, _, err = publish(target=f"{registry.host}/a/b@sha256:" + "0" * 64)
    assert status == 2 and "has a digest" in err


def test_unreachable_registry(app_dir, capsys, free_port, registry):
    status = main(["publish", "--endpoint", f"{registry.host}=http://127.0.0.1:{free_port}", str(app_dir),
                   f"{registry.host}/x/shop"])
    err = capsys.readouterr().err
    assert status == 5 and "cannot be reached: Connection refused" in err and err.count("\n") == 1


def test_command_works_without_the_tests_process(app_dir, registry, factory_name):
    done = subprocess.run(
        [sys.executable, "-m", "composeapps.cli.main", "publish", "--endpoint", registry.endpoint, str(app_dir),
         f"{registry.host}/{factory_name}/shop"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{registry.host}/{factory_name}/shop@sha256:")


def test_platforms_that_are_asked_for(publish, client):
    status, out, _ = publish("--json", "--platform", "linux/arm64/v8")
    value = json.loads(out)
    assert status == 0 and value["platforms"] == ["linux/arm64/v8"]
    manifest, _ = fetch_bundle(client, ref := parse(value["uri"]))
    meta = client.read_blob(ref, manifest["layers"][1]["digest"], manifest["layers"][1]["size"])
    assert list(json.loads(meta)) == ["arm64"]
    assert publish("--platform", "linux/s390x")[0] == 3


def test_files_that_say_what_was_built(publish, tmp_path, registry, factory_name):
    digest, files = multi_platform("front").digest, {}
    for name, text in (("pins", json.dumps([f"{registry.host}/{factory_name}/front:1@{digest}"])),
                       ("meta", '{"amd64": {"layers": {}}}'), ("odd", "[3]")):
        files[name] = tmp_path / name
        files[name].write_text(text)
    written = tmp_path / "digest"
    status, out, _ = publish("--pinned-images", str(files["pins"]), "--digest-file", str(written))
    assert status == 0 and out.strip().endswith(f"@{written.read_text()}")
    assert publish("--pinned-images", f"{registry.host}/{factory_name}/front:1@{digest}", "-d", str(written))[0] == 0
    for options, code, says in (
            (("--pinned-images", files["odd"]), 2, "is not a pinned image"),
            (("--pinned-images", tmp_path / "absent"), 3, "absent does not exist"),
            (("--layers-meta", files["meta"]), 2, "does not have the layer|nothing about the architecture arm64"),
            (("--layers-meta", files["odd"]), 2, "layers metadata is wanted")):
        status, out, err = publish(*map(str, options))
        assert status == code and out == "" and re.search(says, err) and "Traceback" not in err


def test_what_others_published_ends_in_a_sentence_on_the_device(registry, factory_name, tmp_path, capsys):
    for number, text in enumerate(("a: &a [*a]\n", 'services: {web: {image: "a", image: "b"}}', "services: {1: {}}",
                                   '{"services": {"web": {"image": "\\u001b[2J"}}}', "services:\n\tweb: {}")):
        uri = push_app(registry, f"{registry.host}/{factory_name}/odd{number}:1", make_app(text))
        (tmp_path / "c.toml").write_text(f'[registry."{registry.host}"]\nurl = "{registry.url}"\n')
        status = main(["pull", "--config", str(tmp_path / "c.toml"), "--store", str(tmp_path / "store"),
                       "--state-dir", str(tmp_path / "state"), uri])
        problem = capsys.readouterr().err.splitlines()[-1]
        assert status == 4 and problem.isprintable() and f"odd{number}" in problem


def test_files_that_are_named_go_before_those_that_are_found(publish, app_dir):
    base, more = app_dir / "docker-compose.yml", app_dir / "more.yml"
    more.write_text("services: {back: {command: more}}")
    status, out, _ = publish("--file", str(base), "-f", str(more), "--unchecked", "--dry-run", "--json")
    value = json.loads(out)
    assert status == 0 and json.loads(value["compose"])["services"]["back"]["command"] == "more"
    assert "more.yml" in value["files"]
