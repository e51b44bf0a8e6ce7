# SPDX-License-Identifier: MIT
"""The directory of an app's version in a store: the files beside the blobs that the field's tools read.

::

    uri                                           the pinned reference, no newline
    uri.sha256                                    its digest, as sha256sum prints it; ours alone
    manifest.json   <bundle hex>.tgz              hard links to blobs
    docker-compose.yml                            that of the bundle
    images/<host>/<path>/<image hex>/index.json   the manifests that the store has of an image
                                     oci-layout

composectl and skopeo write these as well, in their own words: the JSON is judged by what it says,
a copy in the place of a link by its content, and what is right is left as it is. All but ``uri`` is
there for skopeo and for people, and says again what blobs say; an app that ``composectl update`` fetched
has nothing else. So what is missing is a fault only where ``uri.sha256`` tells that it was written. Of all
this only the host in ``uri`` is nowhere else, so it gets a digest of its own.
"""

import contextlib
import errno
import hashlib
import os

from composeapps import COMPOSE_FILE, beneath, durable
from composeapps.errors import CorruptError
from composeapps.oci.digests import is_digest, stream_sha256
from composeapps.oci.parsing import dump_json, parse_json

MISSING = "is missing"
LAYOUT = {"imageLayoutVersion": "1.0.0"}
# What reading ends with where something else stands in the place of a file, or of its directory.
_OTHERWISE = {errno.EISDIR, errno.ENXIO, errno.ENOTDIR, errno.ELOOP}
_INDEX_KEYS = {"schemaVersion", "mediaType", "manifests"}
# What composectl notes of a manifest that no index describes: one of the services that have it.
_SERVICE_NAME, _SERVICE_HASH = "org.foundries.app.service.name", "io.compose-spec.config-hash"


def compose_file(store, digest, directory):
    """Return the compose file (bytes) of an app's version: the one in its directory, else that of its bundle.

    Arguments:
        store: the Store.
        digest: that of the app manifest.
        directory: the version's, from which more than ``uri`` may be missing.

    The former is not verified. Raises CorruptError, NotFoundError.
    """
    with contextlib.suppress(OSError):
        return beneath.read_regular(directory / COMPOSE_FILE)
    from composeapps.app import bundle as bundles
    from composeapps.oci.documents import parse_document

    what = f"app {directory.parent.name}"
    manifest = parse_document(store.read(digest), what)
    if not manifest.layers:
        raise CorruptError(f"{what} is no compose app: its manifest has no layers")
    return store.parse(manifest.layers[0].digest, lambda packed: bundles.read_compose(packed, f"the bundle of {what}"),
                       manifest.layers[0].size)


def problems(store, app):
    """Return what is wrong in an app's directory, as (Path, sentence) pairs.

    Arguments:
        store: the Store.
        app: an App loaded from it.

    A hard link is as good as its blob, which is not read here. Raises OSError.
    """
    return [(path, problem) for path, problem, _repair in _faults(store, app)]


def write(store, app):
    """Write or repair an app's directory, ``uri`` last, since with it the app is there. Raises OSError."""
    pending = {}

    def later(directory):
        # Those above, too: a writer that was killed may have made them, and left them to the next one.
        while directory not in pending:
            pending[directory] = True
            directory = directory if directory == store.root else directory.parent

    def flush():
        for directory in pending:
            durable.fsync_directory(directory)
        pending.clear()

    durable.make_way(store.app_dir(app.ref) / "uri", store.root)
    durable.make_directories(store.app_dir(app.ref), sync=later)
    for path, _problem, repair in _faults(store, app, complete=True):
        if path.name in ("uri", "uri.sha256"):
            # These vouch for all that comes before them.
            flush()
        repair(later)
    flush()


def _faults(store, app, complete=False):
    """Yield (Path, sentence, function that repairs it), each judged when the one before was repaired.

    The function takes what makes names durable, see ``durable.make_directories``.

    With ``complete`` a file that only some tools write counts as well when it is missing.
    """
    ours = complete or (store.app_dir(app.ref) / "uri.sha256").exists()
    for path, problem, repair in _all_faults(store, app, complete):
        if ours or problem != MISSING or path.name == "uri":
            yield path, problem, repair


