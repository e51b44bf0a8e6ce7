# SPDX-License-Identifier: MIT
"""The images of an app that is to be published: which they are, for which platforms, whether devices run them."""

from composeapps.app.tree import common_platforms, load_image, restricted
from composeapps.errors import CorruptError, UsageError
from composeapps.oci.documents import CONFIG_TYPES
from composeapps.oci.parsing import parse_json, shown
from composeapps.oci.reference import parse_pinned

# dockerd stacks no more.
MAX_LAYERS = 125
MAX_LIST = 1024 * 1024


def resolver(source, pins=None, notify=lambda text: None):
    """Return a function that gives the digest of an image's Reference, asking the registry once for each.

    Arguments:
        source: a RegistrySource.
        pins: what ``pinned_list`` returned: these are not asked for.
        notify: called with a line of text about each.
    """
    known, pins = {}, pins or {}

    def resolve(ref):
        if ref not in known:
            name = f"{ref.repository}:{ref.tag}" if ref.tag else ref.repository
            known[ref] = ref.digest or pins.get(name) or source.resolve(ref).digest
            notify(f"{ref} is {known[ref]}")
        return known[ref]

    return resolve


def pinned_list(data, path):
    """Read a list of pinned images: JSON, or a reference in each line.

    Arguments:
        data: the file's content (bytes). JSON is a list of references, or a mapping with references as its values.
        path: how errors name it.

    Returns {repository or repository:tag: digest}. An entry without a tag is for images that are named without one.
    Raises UsageError for what is no pinned reference, and for two digests of one name.
    """
    if len(data) > MAX_LIST:
        raise UsageError(f"{path} has {len(data)} bytes, more than the {MAX_LIST} allowed")
    try:
        if data.lstrip()[:1] in (b"{", b"["):
            value = parse_json(b'{"":' + data + b"}", str(path))[""]
            items = list(value.values()) if isinstance(value, dict) else value
        else:
            items = [line.strip() for line in data.decode().replace(",", "\n").splitlines()]
            items = [line for line in items if line and not line.startswith("#")]
    except (CorruptError, UnicodeDecodeError):
        raise UsageError(f"{path} is no list of pinned images: JSON, or one HOST/PATH@sha256:… in a line") from None
    pins = {}
    for item in items:
        if not isinstance(item, str):
            raise UsageError(f"{path}: {shown(str(item))} is not a pinned image, HOST/PATH@sha256:…")
        ref = parse_pinned(item, what=f"{path}: image", version=False)
        name = f"{ref.repository}:{ref.tag}" if ref.tag else ref.repository
        if pins.setdefault(name, ref.digest) != ref.digest:
            raise UsageError(f"{path} has two digests for {name}: leave one out")
    return pins


def choose(source, client, refs, platforms=(), notify=lambda text: None):
    """Read the images of an app and find out where it runs.

    Arguments:
        source: a RegistrySource.
        client: its RegistryClient.
        refs: the pinned References of the images.
        platforms: the Platforms that are wanted; empty for all of Linux that every image has.
        notify: called with a line of text about what is left out.

    Returns ({str(ref): Image with the variants that are needed}, Platforms). Raises UsageError for images that have
    no platform in common or that dockerd could not run, NotFoundError for one that is not there or lacks a platform.
    """
    images = {str(ref): load_image(source, ref, list(platforms) or None, configs=False) for ref in refs}
    for image in images.values():
        for platform in image.absent:
            notify(f"warning: the registry lacks the image for {platform} that the index {image.ref} names: left out")
    common = list(platforms) or common_platforms(images)
    if not common:
        there = "; ".join(f"{name}: {', '.join(str(v.platform) for v in image.variants) or 'none for Linux'}"
                          for name, image in images.items())
        raise UsageError(f"the images have no platform in common, build them for one ({there})")
    images = restricted(images, common)
    for image in images.values():
        for variant in image.variants:
            _check(image, variant, client, notify)
    return images, common


def _check(image, variant, client, notify):
    """Refuse what dockerd could not run: artifacts, layers that are none or that no registry has, too many of them."""
    what = f"image {image.ref}"
    config, layers = variant.document.config, variant.document.layers
    if config.media_type and config.media_type not in CONFIG_TYPES:
        kind = variant.document.artifact_type or config.media_type
        raise UsageError(f"{what} is no container image but an artifact ({kind}): name an image that dockerd runs")
    if len(layers) > MAX_LAYERS:
        raise UsageError(f"{what} has {len(layers)} layers, and dockerd stacks no more than {MAX_LAYERS}: join some of "
                         "them")
    for layer in layers:
        if not layer.is_layer:
            raise UsageError(f"{what}: dockerd does not unpack layer {layer.digest} of the type {layer.media_type}: "
                             "build the image with layers of tar, tar+gzip or tar+zstd")
        if layer.elsewhere and not client.exists(image.ref, "blobs", layer.digest):
            where = f" but at {shown(layer.urls[0])}" if layer.urls else ""
            raise UsageError(f"{what} for {variant.platform}: the layer {layer.digest} is not in the registry{where}, "
                             "where devices do not fetch: push the image together with that layer")
    if any(layer.media_type.endswith("zstd") for layer in layers):
        notify(f"warning: {what} for {variant.platform} has layers in zstd, which no dockerd before 23 loads")
