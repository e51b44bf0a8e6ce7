# SPDX-License-Identifier: MIT
"""Ask the registry what an app consists of: every blob's digest and size, platforms, licences.

Read are the app's manifest and bundle, and the indexes, manifests and configurations of its
images, each once and each checked against its digest. Layers are not read: what refers to
them has their digests and sizes.
"""

import re
from dataclasses import dataclass

from composeapps.app.tree import common_platforms, load_app
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from recipes import dangers, licenses

_PLATFORM = re.compile(r"linux/[a-z0-9]+(?:/[a-z0-9.]+)?")


@dataclass(frozen=True)
class ResolvedApp:
    """All that a recipe says.

    ``uri`` and ``images`` are pinned references, ``blobs`` and ``platform_blobs[platform]`` are
    oci:// URLs, ``sizes[platform]`` is what a device of that platform stores, in bytes.
    ``licenses`` maps each image to what it declares (None: nothing); ``warnings`` are sentences, and so are
    ``dangers``, on what in the app reaches beyond its containers.
    """

    conf: object
    uri: str
    images: tuple
    platforms: tuple
    blobs: tuple
    platform_blobs: dict
    sizes: dict
    license: str
    licenses: dict
    warnings: tuple
    dangers: tuple = ()


def resolve(conf, client, source):
    """Return the ResolvedApp of an AppConf.

    :param conf: a ``recipes.appconf.AppConf``
    :param client: a ``composeapps.registry.client.RegistryClient``
    :param source: a ``composeapps.app.tree.RegistrySource`` of that client, shared by all apps
    :raises ComposeAppsError: of the kind that fits, its message led by the file
    """
    try:
        return _resolve(conf, client, source)
    except ComposeAppsError as err:
        # With --app the reference stands in the file's place, and is what most messages begin with.
        text = str(err) if str(err).startswith(str(conf.path)) else f"{conf.path}: {err}"
        raise type(err)(text) from None


def _resolve(conf, client, source):
    ref = conf.ref if conf.ref.digest else source.resolve(conf.ref)
    ref = ref.pinned(ref.digest)
    app = load_app(source, ref, list(conf.platforms) if conf.platforms else None)
    chosen = _variants(app, conf.platforms)
    own = [blob for blob in app.blobs() if blob.platform is None]
    own = [blob for blob in own if not blob.optional or client.exists(blob.ref, blob.kind, blob.descriptor.digest)]
    common = {blob.descriptor.digest: blob for blob in own}
    platform_blobs = {
        name: {digest: blob for digest, blob in _image_blobs(images).items() if digest not in common}
        for name, images in chosen.items()
    }
    declared = _declared(chosen)
    license_, warnings = _license(conf, declared)
    return ResolvedApp(
        conf=conf, uri=str(ref), images=tuple(sorted(app.images)), platforms=tuple(chosen),
        blobs=tuple(map(_url, common.values())),
        platform_blobs={name: tuple(map(_url, blobs.values())) for name, blobs in platform_blobs.items()},
        sizes={name: sum(blob.descriptor.size for blob in (*common.values(), *blobs.values()))
               for name, blobs in platform_blobs.items()},
        license=license_, licenses=declared, warnings=tuple(warnings),
        dangers=tuple(dangers.find(app.compose, f"the compose file of app {ref}")),
    )


def _variants(app, wanted):
    """Return {platform: {image: its one Variant}}, sorted, of the platforms that a recipe can offer."""
    if wanted is None:
        wanted = [platform for platform in common_platforms(app.images) if _PLATFORM.fullmatch(str(platform))]
    chosen = {}
    for platform in wanted:
        images = {name: (image, variant) for name, image in app.images.items()
                  if (variant := image.variant_for(platform)) is not None}
        if len(images) == len(app.images):
            # By the name that recipes use: arm64's first variant goes without saying.
            chosen[str(platform.normal)] = images
    if not chosen:
        raise NotFoundError(f"the images of app {app.ref} have no Linux platform in common: publish them for one")
    return dict(sorted(chosen.items()))


def _image_blobs(images):
    blobs = {}
    for image, variant in images.values():
        only = type(image)(image.ref, image.root, image.is_index, (variant,))
        for blob in only.blobs():
            blobs.setdefault(blob.descriptor.digest, blob)
    return blobs


def _url(blob):
    kind = "manifest" if blob.kind == "manifests" else "blob"
    return f"oci://{blob.ref.repository};digest={blob.descriptor.digest};type={kind};size={blob.descriptor.size}"


def _declared(chosen):
    """Return {image: licence label or None}; what its platforms declare together."""
    found = {}
    for images in chosen.values():
        for name, (_image, variant) in images.items():
            found.setdefault(name, set()).add(variant.config.labels.get(licenses.LABEL, "").strip())
    return {
        name: " AND ".join(f"({text})" if len(texts) > 1 else text for text in sorted(texts)) if all(texts) else None
        for name, texts in sorted(found.items())
    }


def _license(conf, declared):
    """Return (LICENSE, warnings).

    A licence that nobody declared is not made up: the recipe is CLOSED until the file of the
    app names one, which is what a licence review has to see.
    """
    if conf.license:
        return conf.license, []
    known, warnings = [], []
    for image, text in declared.items():
        where = "this file" if conf.lines else "a file that describes the app"
        remedy = f"label the image or set 'license' in {where}; until then the recipe's LICENSE is CLOSED"
        if text is None:
            warnings.append(f"{conf.path}: image {image} has no label {licenses.LABEL}: {remedy}")
            continue
        try:
            licenses.to_yocto(text)
            known.append(text)
        except licenses.LicenseError as err:
            warnings.append(f"{conf.path}: image {image}: {str(err)!a}: {remedy}")
    if warnings:
        return licenses.CLOSED, warnings
    if not known:
        raise CorruptError("the app has no image")
    return licenses.combine(known), []
