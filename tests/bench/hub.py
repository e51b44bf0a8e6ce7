# SPDX-License-Identifier: MIT
"""A registry on this machine with two versions of an app: a small one, and one with the sample's layers in it."""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from bench import sample
from composeapps.app.publish import publish
from composeapps.oci.digests import sha256
from composeapps.oci.documents import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, dump_json
from composeapps.oci.reference import Reference, parse, parse_pinned
from composeapps.registry.client import RegistryClient
from factory.localregistry import LocalRegistry
from support.images import tar

HOST = "bench.example.com"
COMPOSE = """\
services:
  web:
    image: {image}
    command: ["/bin/busybox", "sleep", "360000"]
    network_mode: none
    stop_signal: SIGKILL
"""


@dataclass(frozen=True)
class Hub:
    """A running registry.

    Arguments:
        registry: the LocalRegistry.
        image: the pinned Reference of the large version's image, as apps name it.
        small, large: the pinned References of the app's two versions.
    """

    registry: LocalRegistry
    image: Reference
    small: Reference
    large: Reference

    @property
    def endpoints(self):
        """The value of COMPOSEAPPS_ENDPOINTS that leads there."""
        return f"{HOST}={self.registry.url}"

    @property
    def address(self):
        """The image as other tools name it: by the address where the registry listens."""
        return f"{self.registry.address}/{self.image.path}@{self.image.digest}"


@contextlib.contextmanager
def hub(run):
    """Start the registry, whose content is made when it is not in the cache; give the Hub."""
    kept, picture = sample.image(run.cache, run.progress)
    key = hashlib.sha256(Path(__file__).read_bytes() + kept.root.name.encode()).hexdigest()[:16]
    root = Path(run.cache, f"hub-{key}")
    if not (root / "refs.json").exists():
        shutil.rmtree(root, ignore_errors=True)
        with run.progress.step("publishing it (once)"), LocalRegistry(root / "registry", host=HOST) as registry:
            refs = _publish(registry, kept, picture)
        (root / "refs.json").write_text(json.dumps(refs))
    refs = {name: parse_pinned(text) for name, text in json.loads((root / "refs.json").read_text()).items()}
    with LocalRegistry(root / "registry", host=HOST) as registry:
        yield Hub(registry, **refs)


def _publish(registry, kept, picture):
    """Push both versions; return {what: pinned reference} as texts."""
    client = RegistryClient(endpoints={HOST: registry.url})
    busybox = tar({"bin/busybox": Path(hostsetup.TOOLS, "bin", "busybox").read_bytes()}, mode=0o755)
    variant = picture.variants[0]
    above = list(zip(variant.document.layers, variant.config.diff_ids, strict=True))
    refs = {}
    for version, layers in (("small", []), ("large", above)):
        name = parse(f"{HOST}/bench/image:{version}")
        own = gzip.compress(busybox, 6, mtime=0)
        _push(client, name, own)
        for descriptor, _diff_id in layers:
            client.push_blob(name, descriptor.digest, descriptor.size,
                             functools.partial(open, kept.blob_path(descriptor.digest), "rb"))
        config = dump_json({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(busybox), *(diff_id for _layer, diff_id in layers)]}})
        _push(client, name, config)
        manifest = dump_json({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": Descriptor.of(config, OCI_CONFIG).dump(),
            "layers": [Descriptor.of(own, OCI_LAYER_GZIP).dump(), *(layer.dump() for layer, _diff_id in layers)]})
        client.push_manifest(name, manifest, OCI_MANIFEST)
        refs["image"] = str(name.pinned(sha256(manifest)))
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "docker-compose.yml").write_text(COMPOSE.format(image=refs["image"]))
            refs[version] = str(publish(directory, parse(f"{HOST}/bench/web:{version}"), client).ref)
    client.close()
    return refs


def _push(client, name, data):
    client.push_blob(name, sha256(data), len(data), lambda: io.BytesIO(data))
