# SPDX-License-Identifier: MIT
"""The parsers of what others write: right inputs for each, and what must hold whatever the input is."""

import contextlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from composeapps.app import (
    bundle,
    compose,
    dockerapp,
    images,
    interpolation,
    layers,
    layersmeta,
    measured,
    publish,
)
from composeapps.app.ignorefile import IgnoreRules
from composeapps.app.tree import StoreSource, load_app
from composeapps.cli import config
from composeapps.engine import unixhttp
from composeapps.errors import ComposeAppsError
from composeapps.installed import install
from composeapps.oci import names
from composeapps.oci.digests import sha256
from composeapps.oci.documents import Descriptor, parse_config, parse_document
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import Reference, parse, parse_pinned
from composeapps.records import history, journal, preloaded, rejection
from composeapps.records.state import StateDirectory
from composeapps.registry import address, challenges, heads
from composeapps.registry.credentials import Credentials
from composeapps.store import inventory
from composeapps.store.factoryset import factory_apps
from composeapps.store.store import Store
from composeapps.switching import definition
from fuzz import archives
from fuzz.campaign import Outside
from support.apps import compose_text, make_app
from support.images import dump, make_image, multi_platform, tar

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = f"hub.demo.test/f/web@{A}"
URI = f"hub.demo.test/f/shop@{B}"
AMD64 = Platform("linux", "amd64")


@dataclass(frozen=True)
class Target:
    """A parser.

    ``prepare`` takes a directory of its own in memory and returns the function that is called with each input;
    ``seeds`` are as mutate.inputs takes them; ``refuses`` are the exceptions by which the parser may say no.
    """

    name: str
    prepare: object
    seeds: list
    refuses: tuple = (ComposeAppsError,)
    weight: int = 1


def plain(check):
    """Return the ``prepare`` of a function that needs no directory."""
    return lambda place: check


def text(data):
    """Return an input as the text that a parser gets of it."""
    return data.decode(errors="surrogateescape")


def _document(data):
    found = parse_document(data, "it")
    for descriptor in (*found.layers, *found.manifests):
        descriptor.dump()
    if found.kind == "index":
        found.select(AMD64, "it")


def _app(place):
    app, image = _shop()
    store = Store(place / "store")
    for blob in (image.content, *image.blobs.values(), app.bundle, app.bundle_index, app.layers_meta, b"{}"):
        store.add_blob(sha256(blob), [blob])

    def check(data):
        digest = sha256(data)
        store.add_blob(digest, [data])
        try:
            ref = parse_pinned(f"hub.demo.test/f/shop@{digest}")
            found = load_app(StoreSource(store), ref, [AMD64])
            list(found.blobs())
        finally:
            store.blob_path(digest).unlink()
    return check


def _shop():
    image = make_image()
    return make_app(compose_text({"web": f"hub.demo.test/f/web@{image.digest}"}), {"conf/a": "a\n"}, [image]), image


def _bundle(place):
    """Reading a bundle, and bringing an app's directory to what it says."""
    shop, image = _shop()
    conf = config.Config(store=place / "store", compose_root=place / "top" / "apps", state_dir=place / "state")
    store = Store(conf.store)
    for blob in (shop.manifest, image.content, *image.blobs.values(), shop.bundle, shop.bundle_index, shop.layers_meta,
                 b"{}"):
        store.add_blob(sha256(blob), [blob])
    app = load_app(StoreSource(store), parse_pinned(f"hub.demo.test/f/shop@{shop.digest}"), [AMD64])
    os.fsync = lambda descriptor: None

    def check(data):
        bundle.read_compose(io.BytesIO(data), "it")
        # From here on it counts as what the publisher wrote: one that can be read can be placed.
        digest = sha256(data)
        odd = app._replace(bundle=app.bundle._replace(digest=digest, size=len(data)))
        store.add_blob(digest, [data])
        conf.compose_root.mkdir(parents=True)
        try:
            install.place_bundle(odd, store, conf)
            if problems := install.bundle_problems(odd, store, conf):
                raise Outside(f"what was just placed differs: {problems[0]}")
        finally:
            there = sorted(os.listdir(place)), os.listdir(place / "top"), os.path.lexists("/evil")
            store.blob_path(digest).unlink()
            shutil.rmtree(place / "top")
            if there != (["store", "top"], ["apps"], False) or \
                    sorted(os.listdir(conf.store)) != before:
                raise Outside(f"{there}")

    before = sorted(os.listdir(conf.store))
    return check


