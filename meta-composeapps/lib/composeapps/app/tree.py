# SPDX-License-Identifier: MIT
"""An app as a tree of blobs: app manifest, bundle, images, their manifests and layers.

The same reading serves a registry and a store: both give a document or a small blob by
reference and digest. Format: composectl v96.
"""

from __future__ import annotations

import contextlib
import json
from typing import NamedTuple

from composeapps import COMPOSE_FILE
from composeapps.app import bundle as bundles
from composeapps.app import filerefs
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from composeapps.oci.digests import is_digest, sha256
from composeapps.oci.documents import (
    MAX_DOCUMENT,
    MAX_IMAGE_ROOT,
    Config,
    Descriptor,
    Document,
    no_image,
    parse_config,
    parse_document,
    parse_size,
)
from composeapps.oci.onepass import parsed
from composeapps.oci.platforms import Offer, Platform
from composeapps.oci.reference import Reference

ARTIFACT_TYPE = "application/vnd.fio+compose-app"
BUNDLE_TYPE = "application/octet-stream"
INDEX_DIGEST = "org.foundries.app.bundle.index.digest"
INDEX_SIZE = "org.foundries.app.bundle.index.size"
LAYERS_META = "layers-meta"
MAX_MANIFEST = 50 * 1024
# What a bundle unpacks to may have 1 GiB, which compression can only make a little larger.
MAX_BUNDLE = bundles.MAX_BUNDLE * 65 // 64
# In place of platforms: whatever of an image the source holds.
PRESENT = "present"
# What is wanted of every bundle besides the compose file and the env_files of its services.
_KEPT = (".env",)
# How much of a bundle is read: all, so that its contents are known; all, for the compose file in it; nothing where the
# store has the compose file beside it.
WHOLE, CHECKED, UNREAD = "whole", "checked", "unread"


class Blob(NamedTuple):
    """A blob an app needs: where it is fetched from, how, and its descriptor.

    ``kind`` is the registry's collection, "manifests" or "blobs"; ``platform`` is None for what
    every platform needs. An ``optional`` blob helps, but a store without it is complete for the
    field's readers.
    """

    ref: Reference
    kind: str
    descriptor: Descriptor
    platform: Platform | None = None
    optional: bool = False


class Variant(NamedTuple):
    """An image for one platform; ``config`` is None where only an index was asked for its platforms."""

    platform: Platform
    descriptor: Descriptor
    document: Document
    config: Config | None


class Image(NamedTuple):
    """A service's image: its pinned reference, its root document and the variants that were asked for.

    ``absent`` are the Platforms that its index names and whose manifests are not there.
    """

    ref: Reference
    root: Descriptor
    is_index: bool
    variants: tuple
    absent: tuple = ()

    def variant_for(self, platform):
        """Return the Variant that a machine of a Platform runs, None when there is none."""
        return self.offer().best(platform)

    def offer(self):
        """Return the Offer of the variants, for who asks for many platforms."""
        return Offer(self.variants, lambda variant: variant.platform)

    def blobs(self):
        """Yield the Blobs of this image, the layers last."""
        if self.is_index:
            yield Blob(self.ref, "manifests", self.root)
        for variant in self.variants:
            yield Blob(self.ref, "manifests", variant.descriptor, variant.platform)
            yield Blob(self.ref, "blobs", variant.document.config, variant.platform)
        for variant in self.variants:
            for layer in variant.document.layers:
                yield Blob(self.ref, "blobs", layer, variant.platform)


class App(NamedTuple):
    """An app's version with all that it refers to.

    ``contents`` are the bundle's where all of it was read, with what says what variables are: ``.env`` and the files
    that services name as ``env_file``.
    """

    ref: Reference
    manifest: Document
    bundle: Descriptor
    bundle_index: Descriptor | None
    layers_meta: Descriptor | None
    compose: bytes
    images: dict
    contents: bundles.Contents | None = None

    def blobs(self):
        """Yield every Blob of the app once, those of the app itself first."""
        seen = set()
        for blob in self._all_blobs():
            if blob.descriptor.digest not in seen:
                seen.add(blob.descriptor.digest)
                yield blob

    def _all_blobs(self):
        own = Descriptor(self.ref.digest, len(self.manifest.data), self.manifest.media_type)
        yield Blob(self.ref, "manifests", own)
        # The config is the empty JSON object that each of these manifests has: nobody stores it.
        yield Blob(self.ref, "blobs", self.bundle)
        for descriptor in (self.bundle_index, self.layers_meta):
            if descriptor is not None:
                yield Blob(self.ref, "blobs", descriptor, optional=True)
        for image in self.images.values():
            yield from image.blobs()


