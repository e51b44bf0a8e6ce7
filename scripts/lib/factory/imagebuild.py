# SPDX-License-Identifier: MIT
"""OCI images of Debian packages, without docker: an image layout directory for each image.

Format: OCI image specification v1.1, image layout. A layout is made once for given inputs
and found again by its name, which carries a hash of them.
"""

import datetime
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from composeapps.durable import fsync_directory, storage_errors
from composeapps.oci.documents import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, dump_json
from composeapps.oci.platforms import Platform
from factory.layers import build_layer

# Part of every layout's name: raise it when the same inputs are to give another image.
FORMAT = 1

DEBIAN_ARCHITECTURE = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
LABEL_PREFIX = "org.opencontainers.image."


@dataclass(frozen=True)
class ImageSpec:
    """An image to make.

    :param name: last part of its repository, e.g. "nginx"
    :param platforms: e.g. ``("linux/amd64", "linux/arm64")``
    :param layers: LayerSpecs, lowest first
    :param version_package: the package whose version becomes the image's
    :param labels: labels without their ``org.opencontainers.image.`` prefix (title, licenses, …)
    :param config: the configuration's ``config`` object (Entrypoint, Cmd, ExposedPorts, …)
    """

    name: str
    platforms: tuple
    layers: tuple
    version_package: str
    labels: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)

    def packages(self):
        """Return the sorted ``(package, Debian architecture)`` pairs it is made of."""
        return sorted({
            (package, DEBIAN_ARCHITECTURE[platform])
            for platform in self.platforms for layer in self.layers for package in layer.packages
        })


def build_images(specs, source, cache, refresh=False, progress=lambda text: None):
    """Make the image layouts that are not in the cache.

    :param specs: ImageSpecs
    :param source: a ``factory.debpackages.PackageSource``
    :param cache: directory of the layouts; one whose inputs are out of date is removed
    :param refresh: look for newer packages even when a layout is there
    :param progress: called with a line of text when a step begins
    :returns: {image name: directory of its layout}
    :raises factory.debpackages.PackageError: packages cannot be had
    :raises composeapps.errors.StorageError: the file system refuses
    """
    cache = Path(cache)
    with storage_errors(f"image cache {cache}"):
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / ".lock", "w") as lock:
            # One at a time: the second of two runs finds what the first has made.
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _build_missing(specs, source, cache, refresh, progress)


def _build_missing(specs, source, cache, refresh, progress):
    _remove_leftovers(cache)
    found = {} if refresh else {spec.name: path for spec in specs if (path := _cached(cache, spec))}
    missing = [spec for spec in specs if spec.name not in found]
    if missing:
        progress(f"reading the package lists of Debian {source.suite}")
        source.update()
        wanted = sorted({pair for spec in missing for pair in spec.packages()})
        progress(f"downloading {len(wanted)} Debian packages for {len(missing)} images")
        packages = source.fetch(wanted)
        layers = {}
        for spec in missing:
            progress(f"making image {spec.name} for {', '.join(spec.platforms)}")
            found[spec.name] = _build(spec, packages, cache, layers)
    return found


def _spec_key(spec):
    return hashlib.sha256(f"{FORMAT} {spec!r}".encode()).hexdigest()[:16]


def _cached(cache, spec):
    paths = sorted(cache.glob(f"{spec.name}-{_spec_key(spec)}-*"))
    return paths[-1] if paths else None


def _remove_leftovers(cache):
    for path in cache.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _build(spec, packages, cache, layers):
    """Make one layout; ``layers`` holds those of earlier images, which share them."""
    versions = [packages[pair].sha256 for pair in spec.packages()]
    target = cache / f"{spec.name}-{_spec_key(spec)}-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}"
    if not target.exists():
        temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{spec.name}-", dir=cache))
        try:
            temporary.chmod(0o755)
            layout = _Layout(temporary)
            layout.finish([_build_platform(spec, platform, packages, layers, layout) for platform in spec.platforms],
                          spec.name)
            os.rename(temporary, target)
            fsync_directory(cache)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    for other in cache.glob(f"{spec.name}-" + "?" * 16 + "-" + "?" * 16):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _build_platform(spec, platform, packages, layers, layout):
    architecture = DEBIAN_ARCHITECTURE[platform]
    stack = []
    key = (platform,)
    for layer_spec in spec.layers:
        key = (*key, repr(layer_spec))
        if key not in layers:
            layers[key] = build_layer(
                layer_spec, [packages[name, architecture] for name in layer_spec.packages], stack
            )
        stack.append(layers[key])
    created = _timestamp(max(layer.timestamp for layer in stack))
    where = Platform.parse(platform)
    labels = {
        **{LABEL_PREFIX + key: value for key, value in spec.labels.items()},
        LABEL_PREFIX + "version": packages[spec.version_package, architecture].version,
        LABEL_PREFIX + "created": created,
    }
    config = layout.add(dump_json({
        "created": created,
        "architecture": where.architecture,
        "os": where.os,
        "config": {**spec.config, "Labels": dict(sorted(labels.items()))},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in stack]},
        "history": [
            {"created": _timestamp(layer.timestamp), "created_by": f"Debian packages: {' '.join(wanted.packages)}"}
            for wanted, layer in zip(spec.layers, stack, strict=True)
        ],
    }), OCI_CONFIG)
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.dump(),
        "layers": [layout.add(layer.packed, OCI_LAYER_GZIP).dump() for layer in stack],
    }
    return layout.add(dump_json(manifest), OCI_MANIFEST, platform=where)


def _timestamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Layout:
    """An OCI image layout while it is being written."""

    def __init__(self, root):
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True)

    def add(self, data, media_type, **fields):
        descriptor = Descriptor.of(data, media_type, **fields)
        with open(self.root / "blobs" / "sha256" / descriptor.digest.removeprefix("sha256:"), "wb") as stream:
            stream.write(data)
            os.fsync(stream.fileno())
        return descriptor

    def finish(self, manifests, name):
        index = self.add(dump_json({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [one.dump() for one in manifests],
        }), OCI_INDEX, annotations={LABEL_PREFIX + "ref.name": f"{name}:latest"})
        (self.root / "index.json").write_text(json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index.dump()]}
        ))
        (self.root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        fsync_directory(self.root / "blobs" / "sha256")
        fsync_directory(self.root)