def _compose(place):
    """Publishing: what comes of a source is a compose file that the device reads, with the same images."""
    directory = place / "app"
    (directory / "conf").mkdir(parents=True)
    for name in ("conf/a", ".env", "a.yml", "b.env", "c"):
        (directory / name).write_text("" if name != "a.yml" else "services: {db: {image: nginx}}\n")

    def check(data):
        (directory / "docker-compose.yml").write_bytes(data)
        prepared = publish.prepare(directory, (), lambda ref: A, checked=False)
        read = {service.name: service.image for service in compose.services(prepared.compose, "it")}
        if read != {name: str(ref) for name, ref in prepared.images.items()}:
            raise Outside("the device reads other images than were pinned")
    return check


def _installed(data):
    compose.services(data, "it")
    ref = Reference("hub.demo.test", "f/shop", None, B)
    app, _image = _shop()

    class Shop:
        pass
    one = Shop()
    one.ref, one.compose = ref, data
    one.contents = bundle.read(io.BytesIO(app.bundle), "the bundle")
    found = definition.of(one)
    found.ordered()
    for service in found.services.values():
        found.fingerprint(service)


def _environment(place):
    app = make_app(compose_text({"web": IMAGE}), {".env": "A=b\n"})
    ref = Reference("hub.demo.test", "f/shop", None, B)

    class Shop:
        pass
    one = Shop()
    one.ref, one.compose = ref, compose_text({"web": IMAGE}).encode()

    def check(data):
        import gzip

        packed = gzip.compress(tar({"docker-compose.yml": one.compose, ".env": data}), 1)
        one.contents = bundle.read(io.BytesIO(packed), "the bundle")
        definition.of(one)
    assert app
    return check


def _variables(data):
    # What docker compose refuses comes as a phrase, for whoever knows what it is about.
    with contextlib.suppress(ValueError):
        interpolation.substitute(text(data), {"A": "b", "B": "x" * 9000, "C": "${A}"})
    with contextlib.suppress(ValueError):
        interpolation.parse_environment(text(data))


def _ignore(data):
    rules = IgnoreRules(data)
    for path in ("a", "a/b", "a/b/c.txt", "docs/" + "x" * 200, "a" * 250):
        rules.ignores(path)


def _in_file(relative, read):
    """Return the ``prepare`` of a parser that reads one of the agent's files."""
    def prepare(place):
        states = StateDirectory(place / "state")
        path = place / "state" / relative
        path.parent.mkdir(parents=True, exist_ok=True)

        def check(data):
            path.write_bytes(data)
            read(states)
        return check
    return prepare


def _state(states):
    for name in states.names():
        states.get(name)


def _journals(states):
    journal.pending(states)
    journal.read(states, "shop")


def _history(states):
    for entry in history.read(states)[0]:
        json.dumps(entry)


def _factory(place):
    path = place / "factory.json"
    conf = config.Config(factory_file=path)

    def check(data):
        path.write_bytes(data)
        for name in factory_apps(conf):
            _inside(name)
    return check


def _name(data):
    name = names.AppName(text(data))
    _inside(name)
    if names.from_file_stem(name.file_stem) != name or "/" in name.file_stem or name.file_stem in (".", ".."):
        raise Outside(f"a file for the name {name!a}")


def _inside(name):
    """Raise Outside for an app's name whose directory is not below that of all apps."""
    below = os.path.normpath(name.below(Path("/apps")))
    if not below.startswith("/apps/") or below != str(name.below(Path("/apps"))):
        raise Outside(f"the name {name!a} leads to {below}")


def _reference(data):
    ref = parse(text(data))
    if ".." in ref.path.split("/") or "/" in (ref.tag or "") or parse(str(ref)) != ref:
        raise Outside(f"the reference {str(ref)!a}")
    _ = ref.app_name


def _inventory(place):
    app, image = _shop()
    store = Store(place / "store")
    ref = parse_pinned(f"hub.demo.test/f/shop@{app.digest}")
    for blob in (app.manifest, image.content, *image.blobs.values(), app.bundle, app.bundle_index, app.layers_meta,
                 b"{}"):
        store.add_blob(sha256(blob), [blob])
    store.add_app(load_app(StoreSource(store), ref, [AMD64]))
    directory = store.app_dir(ref)
    files = [path for path in (directory / "docker-compose.yml", *directory.glob("images/**/index.json"),
                               directory / "uri")]

    def check(data):
        for path in files:
            kept = path.read_bytes()
            path.write_bytes(data)
            try:
                store.list_apps()
                inventory.take(store, ref)
            finally:
                path.write_bytes(kept)
    return check


def _layers_meta(data):
    layersmeta.usages(data)
    layersmeta.architectures(data)
    layersmeta.given(data, {"amd64": []}, "it")


_MEASURED = b" ".join([b"composeapps-layer-1", A.encode(), b"5", b"4096", b"sha256:" + b"0" * 64])


def _measured(place):
    cache, layer = measured.Measured(place), Descriptor(A, 7)

    def check(data):
        (place / A.partition(":")[2]).write_bytes(data)
        if cache.get(layer) is not None:
            raise Outside("a size that nobody measured")
    return check