class StoreSource:
    """Reads an app's documents from a Store.

    Arguments:
        store: the Store.
        unpacked: called with an app's Reference for (the digest of its compose file, one (bytes) that may be it or
            None), as whoever unpacked it noted it; or None.
    """

    def __init__(self, store, unpacked=lambda ref: None):
        self._store, self._app, self._unpacked = store, None, unpacked

    def present(self, digest):
        """Tell whether a manifest is there."""
        return self._store.size_of(digest) is not None

    def document(self, ref, digest):
        """Return a manifest or an index (bytes), verified."""
        # The first one that is asked for is an app's own, and others may lie in its directory.
        self._app = self._app or ref
        return self._store.read(digest, near=self._app)

    def blob(self, ref, digest, size):
        """Return a small blob (bytes), verified."""
        return self._store.read(digest, size, near=self._app)

    def parse(self, ref, digest, size, parse):
        """Return what ``parse`` makes of a blob of any size, read once and verified: see ``onepass.parsed``."""
        return self._store.parse(digest, parse, size, self._app or ref)

    def compose(self, ref, index):
        """Return the compose file (bytes) that an app's directory has, as the bundle's index (a Descriptor) names it.

        Without an index, which may be None, it is the one that was unpacked. None when it is not there or another one:
        then the bundle says.
        """
        listed, unpacked = None, None
        with contextlib.suppress(ComposeAppsError, OSError, ValueError, KeyError, TypeError, RecursionError):
            if index is not None:
                listed = json.loads(self._store.read(index.digest, index.size, near=self._app))[COMPOSE_FILE]
        if listed is None:
            listed, unpacked = self._unpacked(ref) or (None, None)
        with contextlib.suppress(OSError):
            data = self._store.compose_of(ref, bundles.MAX_COMPOSE)
            if data is not None and sha256(data) == listed:
                return data
        return unpacked if unpacked is not None and sha256(unpacked) == listed else None

    def layout(self, ref):
        """Return the index.json that an app's directory has for an image (bytes), or None."""
        return self._store.image_layout(ref, self._app)


class RegistrySource:
    """Reads an app's documents from a registry, each once.

    Arguments:
        client: a RegistryClient.
    """

    def __init__(self, client):
        self._client = client
        self._seen = {}

    def resolve(self, ref):
        """Return ``ref`` pinned to what its tag names now; the document counts as read."""
        data = self._client.manifest(ref)
        self._seen[sha256(data)] = data
        return ref.pinned(sha256(data))

    def document(self, ref, digest):
        """Return a manifest or an index (bytes), verified."""
        return self._once(digest, lambda: self._client.manifest(ref, digest))

    def blob(self, ref, digest, size):
        """Return a small blob (bytes), verified."""
        return self._once(digest, lambda: self._client.read_blob(ref, digest, size))

    def parse(self, ref, digest, size, parse):
        """Return what ``parse`` makes of a blob of any size, read once and verified: see ``onepass.parsed``."""
        return parsed(self._client.blob(ref, digest, size), parse)

    def _once(self, digest, fetch):
        if digest not in self._seen:
            self._seen[digest] = fetch()
        return self._seen[digest]


