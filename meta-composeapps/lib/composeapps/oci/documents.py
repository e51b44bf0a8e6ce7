# SPDX-License-Identifier: MIT
"""Descriptors, manifests, indexes and image configurations of the OCI image specification.

Everything that a registry or a store hands us goes through these functions before
it is used, so that no caller has to wonder whether a field is there or sane.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from composeapps.errors import CorruptError, NotFoundError
from composeapps.oci.digests import is_digest, sha256
from composeapps.oci.parsing import MAX_DOCUMENT, dump_json, parse_json, parse_size, shown
from composeapps.oci.platforms import Platform
from composeapps.patterns import Pattern

__all__ = ["MAX_DOCUMENT", "dump_json", "parse_json", "parse_size"]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_LAYER_FAMILIES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")

EMPTY_JSON = b"{}"
MAX_IMAGE_ROOT = 100 * 1024
# dockerd puts no more than 125 layers on top of each other; an index has a few dozen manifests.
MAX_LAYERS = MAX_MANIFESTS = 1000

_MEDIA_TYPE = Pattern(r"[\x21-\x7e]{1,255}")


class Descriptor(NamedTuple):
    """What a manifest or an index says of a blob: its digest, its size in bytes and its media type.

    ``annotations`` and ``urls``, places other than the registry, are remarks.
    """

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict = MappingProxyType({})
    urls: tuple = ()

    @classmethod
    def of(cls, data, media_type, **fields):
        """Describe ``data`` (bytes)."""
        return cls(sha256(data), len(data), media_type, **fields)

    def _compared(self):
        # Two descriptors that differ in remarks are of the same blob.
        return self[:4]

    def __eq__(self, other):
        return isinstance(other, Descriptor) and self._compared() == other._compared()

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(self._compared())

    @classmethod
    def load(cls, value, what):
        """Read a descriptor from parsed JSON; raises CorruptError naming ``what``."""
        if not isinstance(value, dict):
            raise CorruptError(f"{what}: a descriptor is not an object")
        digest, media_type = value.get("digest"), value.get("mediaType") or ""
        if not is_digest(digest):
            raise CorruptError(f"{what}: a descriptor has no sha256 digest")
        # A number alone: what is written as a text is one to no other reader.
        size = None if isinstance(value.get("size"), str) else parse_size(value.get("size"))
        if size is None:
            raise CorruptError(f"{what}: the descriptor of {digest} has no size")
        if media_type and not (isinstance(media_type, str) and _MEDIA_TYPE.fullmatch(media_type)):
            raise CorruptError(f"{what}: the descriptor of {digest} has a media type that is none")
        raw = value.get("platform")
        platform = Platform.load(raw, f"{what}: the descriptor of {digest}") if isinstance(raw, dict) else None
        urls = value.get("urls")
        return cls(digest, size, media_type, platform, _texts(value.get("annotations")),
                   tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else ())

    @property
    def is_layer(self):
        """Whether dockerd takes this for a layer; one that does not say is taken for one."""
        kind = self.media_type
        return not kind or (kind.startswith(_LAYER_FAMILIES) and not kind.endswith("+encrypted"))

    @property
    def elsewhere(self):
        """Whether registries need not hold this layer: it is to be had from its ``urls``, if at all."""
        return bool(self.urls) or "foreign" in self.media_type or "nondistributable" in self.media_type

    def dump(self):
        """Return this descriptor as JSON-ready data."""
        value = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                value["platform"]["variant"] = self.platform.variant
        return value


class Document(NamedTuple):
    """A parsed manifest or index.

    ``kind`` is "index" or "manifest". An index has ``manifests``; a manifest has ``config`` and
    ``layers``, and ``artifact_type`` where it is something else than an image. ``data`` are the bytes as
    they were stored, which alone carry the digest.
    """

    kind: str
    media_type: str
    data: bytes
    manifests: tuple = ()
    config: Descriptor | None = None
    layers: tuple = ()
    annotations: dict = MappingProxyType({})
    artifact_type: str = ""

    @property
    def digest(self):
        return sha256(self.data)

    @property
    def runnable(self):
        """The descriptors of an index's manifests that are for some platform: attestations are for none."""
        return tuple(m for m in self.manifests if m.platform and m.platform.os and m.platform.os != "unknown")

    def fitting(self, platform, what, present=lambda digest: False):
        """Return the descriptors of the index's manifests that a machine of ``platform`` runs, the best first.

        Arguments:
            platform: the Platform.
            what: how the error names the index.
            present: tells of a digest whether the manifest is at hand; one that is goes before better ones that
                would have to be fetched.

        Raises NotFoundError, which lists the platforms that there are.
        """
        found = platform.best(self.runnable, lambda m: m.platform)
        if not found:
            raise no_image(what, platform, [m.platform for m in self.runnable])
        return sorted(found, key=lambda m: not present(m.digest))

    def select(self, platform, what, present=lambda digest: False):
        """Return the first of what ``fitting`` returns."""
        return self.fitting(platform, what, present)[0]