def _old_app(place):
    path = place / "shop.dockerapp"

    def check(data):
        path.write_bytes(data)
        app = dockerapp.read(path)
        dockerapp.render(app)
    return check


def _login_file(place):
    path = place / "auth.json"

    def check(data):
        path.write_bytes(data)
        Credentials([path], {"PATH": "/nonexistent"}).find("hub.demo.test", "f/shop")
    return check


def _config(place):
    path = place / "config.toml"

    def check(data):
        path.write_bytes(data)
        config.load(path)
    return check


def _challenges(data):
    for one in challenges.parse_challenges([data.decode("latin-1")]):
        one.params.get("realm")


def _head(data):
    head = heads.parse_head(data)
    heads.content_length(head.headers)
    for name in ("Content-Range", "Retry-After"):
        heads.content_range(head.headers.get(name) or "")
    heads.chunk_size(data[:200])


def _address(data):
    found = address.parse(data.decode("latin-1"))
    str(found)
    str(address.join(found, data[::-1].decode("latin-1")))


def _engine(data):
    unixhttp._answer(io.BufferedReader(io.BytesIO(data)), "GET", 1 << 16, None)


def _states_file(uri=URI, **more):
    return dump({"uri": uri, "images": {"web": A}, "stopped": False, "previous": "", **more})


_JOURNAL = dump({"app": "shop", "source": URI, "target": IMAGE, "started": 1.0, "identifier": "a",
                 "step": journal.SWITCHING,
                 "attempt": 1, "reason": "", "kind": "update", "soak": None})
_COMPOSE = b"""name: shop
x-a: &a {A: b, C: [1, 2]}
services:
  web:
    image: hub.demo.test/f/web:1
    environment: {<<: *a, PORT: "08540", D: ${D:-e}}
    ports: ["80:80", 22:22]
    volumes: ["./conf:/conf:ro", data:/data, {type: bind, source: ./a, target: /a}]
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {test: [CMD, "true"], interval: 1m30s}
    deploy: {replicas: 2}
  db:
    image: hub.demo.test/f/db@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    restart: no
    profiles: [debug]
    env_file: [.env, {path: b.env, required: false}]
    extends: {service: web}
    configs: [{source: c, target: /c}]
volumes: {data: {}}
configs: {c: {file: ./c}}
networks: {default: {driver: bridge}}
"""
_PINNED = compose_text({"web": IMAGE, "db": IMAGE}).encode() + (
    b"    environment: [A=b, C]\n    volumes: [./conf:/conf]\n    labels2: 1\nvolumes: {data: {name: x}}\n")
_OLD = b"""version: 0.1.0
name: shop
description: ""
---
version: '3'
services:
  web:
    image: hub.demo.test/f/web:${tag}
    ports: ["${web.port}:80"]
    x-enabled: "! ${debug}"
---
tag: "1"
web: {port: 8080}
debug: false
"""
_HEAD = (b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 12\r\n"
         b"Content-Range: bytes 1-2/3\r\n"
         b'WWW-Authenticate: Bearer realm="https://a/token",service="a"\r\nRetry-After: 3')
_CHUNKED = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDocker-Experimental: a\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.0 200 OK\r\n\r\n{}")
_INDEX = multi_platform("web").content

