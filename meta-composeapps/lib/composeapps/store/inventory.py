# SPDX-License-Identifier: MIT
"""What an app in the store names, read so that damage in it costs no other app anything.

Pruning must know which blobs an app needs even when the app cannot be installed any more. So
nothing here raises for damage: each name is taken from wherever it can still be read, and the
result tells what may be missing from it. A digest counts as named wherever it stands in a
document, so that fields which this package does not know are heeded too.
"""

import re

from composeapps import COMPOSE_FILE, beneath
from composeapps.app import bundle as bundles
from composeapps.app.layersmeta import architectures, usages
from composeapps.app.tree import LAYERS_META
from composeapps.errors import ComposeAppsError, CorruptError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.documents import known_descriptors, parse_config
from composeapps.oci.parsing import parse_json
from composeapps.oci.platforms import host_platform
from composeapps.oci.reference import parse_pinned

# What an inventory may lack: nothing, blobs that are JSON documents, blobs of any kind.
WHOLE, DOCUMENTS, ANYTHING = 0, 1, 2

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_PINNING = re.compile(rb"@sha256:[0-9a-f]{64}")
# What else a pinned reference is made of, what it does not begin with, and how long that can be.
_PUNCTUATION = b"._:/[]-"
_IN_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + _PUNCTUATION
_MAX_NAME = 1024


class Inventory:
    """What an app names.

    ``digests`` are those of its blobs, in the store or not; ``images`` maps the pinned references of
    its services' images to ImageFacts; ``lacks`` is WHOLE, DOCUMENTS or ANYTHING; ``problems`` are
    sentences about what could not be read.
    """

    def __init__(self):
        self.digests, self.images = set(), {}
        self.lacks, self.problems = WHOLE, []


class ImageFacts:
    """An image: the digests of its ``configs``; in ``variants`` the layers of each platform, lowest first,
    as (digest, size in bytes, digest of the content or ""); ``measured`` is {digest: bytes unpacked}."""

    def __init__(self, measured):
        self.configs, self.variants, self.measured = set(), [], measured


def take(store, ref, others=()):
    """Return the Inventory of one app.

    Arguments:
        store: the Store.
        ref: the app's pinned Reference.
        others: further Stores that may have a document which is damaged in this one.
    """
    return _Reader(store, ref, others).read()