class Config(NamedTuple):
    """What the configuration of an image says: its ``platform``, its layers' ``diff_ids``, its ``labels``."""

    platform: Platform
    diff_ids: tuple = ()
    labels: dict = MappingProxyType({})


def no_image(what, platform, there):
    """Return the NotFoundError for an image that has nothing for a platform but is there for others."""
    have = ", ".join(dict.fromkeys(map(str, there))) or "none"
    return NotFoundError(f"{what} has no image for {platform}; it has: {have}")


def parse_document(data, what):
    """Parse a manifest or an index (bytes).

    The media type is taken from the body; where an old writer left it out, from the fields.
    Raises CorruptError naming ``what`` for anything else, the schema 1 manifest included.
    """
    value = parse_json(data, what)
    media_type = value.get("mediaType") or ""
    if value.get("schemaVersion") != 2:
        raise CorruptError(f"{what} is no image manifest of schema version 2")
    if not isinstance(media_type, str):
        raise CorruptError(f"{what} has a media type that is no text")
    if not media_type:
        media_type = OCI_INDEX if "manifests" in value and "config" not in value else OCI_MANIFEST
    annotations = _texts(value.get("annotations"))
    if media_type in INDEX_TYPES:
        manifests = _descriptors(value, "manifests", what, MAX_MANIFESTS)
        return Document("index", media_type, data, manifests=manifests, annotations=annotations)
    if media_type in MANIFEST_TYPES:
        artifact = value.get("artifactType")
        return Document(
            "manifest", media_type, data, config=Descriptor.load(value.get("config"), what),
            layers=_descriptors(value, "layers", what, MAX_LAYERS), annotations=annotations,
            artifact_type=artifact if isinstance(artifact, str) and _MEDIA_TYPE.fullmatch(artifact) else "",
        )
    raise CorruptError(f"{what} has the media type {shown(media_type)}, which is neither an index nor a manifest")


def parse_config(data, what):
    """Parse the configuration of an image (bytes); returns a Config.

    An artifact's configuration, which names no layers, gives one without ``diff_ids``. Raises CorruptError naming
    ``what``.
    """
    value = parse_json(data, what)
    rootfs, settings = value.get("rootfs"), value.get("config")
    contents = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    contents = [] if contents is None else contents
    if not isinstance(contents, list) or len(contents) > MAX_LAYERS or not all(map(is_digest, contents)):
        raise CorruptError(f"{what} does not name the contents of the layers (rootfs.diff_ids) by their digests")
    labels = _texts(settings.get("Labels")) if isinstance(settings, dict) else {}
    return Config(Platform.load(value, what), tuple(contents), labels)


def known_descriptors(value, key):
    """Return the Descriptors in a list of a document that may be damaged; what is none is left out.

    Arguments:
        value: the parsed JSON.
        key: "layers" or "manifests".
    """
    found = []
    items = value.get(key) if isinstance(value, dict) else None
    for item in items[:MAX_LAYERS] if isinstance(items, list) else ():
        try:
            found.append(Descriptor.load(item, key))
        except CorruptError:
            continue
    return found


def _texts(value):
    """Return the entries of a mapping that are texts, {} for what is no mapping."""
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def _descriptors(value, key, what, most):
    # Go's writers have null for an empty list.
    items = [] if key in value and value[key] is None else value.get(key)
    if not isinstance(items, list):
        raise CorruptError(f"{what} has no list '{key}'")
    if len(items) > most:
        raise CorruptError(f"{what} lists {len(items)} {key}, more than the {most} allowed")
    return tuple(Descriptor.load(item, what) for item in items)
