# SPDX-License-Identifier: MIT
"""Publishing an app: pin its images, bundle its directory, push both as an app manifest."""

import io
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from composeapps.app import bundle as bundles
from composeapps.app import composesource, filerefs, images, interpolation, layersmeta, pinning, projectname
from composeapps.app.tree import (
    ARTIFACT_TYPE,
    BUNDLE_TYPE,
    INDEX_DIGEST,
    INDEX_SIZE,
    LAYERS_META,
    MAX_MANIFEST,
    RegistrySource,
)
from composeapps.errors import NotFoundError, UsageError
from composeapps.oci.digests import sha256, stream_sha256
from composeapps.oci.documents import EMPTY_JSON, OCI_EMPTY, OCI_MANIFEST, Descriptor, dump_json


class Publication(NamedTuple):
    """What was, or would be, pushed.

    ``ref`` is the app's pinned Reference; ``services`` maps each service to its pinned image;
    ``blobs`` are (role, Descriptor) pairs, the manifest first.
    """

    ref: object
    tag: str
    compose: bytes
    services: dict
    platforms: list
    files: dict
    blobs: list


def publish(app_dir, target, client, *, files=(), checked=True, dry_run=False, layers_meta=True, platforms=(),
            pins=None, notify=lambda text: None):
    """Publish the app in a directory.

    Arguments:
        app_dir: a directory with a compose file and the files that it names.
        target: the Reference to publish under; its tag is "latest" by default.
        client: a RegistryClient.
        files: the compose files, later ones going before earlier ones; by default those that docker compose
            takes in that directory.
        checked: have docker compose, where it is installed, compare them with the pinned file.
        dry_run: resolve and build everything, push nothing.
        layers_meta: whether devices are told beforehand what the app takes on their disk. True to measure the
            images' layers, which reads each of them from the registry once; the path of a file to take it from.
        platforms: the Platforms that it is published for; empty for all of Linux that its images have in common.
        pins: {image: digest} from ``images.pinned_list``, in place of what the registry says.
        notify: called with a line of text at each step.

    Returns a Publication. Raises UsageError for a directory or a compose file that is no app,
    NotFoundError for an image that is not in its registry, RegistryError.
    """
    app_dir = Path(app_dir)
    if target.digest:
        raise UsageError(f"'{target}' has a digest: a publication gets its own, give a tag or nothing")
    target = target._replace(tag=target.tag or "latest")
    source = RegistrySource(client)
    prepared = prepare(app_dir, files, images.resolver(source, pins, notify), checked=checked, notify=notify)
    if said := projectname.remark(target.app_name, json.loads(prepared.compose), _environment(prepared.listing)):
        notify(f"warning: {said}")
    pinned, text = prepared.images, prepared.compose
    refs = sorted(set(pinned.values()), key=str)
    chosen, common = images.choose(source, client, refs, platforms, notify)
    notify(f"platforms: {', '.join(map(str, common))}")
    meta = _layers_meta(layers_meta, chosen, common, client, notify)
    with tempfile.TemporaryFile() as packed:
        files = bundles.create(app_dir, text, packed, prepared.listing)
        notify(f"bundle: {packed.tell()} bytes, {len(files)} files")
        manifest, parts = _manifest(packed, files, meta)
        ref = target.pinned(sha256(manifest))
        if not dry_run:
            notify(f"pushing to {target.repository}")
            for _role, descriptor, opener in parts:
                client.push_blob(target, descriptor.digest, descriptor.size, opener)
            client.push_manifest(target, manifest, OCI_MANIFEST)
    blobs = [("manifest", Descriptor.of(manifest, OCI_MANIFEST))]
    blobs += [(role, descriptor) for role, descriptor, _ in parts]
    services = {name: str(image) for name, image in pinned.items()}
    return Publication(ref, target.tag, text, services, [str(platform) for platform in common], files, blobs)


def _environment(listing):
    """Return the variables of the bundle's .env."""
    try:
        with open(listing[".env"], encoding="utf-8", errors="replace") as stream:
            return interpolation.parse_environment(stream.read(interpolation.LONGEST))
    except (KeyError, OSError, ValueError):
        return {}


class Prepared(NamedTuple):
    """An app that needs nothing but its images: its pinned ``compose`` file (bytes), ``images`` {service: pinned
    Reference} and ``listing``, {name: path} of what its bundle holds.
    """

    compose: bytes
    images: dict
    listing: dict