class _Reader:
    def __init__(self, store, ref, others):
        self._stores = (store, *others)
        self._store, self._ref = store, ref
        self._directory = store.app_dir(ref)
        self._found = Inventory()
        self._layers_meta = None

    def read(self):
        self._found.digests.add(self._ref.digest)
        self._manifest()
        # The bundle is known by its name even where the manifest is not.
        self._found.digests.update(f"sha256:{path.stem}" for path in self._directory.glob("*.tgz")
                                   if _DIGEST.fullmatch(b"sha256:" + path.stem.encode()))
        for image in self._image_refs():
            self._image(image)
        return self._found

    def _manifest(self):
        data = self._document(self._ref.digest, f"the manifest of app {self._ref}", DOCUMENTS)
        if data is None:
            return
        value = _parse(data)
        for layer in known_descriptors(value, "layers")[1:2]:
            if layer.annotations.get(LAYERS_META) and (meta := self._quietly(layer.digest)):
                self._layers_meta = meta
        # Some registries take a list of the images' manifests besides.
        for descriptor in known_descriptors(value, "manifests"):
            if self._store.size_of(descriptor.digest) is not None:
                self._document(descriptor.digest, f"a manifest that app {self._ref} lists", ANYTHING)

    def _image_refs(self):
        """Return the pinned References of the services' images, from each place that names them."""
        places = sorted(self._directory.glob("images/**/index.json"))
        listed = {f"{path.parent.parent.relative_to(self._directory / 'images')}@sha256:{path.parent.name}"
                  for path in places}
        try:
            named = set(_references(beneath.read_regular(self._directory / COMPOSE_FILE)))
        except OSError:
            named = set()
        if not named or named != listed:
            # One of them is damaged, or was written by another program: the bundle settles it.
            named |= self._in_bundle()
        if not named | listed:
            self._lack(ANYTHING, f"the compose file of app {self._ref} cannot be read")
        self._found.digests.update(text.partition("@")[2] for text in named | listed)
        refs = [ref for text in sorted(named | listed) if (ref := _reference(text)) is not None]
        # A reference in the text of a compose file need not be a service's image: a variable's value, for example.
        return [ref for ref in refs
                if not listed or str(ref) in listed or self._store.size_of(ref.digest) is not None]

    def _in_bundle(self):
        for digest in sorted(self._found.digests - {self._ref.digest}):
            try:
                return set(_references(self._store.parse(
                    digest, lambda packed: bundles.read_compose(packed, f"the bundle of app {self._ref}"))))
            except (ComposeAppsError, OSError):
                continue
        return set()

    def _image(self, ref):
        facts = self._found.images.setdefault(str(ref), ImageFacts(usages(self._layers_meta)))
        index = self._index_file(ref)
        present = [d for d in index or () if self._store.size_of(d.digest) is not None]
        what = f"image {ref} of app {self._ref}"
        if self._store.size_of(ref.digest) is None and present and len(present) == len(index):
            # skopeo keeps the manifest of one platform and not the index above it.
            manifests = present
        else:
            data = self._document(ref.digest, what, ANYTHING)
            value = _parse(data) if data else {}
            if known_descriptors(value, "layers"):
                self._variant(value, facts)
                return
            manifests = known_descriptors(value, "manifests")
        digests = dict.fromkeys(d.digest for d in [*manifests, *(index or ())])
        wanted = {d.digest for d in index or ()}
        seen = False
        for digest in digests:
            if self._store.size_of(digest) is None and digest not in wanted:
                continue
            seen = True
            data = self._document(digest, f"manifest {digest} of {what}", ANYTHING)
            if data is not None:
                self._variant(_parse(data), facts)
        if not seen:
            self._lack(ANYTHING, f"no manifest of {what} is in the store")

    def _variant(self, value, facts):
        layers, contents = known_descriptors(value, "layers"), ()
        for config in known_descriptors({"config": [value.get("config")]}, "config"):
            facts.configs.add(config.digest)
            try:
                contents = parse_config(self._quietly(config.digest) or b"", config.digest).diff_ids
            except CorruptError:
                continue
        contents = contents if len(contents) == len(layers) else [""] * len(layers)
        facts.variants.append([(layer.digest, layer.size, content)
                               for layer, content in zip(layers, contents, strict=True)])

    def _index_file(self, ref):
        """Return the descriptors of the manifests that the app's directory lists for an image, or None."""
        path = self._directory.joinpath("images", ref.host, ref.path, ref.hex, "index.json")
        try:
            value = _parse(beneath.read_regular(path))
        except OSError:
            return None
        return known_descriptors(value, "manifests") or None

    def _document(self, digest, what, lacks):
        """Return a document, all digests in which count as named from now on, or None, which may hide ``lacks``."""
        self._found.digests.add(digest)
        data, reason = None, None
        for store in self._stores:
            try:
                data = store.read(digest)
                break
            except (ComposeAppsError, OSError) as err:
                reason = reason or str(err)
        if data is None:
            if lacks == ANYTHING and host_platform().normal.architecture in architectures(self._layers_meta):
                # All layers of all images for such a machine are named there, so only a config can be unknown.
                lacks = DOCUMENTS
            self._lack(lacks, f"{what} cannot be read: {reason}")
            return None
        self._found.digests.update(found.decode() for found in _DIGEST.findall(data))
        return data

    def _quietly(self, digest):
        """Return a document that names no blob but what others name as well, or None."""
        try:
            data = self._store.read(digest or "")
        except (ComposeAppsError, OSError):
            return None
        self._found.digests.update(found.decode() for found in _DIGEST.findall(data)
                                   if self._store.size_of(found.decode()) is not None)
        return data

    def _lack(self, lacks, problem):
        self._found.lacks = max(self._found.lacks, lacks)
        self._found.problems.append(problem)


def is_document(path, limit=4 * 1024 * 1024):
    """Tell whether a file may be a JSON document, by its size and its first byte."""
    with beneath.open_regular(path) as stream:
        return stream.read(1) in (b"{", b"[", b"") and path.stat().st_size <= limit


def chains(contents):
    """Return a name for each layer of an image that tells it and all below it, from the contents' digests."""
    names = []
    for content in contents:
        names.append(content if not names else sha256(f"{names[-1]} {content}".encode()))
    return names


def _references(data):
    """Return the pinned references (texts) in bytes of any kind, each as long as it can be read."""
    references, end = [], 0
    for found in _PINNING.finditer(data):
        # Backwards from the digest: a word without one may be long, and costs nothing then.
        before = data[max(end, found.start() - _MAX_NAME):found.start()]
        word, end = before[len(before.rstrip(_IN_NAME)):], found.end()
        # A bracket may belong to the host, an IPv6 address, or be that of a list.
        names = dict.fromkeys((word.lstrip(_PUNCTUATION), word.lstrip(_PUNCTUATION.replace(b"[", b""))))
        references += [(name + found[0]).decode() for name in names if name]
    return references


def _reference(text):
    try:
        return parse_pinned(text)
    except UsageError:
        return None


def _parse(data):
    try:
        return parse_json(data, "")
    except CorruptError:
        return {}
