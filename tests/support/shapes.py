# SPDX-License-Identifier: MIT
"""Apps in many shapes: each kind of image in each form of app that the field's programs publish."""

import gzip
import io
import itertools
import json
import tarfile
from typing import NamedTuple

from support import stores
from support.apps import OCTETS, App, compose_text, make_app, push_app
from support.images import INDEX, Image, descriptor, dump, make_image, make_index, push_image, sha256, tar

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _one(text, platform="linux/amd64", **more):
    return make_image({"etc/platform": platform, "etc/text": text}, platform, **more)


def _layers(text):
    first, last = tar({"etc/first": text}), tar({"etc/last": text})
    return make_image(layers=[first, tar({}), first, last])


def _annotated(text):
    image = _one(text, annotations={"org.opencontainers.image.title": text})
    index = make_index(image, _one(text, "linux/arm64"))
    value = index.document
    value["annotations"] = {"org.opencontainers.image.revision": "1"}
    value["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": text}
    return Image(INDEX, dump(value), None, index.blobs, index.manifests)


def _attested(text):
    """An index as docker's builder writes it: beside each image what tells how it was built, for no platform."""
    image, statement = _one(text), gzip.compress(dump({"_type": "statement", "of": text}), mtime=0)
    config = dump({"architecture": "unknown", "os": "unknown", "config": {},
                   "rootfs": {"type": "layers", "diff_ids": [sha256(gzip.decompress(statement))]}})
    value = image.document
    value["config"] = descriptor(value["config"]["mediaType"], config)
    value["layers"] = [descriptor("application/vnd.in-toto+json", statement)]
    attestation = Image(image.media_type, dump(value), "unknown/unknown",
                        {sha256(data): data for data in (config, statement)})
    index = make_index(image, attestation)
    value = index.document
    value["manifests"][1]["annotations"] = {"vnd.docker.reference.type": "attestation-manifest",
                                            "vnd.docker.reference.digest": image.digest}
    return Image(INDEX, dump(value), None, index.blobs, index.manifests)


def _docker(image):
    """Return an image for one platform with docker's own media types."""
    value = image.document
    value["mediaType"], value["config"]["mediaType"] = DOCKER_MANIFEST, DOCKER_CONFIG
    for layer in value["layers"]:
        layer["mediaType"] = DOCKER_LAYER
    return Image(DOCKER_MANIFEST, dump(value), image.platform, image.blobs)


def _docker_list(text):
    index = make_index(_docker(_one(text)), _docker(_one(text, "linux/arm/v7")))
    value = index.document
    value["mediaType"] = DOCKER_LIST
    return Image(DOCKER_LIST, dump(value), None, index.blobs, index.manifests)


# Kind of image -> what makes one of a text.
IMAGES = {
    "index": lambda text: make_index(_one(text), _one(text, "linux/arm64")),
    "index-of-one": lambda text: make_index(_one(text)),
    "manifest": _one,
    "annotated-manifest": lambda text: _one(text, annotations={"org.opencontainers.image.title": text}),
    "annotated-index": _annotated,
    "attested-index": _attested,
    "layers": _layers,
    "docker-manifest": lambda text: _docker(_one(text)),
    "docker-list": _docker_list,
}


class Shape(NamedTuple):
    """A form of app: the services and the name of the image that each has; what of the optional parts there is."""

    services: dict
    bundle_index: bool = True
    layers_meta: bool = True
    members: tuple = ()
    files: tuple = (("conf/site.conf", "listen 80\n"),)


def _link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


FORMS = {
    "one": Shape({"web": "a"}),
    "shared": Shape({"web": "a", "admin": "a", "db": "b"}),
    "no-index": Shape({"web": "a", "db": "b"}, bundle_index=False),
    "no-meta": Shape({"web": "a", "db": "b"}, layers_meta=False),
    "bare": Shape({"web": "a"}, bundle_index=False, layers_meta=False, files=()),
    "links": Shape({"web": "a"}, bundle_index=False, members=(
        _link("conf/current.conf", "site.conf", tarfile.SYMTYPE), _link("zone", "/etc/localtime", tarfile.SYMTYPE),
        _link("conf/same.conf", "conf/site.conf", tarfile.LNKTYPE),
    ), files=(("conf/site.conf", "listen 80\n"), ("conf/deep/er/file", "x"), ("empty", ""), ("Ünïcode name", "y"))),
}
ALL = [f"{kind}/{form}" for kind, form in itertools.product(IMAGES, FORMS)]


class Made(NamedTuple):
    """An app: ``images`` maps each service's pinned reference to its Image."""

    app: App
    images: dict
    compose: str


def make(shape, host="hub.demo.test", repository="factory/shop", version="1"):
    """Return the Made app of one of ALL."""
    kind, _, form = shape.partition("/")
    form = FORMS[form]
    images = {name: IMAGES[kind](f"{name} {version}") for name in set(form.services.values())}
    pinned = {service: f"{host}/{repository}-{name}@{images[name].digest}" for service, name in form.services.items()}
    compose = compose_text(pinned) + f"x-version: '{version}'\n"
    app = make_app(compose, dict(form.files), images.values())
    if form.members:
        app = _with_members(app, form.members)
    app = stores.without(app, not form.bundle_index, not form.layers_meta)
    return Made(app, {pinned[service]: images[name] for service, name in form.services.items()}, compose)


def _with_members(app, members):
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(app.bundle))) as old, \
            tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new:
        for info in old:
            new.addfile(info, old.extractfile(info))
        for info in members:
            new.addfile(info)
    bundle, value = gzip.compress(out.getvalue(), 6, mtime=0), json.loads(app.manifest)
    value["layers"][0] = {**descriptor(OCTETS, bundle), "annotations": value["layers"][0]["annotations"]}
    return App(dump(value), bundle, app.bundle_index, app.layers_meta)


def push(registry, made, repository="factory/shop", tag="1"):
    """Push an app that was made for this registry's name; return its pinned reference."""
    for pinned, image in made.images.items():
        push_image(registry, pinned.partition("@")[0] + ":" + tag, image)
    return push_app(registry, f"{registry.host}/{repository}:{tag}", made.app)