def _all_faults(store, app, complete):
    directory = store.app_dir(app.ref)
    bundle = app.bundle.digest.partition(":")[2]
    for digest, path in ((app.ref.digest, directory / "manifest.json"),
                         (app.bundle.digest, directory / f"{bundle}.tgz")):
        if problem := _link_problem(store, digest, path):
            yield path, problem, lambda sync, digest=digest, path=path: _link(store, digest, path, sync)
    yield from _file(store, directory / COMPOSE_FILE, app.compose, lambda data: data == app.compose)
    for image in app.images.values():
        home = directory.joinpath("images", image.ref.host, image.ref.path, image.ref.hex)
        known = _descriptors(store, image)
        # Those of other platforms, too: they were fetched by themselves.
        manifests = {variant.descriptor.digest: variant.descriptor.dump() for variant in image.variants}
        manifests.update((digest, item) for digest, item in known.items() if _has(store, item))
        index = dump_json({"schemaVersion": 2, "manifests": list(manifests.values())})
        yield from _file(store, home / "index.json", index,
                         lambda data, image=image, known=known: _lists(data, app, image, known))
        layout = home / "oci-layout"
        if complete or layout.exists():
            yield from _file(store, layout, dump_json(LAYOUT), lambda data: _json(data) == LAYOUT)
    uri = str(app.ref).encode()
    digest = f"{hashlib.sha256(uri).hexdigest()}  uri\n".encode()
    checksum = directory / "uri.sha256"
    if complete or checksum.exists():
        yield from _file(store, checksum, digest, lambda data: data == digest)
    yield from _file(store, directory / "uri", uri, lambda data: data.strip() == uri)


def _file(store, path, data, good):
    """Yield a fault of a file that should say what ``data`` does; ``good`` judges what is there."""
    def repair(sync):
        durable.make_way(path, store.root)
        durable.make_directories(path.parent, sync=sync)
        durable.write_file(path, data, sync=sync)

    try:
        present = beneath.read_regular(path)
    except FileNotFoundError:
        yield path, MISSING, repair
        return
    except OSError as err:
        if err.errno not in _OTHERWISE:
            raise
        present = None
    if present is None or not good(present):
        yield path, "is damaged", repair


def _link_problem(store, digest, path):
    """Return what is wrong with a link to a blob, None for nothing."""
    blob = store.blob_path(digest)
    try:
        with contextlib.suppress(FileNotFoundError):
            if path.samefile(blob):
                return None
        with beneath.open_regular(path) as stream:
            same = stream_sha256(stream) == digest
        return None if same else "is damaged"
    except FileNotFoundError:
        return MISSING
    except OSError as err:
        if err.errno not in _OTHERWISE:
            raise
        return "is damaged"


def _link(store, digest, path, sync):
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    durable.make_way(path, store.root)
    os.link(store.blob_path(digest), temporary)
    durable.replace(temporary, path, sync)


def _descriptors(store, image):
    """Return {digest: descriptor} of the manifests that may be listed for an image, as its index describes them."""
    known = {variant.descriptor.digest: variant.descriptor.dump() for variant in image.variants}
    if image.is_index:
        # As it stands there: what is listed may say all that the index says.
        value = parse_json(store.read(image.root.digest), f"image {image.ref}")
        known.update((item["digest"], item) for item in value["manifests"] or ())
    return known


def _has(store, item):
    """Tell whether a store has the manifest that a descriptor in an index describes, unread."""
    return is_digest(item.get("digest")) and store.size_of(item["digest"]) == item.get("size")


def _lists(data, app, image, known):
    """Tell whether an index.json lists the manifests of an image, and says nothing of them but what is so."""
    value = _json(data)
    if not isinstance(value, dict) or not set(value) <= _INDEX_KEYS or value.get("schemaVersion") != 2:
        return False
    items = value.get("manifests")
    if not isinstance(items, list):
        return False
    if not all(isinstance(item, dict) and is_digest(item.get("digest")) for item in items):
        return False
    if not {variant.descriptor.digest for variant in image.variants} <= {item.get("digest") for item in items}:
        return False
    return all(_agrees(item, known.get(item.get("digest")), app, image) for item in items)


def _agrees(item, described, app, image):
    if described is None or not {"mediaType", "digest", "size"} <= set(item):
        return False
    # composectl notes where it was fetched from.
    urls = {f"{image.ref.repository}@{digest}" for digest in (item["digest"], image.ref.digest)}
    for key, entry in item.items():
        if key == "urls":
            same = isinstance(entry, list) and all(url in urls for url in entry)
        elif key == "platform" and isinstance(entry, dict):
            platform = described.get("platform")
            # A platform that the image's own configuration names may be noted where the index leaves it out.
            same = {**platform, **entry} == platform if isinstance(platform, dict) else any(
                (entry.get("os"), entry.get("architecture")) == (v.platform.os, v.platform.architecture)
                for v in image.variants if v.descriptor.digest == item["digest"])
        elif key == "annotations" and isinstance(entry, dict):
            own = {name: text for name, text in entry.items() if name not in (_SERVICE_NAME, _SERVICE_HASH)}
            noted = len(own) < len(entry)
            same = (described.get(key) or {}) in (entry, own) and (not noted or _names_service(entry, app, image))
        else:
            same = described.get(key) == entry
        if not same:
            return False
    return True


def _names_service(annotations, app, image):
    """Tell whether annotations name one of the services that have an image, as the compose file describes it."""
    from composeapps.app.compose import services

    return any(annotations.get(_SERVICE_NAME) == service.name
               and annotations.get(_SERVICE_HASH, service.config_hash) == service.config_hash
               for service in services(app.compose, f"app {app.ref}") if service.image == str(image.ref))


def _json(data):
    try:
        return parse_json(data, "")
    except CorruptError:
        return None