def prepare(app_dir, files, resolve, *, checked=True, program=None, notify=lambda text: None):
    """Read the compose file of a directory, check it against the directory, and pin it.

    Arguments:
        app_dir, files, checked, notify: as for ``publish``.
        resolve: called with the Reference of an image; returns its digest.
        program: docker compose's path, by default that of the one that is installed.

    Returns Prepared. Raises UsageError, NotFoundError, and what ``resolve`` raises.
    """
    app_dir = Path(app_dir)
    source = composesource.read(app_dir, files)
    value, what = source.value, str(source.files[0])
    listing = bundles.entries(app_dir, source.files)
    composesource.check_environment(listing)
    for sentence in filerefs.check_bundled(value, listing, what):
        notify(f"warning: {sentence}")
    images = pinning.pin(value, resolve, what)
    text = pinning.dump(value)
    bundles.check_size(text)
    if checked:
        notify(_compare(program, app_dir, source, text, images, listing))
    return Prepared(text, images, listing)


def _compare(program, app_dir, source, text, images, listing):
    """Compare the pinned file with its source through docker compose; return a line that says what came of it."""
    from composeapps.app import composecheck

    program = program or composecheck.find_for_publishing()
    if program is None:
        return "docker compose is not installed here: not checked that it takes the pinned file for the same"
    absent = next((each.path for each in filerefs.references(source.value)
                   if each.kind in (filerefs.ENV_FILE, filerefs.LABEL_FILE) and each.needed and each.place() is None
                   and "$" not in each.path and not os.path.exists(os.path.expanduser(each.path))), None)
    if absent is not None:
        return f"{absent} is not on this machine: not checked that docker compose takes the pinned file for the same"
    options = {"has_environment": ".env" in listing, "named": "name" in source.value}
    with tempfile.NamedTemporaryFile(prefix="composeapps-", suffix=".yml") as written:
        written.write(text)
        written.flush()
        before = composecheck.config(program, app_dir, source.files, **options)
        after = composecheck.config(program, app_dir, [Path(written.name)], **options)
    found = composecheck.difference(before, after, {name: str(image) for name, image in images.items()})
    if found:
        raise composecheck.DifferentError(f"{source.files[0]}: {found}: not published")
    return "docker compose takes the pinned file for the same as the compose file"


def _layers_meta(source, chosen, platforms, client, notify):
    """Return the layers metadata (bytes) of images for some platforms, None when there is to be none."""
    if not source:
        return None
    needed, wanted, offers = {}, {}, [(image, image.offer()) for image in chosen.values()]
    for platform in platforms:
        layers = needed.setdefault(platform.normal.architecture, {})
        for image, offer in offers:
            for layer in offer.best(platform).document.layers:
                layers[layer] = wanted.setdefault(layer, image.ref)
    if source is True:
        from composeapps.app import measured, measuring

        sizes, _reasons = measuring.measure_all(wanted, client, measured.Measured(measured.directory()), notify)
        return layersmeta.write(needed, sizes)
    return layersmeta.write(needed, *layersmeta.given(read_given(source), needed, source))


def read_given(path):
    """Return the content of a file that the user names; raises NotFoundError, UsageError."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None


def _manifest(packed, files, meta):
    """Return the app manifest (bytes) and its parts as (role, Descriptor, opener)."""
    packed.seek(0)
    digest, size = stream_sha256(packed), packed.tell()
    index = dump_json(files)
    notes = {INDEX_DIGEST: sha256(index), INDEX_SIZE: str(len(index))}
    bundle = Descriptor(digest, size, BUNDLE_TYPE, annotations=notes)
    empty = Descriptor.of(EMPTY_JSON, OCI_EMPTY)

    def reopen():
        packed.seek(0)
        return _Borrowed(packed)

    parts = [
        ("bundle", bundle, reopen),
        ("bundle index", Descriptor.of(index, "application/json"), lambda: io.BytesIO(index)),
        ("config", empty, lambda: io.BytesIO(EMPTY_JSON)),
    ]
    layers = [bundle]
    if meta is not None:
        described = Descriptor.of(meta, BUNDLE_TYPE, annotations={LAYERS_META: "v1"})
        layers.append(described)
        parts.append(("layers metadata", described, lambda: io.BytesIO(meta)))
    manifest = dump_json({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": ARTIFACT_TYPE, "config": empty.dump(),
        "layers": [layer.dump() for layer in layers], "annotations": {"compose-app": "v1"},
    })
    if len(manifest) >= MAX_MANIFEST:
        raise UsageError(f"the app manifest has {len(manifest)} bytes, more than the {MAX_MANIFEST} allowed")
    return manifest, parts


class _Borrowed:
    """Lends a file that its owner closes."""

    def __init__(self, stream):
        self.read = stream.read

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        return False