def load_app(source, ref, platforms=None, images=None, configs=True, reading=CHECKED, known=None):
    """Read an app.

    Arguments:
        source: a StoreSource or a RegistrySource.
        ref: the app's pinned Reference.
        platforms: the Platforms whose variants are wanted; None for those of Linux that every image has,
            PRESENT for those whose manifests a StoreSource has.
        images: the services' pinned References where they are known; read from the compose file
            (which takes PyYAML, unless it is JSON) by default.
        configs: see ``load_image``.
        reading: how much of the bundle is read: WHOLE, CHECKED, or, by a StoreSource, UNREAD.
        known: {pinned reference: Image} of images that need not be read again, of other apps for the same platforms;
            gets those that are read now.

    Raises CorruptError for what is no app, NotFoundError for a blob that is missing or a platform
    that an image lacks, and what the source raises.
    """
    what = f"app {ref}"
    data = source.document(ref, ref.digest)
    if len(data) > MAX_MANIFEST:
        raise CorruptError(f"{what}: its manifest has {len(data)} bytes, more than the {MAX_MANIFEST} allowed")
    manifest = parse_document(data, what)
    if manifest.kind != "manifest" or not manifest.layers or manifest.layers[0].media_type != BUNDLE_TYPE:
        raise CorruptError(f"{what} is no compose app: the first layer of its manifest is not {BUNDLE_TYPE}")
    bundle = manifest.layers[0]
    if bundle.size > MAX_BUNDLE:
        raise CorruptError(f"{what}: its bundle has {bundle.size} bytes, more than the {MAX_BUNDLE} allowed")
    index, compose, contents = _bundle_index(bundle, what), None, None
    if reading == UNREAD:
        compose = source.compose(ref, index)
    if reading == WHOLE:
        contents, compose = _whole(source, ref, bundle, f"the bundle of {what}")
    elif compose is None:
        compose = source.parse(ref, bundle.digest, bundle.size,
                               lambda packed: bundles.read_compose(packed, f"the bundle of {what}"))
    if images is None:
        from composeapps.app.compose import service_images

        images = service_images(compose, what)
    known = {} if known is None else known
    for image in images:
        if str(image) not in known:
            known[str(image)] = load_image(source, image, platforms, configs)
    loaded = {str(image): known[str(image)] for image in images}
    if platforms is None:
        loaded = restricted(loaded, common_platforms(loaded))
    return App(ref, manifest, bundle, index, _layers_meta(manifest), compose, loaded, contents)


def whole(app, store):
    """Return an App with the contents of its bundle, read from a Store unless they are known; raises as load_app."""
    if app.contents is not None:
        return app
    return app._replace(contents=_whole(StoreSource(store), app.ref, app.bundle, f"the bundle of app {app.ref}")[0])


def _whole(source, ref, bundle, what):
    """Return (Contents of a bundle, its compose file), read once more where an env_file was too large to be kept."""
    def read(wanted):
        return source.parse(ref, bundle.digest, bundle.size, lambda packed: bundles.read(packed, what, wanted))

    contents = read(_KEPT)
    compose = bundles.compose_of(contents, what)
    if not contents.all_kept:
        from composeapps.app.compose import pinned

        services = pinned(compose, what.removeprefix("the bundle of "))["services"]
        _texts, rest = contents.texts({name for service in services.values()
                                       for name in filerefs.environment_files(service)})
        if rest:
            # One that is a hard link has its content under another name.
            sources = {contents.index[name].source for name in rest}
            contents = read({*_KEPT, *(name for name, member in contents.index.items() if member.source in sources)})
    return contents, compose


def load_image(source, ref, platforms=None, configs=True):
    """Read an image's index and manifests.

    A root that is no index but a manifest has the platform that its config names. Where a source has one
    of several manifests that a platform runs, that one is taken, be it the best or not: an image that was
    fetched stays complete.

    Arguments:
        source, ref, platforms: as for ``load_app``.
        configs: read the configurations of an index's images, too.

    Raises what ``load_app`` raises.
    """
    what = f"image {ref}"
    try:
        data = source.document(ref, ref.digest)
    except NotFoundError:
        layout = getattr(source, "layout", lambda ref: None)(ref)
        if layout is None:
            raise
        return _layout_image(source, ref, layout, platforms, what)
    if len(data) > MAX_IMAGE_ROOT:
        raise CorruptError(f"{what}: its manifest has {len(data)} bytes, more than the {MAX_IMAGE_ROOT} allowed")
    root = parse_document(data, what)
    own = Descriptor(ref.digest, len(data), root.media_type)
    if root.kind == "manifest":
        variant = _variant(source, ref, own, root, None)
        for platform in _named(platforms):
            if not platform.runs(variant.platform):
                raise no_image(what, platform, [variant.platform])
        return Image(ref, own, False, (variant,))
    present = getattr(source, "present", lambda digest: False)
    if platforms is None:
        chosen = [[manifest] for manifest in root.runnable if manifest.platform.normal.os == "linux"]
    elif platforms == PRESENT:
        chosen = [[manifest] for manifest in root.runnable if present(manifest.digest)]
    else:
        chosen = [root.fitting(platform, what, present) for platform in platforms]
    variants, absent = {}, []
    for fitting in chosen:
        try:
            descriptor, document = _first(source, ref, fitting, what)
        except NotFoundError:
            if platforms is not None:
                raise
            absent.append(fitting[0].platform)
            continue
        if descriptor not in variants:
            variants[descriptor] = _variant(source, ref, descriptor, document, descriptor.platform, configs)
    return Image(ref, own, True, tuple(variants.values()), tuple(absent))


