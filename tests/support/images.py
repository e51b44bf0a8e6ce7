# SPDX-License-Identifier: MIT
"""Small synthetic OCI images (a few KB), for one platform or several, and a push to a registry.

Written against the OCI image and distribution specifications without the product's own
code, so that a test of the product does not prove it against itself.
"""

import gzip
import hashlib
import io
import json
import ssl
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EPOCH = "1970-01-01T00:00:00Z"


def sha256(data):
    """Return "sha256:<hex>" of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(document):
    """Return ``document`` as the JSON bytes that are pushed."""
    return json.dumps(document, separators=(",", ":")).encode()


def descriptor(media_type, data, **more):
    """Return the OCI descriptor of ``data``."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def tar(files, **overrides):
    """Return an uncompressed tar of ``files`` ({path: bytes or str}); ``overrides`` set TarInfo attributes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            for name, value in overrides.items():
                setattr(info, name, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Image:
    """A manifest or index with all that it refers to.

    ``content`` is the document itself, ``blobs`` {digest: bytes} what goes to /blobs/,
    ``manifests`` {digest: (media type, bytes)} the documents below an index.
    """

    media_type: str
    content: bytes
    platform: str | None = None
    blobs: dict = field(default_factory=dict)
    manifests: dict = field(default_factory=dict)

    @property
    def digest(self):
        return sha256(self.content)

    @property
    def document(self):
        return json.loads(self.content)


def make_image(files=None, platform="linux/amd64", layers=None, labels=None, config=None, annotations=None):
    """Return an Image for one platform.

    :param files: {path: content} of its only layer; default one file that names the platform
    :param layers: uncompressed tars, lowest first, instead of ``files``
    :param labels: labels of the image configuration
    :param config: further keys of the configuration's ``config`` (Entrypoint, Cmd, …)
    """
    tars = layers or [tar(files or {"etc/platform": platform + "\n"})]
    packed = [gzip.compress(data, 6, mtime=0) for data in tars]
    os_name, architecture, *variant = platform.split("/")
    configuration = dump({
        "created": EPOCH, "architecture": architecture, "os": os_name,
        **({"variant": variant[0]} if variant else {}),
        "config": {"Cmd": ["/bin/true"], **(config or {}), **({"Labels": labels} if labels else {})},
        "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in tars]},
        "history": [{"created": EPOCH, "created_by": "synthetic"} for _ in tars],
    })
    manifest = dump({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, configuration),
        "layers": [descriptor(LAYER, data) for data in packed],
        **({"annotations": annotations} if annotations else {}),
    })
    blobs = {sha256(data): data for data in (configuration, *packed)}
    return Image(MANIFEST, manifest, platform, blobs)


def make_index(*images):
    """Return the Image of an index over images for one platform each."""
    entries, blobs, manifests = [], {}, {}
    for image in images:
        os_name, architecture, *variant = image.platform.split("/")
        where = {"os": os_name, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        entries.append(descriptor(image.media_type, image.content, platform=where))
        blobs.update(image.blobs)
        manifests[image.digest] = (image.media_type, image.content)
    content = dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    return Image(INDEX, content, None, blobs, manifests)


def multi_platform(text="hello", platforms=("linux/amd64", "linux/arm64"), labels=None):
    """Return an index whose images hold ``text`` and their platform's name; enough for most tests."""
    labels = {"org.opencontainers.image.licenses": "MIT"} if labels is None else labels
    return make_index(*(
        make_image({"etc/platform": platform, "etc/text": text}, platform, labels=labels)
        for platform in platforms
    ))


def split_reference(reference):
    """Return (repository path, tag or digest) of "host/path:tag" or "host/path@sha256:…"."""
    path = reference.split("/", 1)[1]
    if "@" in path:
        path, digest = path.split("@")
        return path, digest
    path, _, tag = path.partition(":")
    return path, tag or "latest"


def send(registry, method, path, repo, actions=("pull",), data=None, headers=None):
    """Send one request to ``registry`` (support.registries.Registry) and return (status, headers, body)."""
    context = ssl.create_default_context(cafile=registry.ca_file) if registry.ca_file else None
    url = path if "://" in path else registry.url + path
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    authorization = registry.authorization(repo, *actions)
    if authorization:
        request.add_header("Authorization", authorization)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.headers, err.read()


def push_blob(registry, repo, data):
    """Upload one blob (monolithic POST then PUT) and return its digest."""
    rights = ("pull", "push")
    digest = sha256(data)
    status, headers, body = send(registry, "POST", f"/v2/{repo}/blobs/uploads/", repo, rights, data=b"")
    assert status == 202, body
    location = headers["Location"]
    location += ("&" if "?" in location else "?") + "digest=" + digest
    status, _, body = send(
        registry, "PUT", location, repo, rights, data, {"Content-Type": "application/octet-stream"}
    )
    assert status == 201, body
    return digest


def push_manifest(registry, repo, name, media_type, content):
    """Upload one manifest or index under ``name`` (a tag or its digest)."""
    status, _, body = send(
        registry, "PUT", f"/v2/{repo}/manifests/{name}", repo, ("pull", "push"), content,
        {"Content-Type": media_type},
    )
    assert status == 201, body


def push_image(registry, reference, image):
    """Push ``image`` as ``reference`` ("hub.demo.test/factory/name:tag"); return the pinned reference."""
    repo, tag = split_reference(reference)
    for data in image.blobs.values():
        push_blob(registry, repo, data)
    for digest, (media_type, content) in image.manifests.items():
        push_manifest(registry, repo, digest, media_type, content)
    push_manifest(registry, repo, tag, image.media_type, image.content)
    return f"{registry.host}/{repo}@{image.digest}"