TARGETS = [
    Target("manifest", plain(_document), [_shop()[1].content, _shop()[0].manifest, _INDEX], weight=3),
    Target("index", plain(_document), [_INDEX]),
    Target("config", plain(lambda data: parse_config(data, "it")), [
        next(blob for blob in make_image().blobs.values() if blob[:1] == b"{"),
        dump({"architecture": "arm", "variant": "v7", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [A]},
              "config": {"Labels": {"a": "b"}}, "os.version": "10.0"})]),
    Target("platform", plain(lambda data: Platform.parse(text(data))), [b"linux/amd64", b"linux/arm/v7",
                                                                        b"windows/amd64"]),
    Target("app", _app, [_shop()[0].manifest]),
    Target("bundle", _bundle, [archives.bundle, archives.bundle, archives.bundle, _shop()[0].bundle], weight=2),
    Target("compose", _compose, [_COMPOSE, compose_text({"web": IMAGE}).encode(), json.dumps({
        "services": {"web": {"image": IMAGE, "labels": ["a=b"], "extends": {"file": "a.yml", "service": "db"},
                             "environment": {"A": None, "B": 1}}}}).encode()], weight=2),
    Target("installed", plain(_installed), [_PINNED, json.dumps({"name": "shop", "services": {
        "web": {"image": IMAGE, "labels": {"io.compose-spec.config-hash": "a" * 64,
                                           "composeapps.update.strategy": "hand-over"},
                "volumes": [{"type": "bind", "source": "./a", "target": "/a"}], "networks": {"n": {"aliases": ["x"]}},
                "depends_on": {"db": {"condition": "service_started"}}, "env_file": ".env", "secrets": ["s"]},
        "db": {"image": IMAGE, "profiles": ["a"], "deploy": {"replicas": 0}, "network_mode": "service:web"}},
        "networks": {"n": None}, "secrets": {"s": {"file": "./s"}}}).encode()]),
    Target("environment", _environment, [b"A=b\nexport C='d e'\n# x\nD=${A}\nE=\"a\\nb\"\nF\n"]),
    Target("variables", plain(_variables), [b"${A:-${B:?no}}$$C ${D+e}", b"A=b\nexport C='d'\nE=\"${A}\\n\"\n"]),
    Target("ignore", plain(_ignore), [b"*.log\n!a/b\n**/x/*\n[a-z]?\n# c\n/docs/\n"]),
    Target("state", _in_file("apps/shop.json", _state), [_states_file(), _states_file(previous=IMAGE, stopped=True)]),
    Target("journal", _in_file("updates/shop.json", _journals), [_JOURNAL]),
    Target("history", _in_file("history.jsonl", _history), [
        dump({"app": "shop", "time": "2026-01-01T00:00:00Z", "result": "done",
              "started": 1.0}) + b"\n" + _JOURNAL + b"\n"]),
    Target("failures", _in_file("failures.json", rejection.failures), [
        dump({URI: {"count": 1, "reason": "a", "update": "b", "time": 1.0}})]),
    Target("factory", _factory, [dump({"apps": {"shop": URI, "web/a": IMAGE}})]),
    Target("preloaded", _in_file(preloaded.RECORD, preloaded.find), [dump({"known": {"shop": [URI, IMAGE]}}),
                                                                     dump({"shop": URI})]),
    Target("removals", _in_file("removed/shop.json", lambda states: states.removals()), [dump({"volumes": True,
                                                                                               "files": ["a"]})]),
    Target("layers-meta", plain(_layers_meta), [_shop()[0].layers_meta]),
    Target("layer", plain(lambda data: layers.measure([data[:700], data[700:]], "it")), [
        archives.bundle, next(blob for blob in make_image().blobs.values() if blob[:1] != b"{"),
        tar({"a": "b", "c" * 150: "d" * 600}, pax_headers={"size": "600", "GNU.sparse.realsize": "9000"})],
        refuses=(ComposeAppsError, layers.Unmeasurable)),
    Target("pinned-images", plain(lambda data: images.pinned_list(data, "it")), [
        dump([IMAGE, URI]), dump({"web": IMAGE}), f"# built\n{IMAGE}\n{URI}\n".encode()]),
    Target("measured", _measured, [_MEASURED]),
    Target("inventory", _inventory, [dump({"schemaVersion": 2,
                                           "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                                     "digest": A, "size": 7, "platform": {"os": "linux", "architecture": "amd64"}}]}),
                                     _PINNED, URI.encode()]),
    Target("dockerapp", _old_app, [_OLD]),
    Target("logins", _login_file, [dump({"auths": {"hub.demo.test": {"auth": "YTpi"},
                                                   "hub.demo.test/f": {"identitytoken": "x"}},
                                         "credHelpers": {"a": "b"}})]),
    Target("configuration", _config, [
        b'[pacman]\nreset_apps_root = "/a"\ncompose_apps = "a,b"\nstorage_watermark = 80\n'
        b'[composeapps]\nsoak_time = 3\ncompose_command = ["a"]\n'
        b'[registry."hub.demo.test"]\nurl = "http://127.0.0.1:1"\nmirrors = ["https://m"]\nproxy = ""\n']),
    Target("challenges", plain(_challenges), [
        b'Bearer realm="https://a/token",service="b",scope="repository:f/shop:pull,push"',
        b'Basic realm="x", Bearer realm="y\\"z"',
        b"Negotiate, Bearer realm=https://a, Basic dGVzdA=="], weight=2),
    Target("heads", plain(_head), [_HEAD], refuses=(heads.ProtocolError,), weight=2),
    Target("addresses", plain(_address), [b"https://user:pw@hub.demo.test:5000/v2/?a=b", b"/v2/uploads/1?state=x",
                                          b"http://[::1]:80/"]),
    Target("engine", plain(_engine), list(_CHUNKED), refuses=(ComposeAppsError, OSError)),
    Target("references", plain(_reference), [URI.encode(), IMAGE.encode(), b"nginx", b"localhost:5000/a/b:v1",
                                             b"docker.io/library/redis:7"],
           weight=2),
    Target("names", plain(_name), [b"shop", b"factory/web-1.a", b"a__b"]),
]
