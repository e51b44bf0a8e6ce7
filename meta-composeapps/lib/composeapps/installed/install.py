# SPDX-License-Identifier: MIT
"""Installing an app from the store: its images into dockerd, its bundle into the compose root.

Nothing here needs a network, and every step finds out by itself whether it is still to be done:
an installation that was cut off is finished by running it again.
"""

from composeapps import durable
from composeapps.app import compose
from composeapps.app.tree import WHOLE, StoreSource, load_app
from composeapps.engine import look, names
from composeapps.errors import CorruptError
from composeapps.oci.platforms import host_platform
from composeapps.records.state import AppState


def load_from_store(store, ref, platform=None, reading=WHOLE, config=None, known=None):
    """Read an app from a Store for this machine's platform, or the one given.

    ``reading`` and ``known`` are as ``load_app`` has them.

    A bundle is read here once, for all that a command wants to know of it. UNREAD, of an app that is unpacked by a
    Config, it is not read either where it has no index.
    """
    def unpacked(ref):
        from composeapps.installed import inputs

        return inputs.published_of(config, ref) if config is not None else None

    return load_app(StoreSource(store, unpacked), ref, [platform or host_platform()], reading=reading,
                    known=known)


def install(app, store, engine, config, states, notify=lambda text: None):
    """Install one app.

    Arguments:
        app: an App loaded from ``store``.
        engine: the Engine.
        config: the Config.
        states: the StateDirectory; its lock is held by the caller.
        notify: called with a line of text at each step that takes time.

    Returns the AppState. Raises CorruptError or NotFoundError for damage in the store,
    EngineError, StorageError.
    """
    name = app.ref.app_name
    before = states.get(name)
    same = before is not None and before.uri == str(app.ref)
    images = load_images(app, store, engine, notify, same, before.images.values() if same else ())
    if place_bundle(app, store, config, engine, notify=notify):
        notify(f"{name}: bundle unpacked")
    state = state_of(app, images, before)
    if state != before:
        states.put(name, state)
    return state


def load_images(app, store, engine, notify=lambda text: None, certain=False, known=()):
    """Load those of an app's images that dockerd lacks.

    Arguments:
        app: an App loaded from ``store``.
        engine: the Engine.
        notify: called with a line of text at each step that takes time.
        certain: the images that dockerd has already were synced by an earlier call that returned.
        known: what earlier calls returned for the app's images.

    Returns {key in ``app.images``: the name by which dockerd knows the image}. When it returns they are
    on the disk. Raises CorruptError or NotFoundError for damage in the store, EngineError, StorageError.
    """
    name = app.ref.app_name
    ids, loaded, engine = {}, not certain, look.at(engine)
    for key, image in app.images.items():
        ids[key] = find_image(image, engine, known)
        if ids[key] is None:
            ids[key] = load_image(image, store, engine, lambda text: notify(f"{name}: {text}"))
            loaded = True
        ids[key] = _name_of(image, ids[key], engine)
    if loaded:
        # A dockerd without our patches reports an image as loaded long before its files are on the disk, and
        # what it loaded once a patched one finds there and leaves as it is. An agent that was killed in between
        # has not recorded the app, so its next run comes through here.
        with durable.storage_errors(f"syncing the images of app {name}"):
            durable.sync_filesystem(engine.data_root())
    return ids


def _name_of(image, identifier, engine):
    """Return the pinned reference of an image where dockerd knows it by that, its ID elsewhere.

    A stock dockerd notes no digests of what it loads.
    """
    found = engine.listed_image(names.digest_of(image.ref))
    return str(image.ref) if found is not None and found["Id"] == identifier else identifier


def service_images(app, images):
    """Return {service: name of its image in dockerd} from what ``load_images`` returned."""
    return {service.name: images[service.image] for service in compose.services(app.compose, f"app {app.ref}")}


def state_of(app, images, before):
    """Return the AppState of an app whose ``images`` are loaded; ``before`` is the one it has now, or None."""
    if before is None:
        return AppState(str(app.ref), service_images(app, images))
    # Installing the version that is installed already, as each boot does, keeps what there is to go back to.
    previous = before.previous if before.uri == str(app.ref) else before.uri
    return before._replace(uri=str(app.ref), images=service_images(app, images), previous=previous)


def find_image(image, engine, known=()):
    """Return an image's ID in dockerd, or None when dockerd lacks it.

    Arguments:
        image: the app.Image.
        engine: the Engine, or a Look.
        known: IDs of the app's images that this function returned before: an ID tells all of an image.

    dockerd's graph-driver store knows it by the digest of its config; the containerd store does not, so there the
    tag and the layers decide. An image without a tag is at the mercy of ``docker image prune``, and counts for none.
    """
    variant, tag, engine = image.variants[0], names.tag_of(image.ref), look.at(engine)
    found = engine.listed_image(variant.document.config.digest)
    if found is not None:
        return found["Id"] if tag in (found.get("RepoTags") or ()) else None
    found = engine.listed_image(tag)
    if found is None or found["Id"] in known or found["Id"] == image.ref.digest:
        return found["Id"] if found else None
    described = found if "RootFS" in found else engine.image(tag) or {}
    layers = (described.get("RootFS") or {}).get("Layers") or []
    return described["Id"] if layers == list(variant.config.diff_ids) else None


def load_image(image, store, engine, notify):
    """Load an image from the store; return its ID in dockerd."""
    from composeapps.engine import loading

    layers = image.variants[0].document.layers
    size = sum(layer.size for layer in layers)
    notify(f"loading {image.ref.repository} ({size / 1e6:.1f} MB, {len(layers)} layers)")
    engine = look.at(engine)
    loading.load(engine, store, image, names.tag_of(image.ref), notify)
    if engine.learn(image.variants[0].document.config.digest) is None:
        engine.learn(names.tag_of(image.ref))
    loaded = find_image(image, engine)
    if loaded is None:
        raise CorruptError(f"dockerd loaded {image.ref} but does not have it: its config and its layers disagree")
    return loaded


def app_directory(config, ref):
    """Return where an app's bundle is unpacked."""
    return ref.app_name.below(config.compose_root)


def bundle_problems(app, store, config):
    """Return what differs between an app's unpacked bundle and the store's, as sentences.

    What a user has changed where a service may write is no difference.
    """
    from composeapps.installed import appfiles

    with durable.storage_errors(f"looking at the files of app {app.ref}"):
        return appfiles.problems(app, store, config)


def place_bundle(app, store, config, engine=None, old=None, notify=lambda text: None):
    """Bring an app's directory to what its bundle says; return whether there was anything to do.

    What is the user's stays, each file is whole at any time: see composeapps.installed.placing.

    Arguments:
        app: an App loaded from ``store``.
        config: the Config.
        engine: the Engine; without it only the compose file tells where services may write.
        old: the App that is there as far as is known, for directories of older agents; or None.
        notify: called with a sentence about what is kept or set aside.

    Raises CorruptError or NotFoundError for damage in the store, EngineError, StorageError.
    """
    from composeapps.installed import appfiles

    with durable.storage_errors(f"unpacking the bundle of app {app.ref}"):
        return appfiles.place(app, store, config, engine, old, notify)
