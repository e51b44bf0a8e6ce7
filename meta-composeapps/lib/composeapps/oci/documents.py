# SPDX-License-Identifier: MIT
"""Digests, descriptors, manifests and platforms of the OCI image specification.

Everything that a registry or a store hands us goes through these functions before
it is used, so that no caller has to wonder whether a field is there or sane.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import NamedTuple

from composeapps.errors import CorruptError, NotFoundError
from composeapps.oci.digests import is_digest, sha256
from composeapps.oci.platforms import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

EMPTY_JSON = b"{}"
# Manifests above this are refused by registries and by the field's readers alike.
MAX_DOCUMENT = 4 * 1024 * 1024
MAX_IMAGE_ROOT = 100 * 1024


class Descriptor(NamedTuple):
    """What a manifest or an index says of a blob: its digest, its size in bytes and its media type."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict = MappingProxyType({})

    @classmethod
    def of(cls, data, media_type, **fields):
        """Describe ``data`` (bytes)."""
        return cls(sha256(data), len(data), media_type, **fields)

    def _compared(self):
        # The annotations, the last field, are remarks: two descriptors that differ in these are of the same blob.
        return self[:-1]

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
        digest, size = value.get("digest"), value.get("size")
        if not is_digest(digest):
            raise CorruptError(f"{what}: a descriptor has no sha256 digest")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise CorruptError(f"{what}: the descriptor of {digest} has no size")
        platform = None
        raw = value.get("platform")
        if isinstance(raw, dict):
            platform = Platform(*(str(raw.get(key) or "") for key in ("os", "architecture", "variant")))
        annotations = value.get("annotations")
        return cls(
            digest, size, str(value.get("mediaType") or ""), platform,
            annotations if isinstance(annotations, dict) else {},
        )

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
    ``layers``. ``data`` are the bytes as they were stored, which alone carry the digest.
    """

    kind: str
    media_type: str
    data: bytes
    manifests: tuple = ()
    config: Descriptor | None = None
    layers: tuple = ()
    annotations: dict = MappingProxyType({})

    @property
    def digest(self):
        return sha256(self.data)

    def select(self, platform, what):
        """Return the descriptor of the index's manifest for ``platform``.

        Raises NotFoundError, which lists the platforms that there are.
        """
        runnable = [m for m in self.manifests if m.platform and m.platform.os != "unknown"]
        matching = [m for m in runnable if platform.matches(m.platform)]
        # A variant named on both sides beats one that is left open.
        matching.sort(key=lambda m: m.platform.variant != platform.variant)
        if not matching:
            have = ", ".join(str(m.platform) for m in runnable) or "none"
            raise NotFoundError(f"{what} has no image for {platform}; it has: {have}")
        return matching[0]


def parse_json(data, what):
    """Parse bytes as a JSON object; raises CorruptError naming ``what``."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise CorruptError(f"{what} is not JSON: {str(err).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{what} is not a JSON object")
    return value


def parse_document(data, what):
    """Parse a manifest or an index (bytes).

    The media type is taken from the body; where an old writer left it out, from the fields.
    Raises CorruptError naming ``what`` for anything else, the schema 1 manifest included.
    """
    value = parse_json(data, what)
    media_type = value.get("mediaType") or ""
    if value.get("schemaVersion") != 2:
        raise CorruptError(f"{what} is no image manifest of schema version 2")
    if not media_type:
        media_type = OCI_INDEX if "manifests" in value and "config" not in value else OCI_MANIFEST
    annotations = value.get("annotations") if isinstance(value.get("annotations"), dict) else {}
    if media_type in INDEX_TYPES:
        manifests = _descriptors(value, "manifests", what)
        return Document("index", media_type, data, manifests=manifests, annotations=annotations)
    if media_type in MANIFEST_TYPES:
        return Document(
            "manifest", media_type, data, config=Descriptor.load(value.get("config"), what),
            layers=_descriptors(value, "layers", what), annotations=annotations,
        )
    raise CorruptError(f"{what} has the media type '{media_type}', which is neither an index nor a manifest")


def _descriptors(value, key, what):
    items = value.get(key)
    if not isinstance(items, list):
        raise CorruptError(f"{what} has no list '{key}'")
    return tuple(Descriptor.load(item, what) for item in items)


def dump_json(value):
    """Serialize to the bytes that get a digest: compact, in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