def _first(source, ref, fitting, what):
    """Return (descriptor, Document) of the first manifest of some that is there.

    A copy of an image for some platforms keeps the index of all, since its digest is the image's.
    """
    failure = None
    for descriptor in fitting:
        try:
            document = _manifest(source, ref, descriptor, what)
        except NotFoundError as err:
            failure = failure or err
            continue
        if document.kind != "manifest":
            raise CorruptError(f"{what}: {descriptor.digest} is an index in an index, which nothing here reads")
        return descriptor, document
    raise failure


def _named(platforms):
    return () if platforms is None or platforms == PRESENT else platforms


def _manifest(source, ref, descriptor, what):
    """Read a manifest that an index describes."""
    data = source.document(ref, descriptor.digest)
    if len(data) != descriptor.size:
        raise CorruptError(f"manifest {descriptor.digest} of {what} has {len(data)} bytes, not the {descriptor.size} "
                           "that the index names")
    return parse_document(data, f"manifest {descriptor.digest} of {what}")


def _layout_image(source, ref, data, platforms, what):
    """Read an image of which the store has no index but a list of the manifests that were fetched: skopeo's layout."""
    variants = []
    for descriptor in parse_document(data, f"the index.json of {what}").manifests:
        document = _manifest(source, ref, descriptor, what)
        if document.kind == "manifest":
            variants.append(_variant(source, ref, descriptor, document, descriptor.platform))
    image = Image(ref, Descriptor(ref.digest, 0), False, tuple(variants))
    for platform in _named(platforms):
        if image.variant_for(platform) is None:
            raise no_image(what, platform, [variant.platform for variant in variants])
    return restricted({"": image}, platforms)[""] if _named(platforms) else image


def _variant(source, ref, descriptor, document, platform, configs=True):
    config = None
    if configs or platform is None:
        blob, what = document.config, f"config {document.config.digest} of image {ref}"
        if blob.size > MAX_DOCUMENT:
            raise CorruptError(f"{what} claims {blob.size} bytes, more than the {MAX_DOCUMENT} allowed")
        config = parse_config(source.blob(ref, blob.digest, blob.size), what)
    return Variant(platform or config.platform, descriptor, document, config)


def common_platforms(images):
    """Return the Linux Platforms for which every image has something to run, sorted by name.

    Arguments:
        images: {name: Image}.
    """
    offers = [image.offer() for image in images.values()]
    there = {variant.platform.normal for image in images.values() for variant in image.variants}
    return sorted((platform for platform in there if platform.os == "linux"
                   and all(offer.best(platform) is not None for offer in offers)), key=str)


def restricted(images, platforms):
    """Return {name: Image} with only the variants that machines of some Platforms run."""
    def only(image):
        offer = image.offer()
        needed = {variant.descriptor for platform in platforms if (variant := offer.best(platform)) is not None}
        return image._replace(variants=tuple(v for v in image.variants if v.descriptor in needed))

    return {name: only(image) for name, image in images.items()}


def _bundle_index(bundle, what):
    digest = bundle.annotations.get(INDEX_DIGEST)
    if digest is None:
        return None
    size = parse_size(bundle.annotations.get(INDEX_SIZE))
    if not is_digest(digest) or size is None:
        raise CorruptError(f"{what}: its manifest names a bundle index without a digest or a size")
    return Descriptor(digest, size, "application/json")


def _layers_meta(manifest):
    if len(manifest.layers) > 1 and manifest.layers[1].annotations.get(LAYERS_META) == "v1":
        return manifest.layers[1]
    return None
