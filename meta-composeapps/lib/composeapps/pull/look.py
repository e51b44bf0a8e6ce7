# SPDX-License-Identifier: MIT
"""A look at an app in its registry: what it is made of, what a pull would fetch, what the store has instead.

Nothing is kept, and no lock is taken.
"""

from typing import NamedTuple

from composeapps.app import compose
from composeapps.app.layersmeta import usages
from composeapps.app.tree import UNREAD, App, RegistrySource, StoreSource, common_platforms, load_app, load_image
from composeapps.errors import ComposeAppsError, NotFoundError, UsageError
from composeapps.oci.platforms import Offer, host_platform


class Look(NamedTuple):
    """What was seen.

    ``app`` has the variants of all its ``platforms``; ``sizes`` maps these, as texts, to the bytes that such a
    machine stores. ``chosen`` is the app for ``platform`` alone, or None when it is for no such machine; ``missing``
    are the Blobs of that which the store lacks; ``unpacked`` is {digest: bytes on dockerd's disk} of the layers that
    were measured. ``before`` is the Reference of the version in the store that ``changes`` are told against, None
    when there is none; ``changes`` are (what, name) pairs, "added", "removed" or "changed" and a service's name, and
    ("changed", "") for the rest of the bundle.
    """

    app: App
    platforms: tuple
    sizes: dict
    platform: object
    chosen: object
    missing: tuple
    unpacked: dict
    before: object
    changes: tuple


class _Source(RegistrySource):
    """Reads from the registry, and chooses the images that a pull would choose."""

    def __init__(self, client, store):
        super().__init__(client)
        self._store = store

    def present(self, digest):
        return self._store.size_of(digest) is not None


def look(ref, client, store, platform=None, states=None):
    """Look at an app.

    Arguments:
        ref: its Reference, by digest or by tag.
        client: a RegistryClient.
        store: the Store that it is compared with; it need not be there.
        platform: the Platform to look for; this machine's by default, if the app is for that.
        states: the StateDirectory that tells which version is installed, or None.

    Returns a Look. Raises NotFoundError for an app or an image that is not there, or a platform that was asked for
    and that the app lacks, CorruptError, RegistryError.
    """
    source = _Source(client, store)
    ref = ref.pinned(ref.digest) if ref.digest else source.resolve(ref)
    app = load_app(source, ref, configs=False)
    platforms = tuple(common_platforms(app.images))
    offers = {name: _offers(source, image) for name, image in app.images.items()}
    sizes = {str(each): _size(app, offers, each) for each in platforms}
    wanted = platform or host_platform()
    chosen, missing = None, ()
    try:
        chosen = _for(source, app, wanted)
        missing = tuple(blob for blob in chosen.blobs()
                        if store.size_of(blob.descriptor.digest) != blob.descriptor.size)
        if store.has_app(ref) and all(blob.optional for blob in missing):
            missing = ()
    except NotFoundError:
        if platform is not None:
            raise
    before = _before(ref, store, states)
    return Look(app, platforms, sizes, wanted, chosen, missing, _unpacked(source, app), before,
                _changes(app, before, store) if before else ())


def _for(source, app, platform):
    images = {name: load_image(source, image.ref, [platform], configs=False) for name, image in app.images.items()}
    return app._replace(images=images)


def _offers(source, image):
    """Return the Offers of what of an image is at hand, and of all of it, in the order in which a pull asks them."""
    here = [variant for variant in image.variants if source.present(variant.descriptor.digest)]
    return Offer(here, lambda variant: variant.platform), image.offer()


def _size(app, offers, platform):
    """Return the bytes that a machine of a platform stores of an app; ``offers`` are the ``_offers`` of its images."""
    images = {name: image._replace(variants=(offers[name][0].best(platform) or offers[name][1].best(platform),))
              for name, image in app.images.items()}
    return sum(blob.descriptor.size for blob in app._replace(images=images).blobs())


def _unpacked(source, app):
    meta = app.layers_meta
    if meta is None:
        return {}
    try:
        return usages(source.blob(app.ref, meta.digest, meta.size))
    except NotFoundError:
        return {}


def _before(ref, store, states):
    """Return the Reference of the version to compare with: the installed one, else the store's only one."""
    others = [other for other in store.list_apps() if other.app_name == ref.app_name and other.digest != ref.digest]
    if len(others) < 2 and not store.has_app(ref):
        return others[0] if others else None
    try:
        found = store.find_app(str(ref.app_name), states)
    except (NotFoundError, UsageError):
        return others[0] if len(others) == 1 else None
    return found if found.digest != ref.digest else None


def _changes(app, before, store):
    """Return how an app differs from a version in the store; one that cannot be read differs in all."""
    new = {service.name: service for service in compose.services(app.compose, f"app {app.ref}")}
    try:
        old_app = load_app(StoreSource(store), before, [], reading=UNREAD)
        old = {service.name: service for service in compose.services(old_app.compose, f"app {before}")}
    except ComposeAppsError:
        return (*(("changed", name) for name in new), ("changed", ""))
    found = [("added", name) for name in new if name not in old]
    found += [("removed", name) for name in old if name not in new]
    found += [("changed", name) for name in new if name in old and new[name] != old[name]]
    if not found and app.bundle.digest != old_app.bundle.digest:
        found.append(("changed", ""))
    return tuple(found)
