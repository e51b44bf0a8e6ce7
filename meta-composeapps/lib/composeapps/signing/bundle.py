# SPDX-License-Identifier: MIT
"""Making an offline bundle (see composeapps.delivery.bundles), and verifying one as a device would.

It is made beside its place, ``NAME.part``, and gets its name when it is whole; what is there of one that was cut off is
used by the next try.
"""

import contextlib
import datetime
import fcntl
import os
import tarfile
import tempfile
from pathlib import Path

from tuf.api.metadata import Metadata, Targets

from composeapps import durable
from composeapps.app.tree import RegistrySource, load_app
from composeapps.delivery import bundles
from composeapps.delivery.bundles import FIELD, NAME
from composeapps.delivery.stored import Stored, version_of
from composeapps.errors import CorruptError, LockedError, NotFoundError, UsageError
from composeapps.oci.documents import dump_json
from composeapps.oci.reference import parse_pinned
from composeapps.pull import pull
from composeapps.pull.progress import Progress
from composeapps.signing import client as clients
from composeapps.signing import documents as docs
from composeapps.signing import targets as customs
from composeapps.signing.repository import told_missing
from composeapps.store.store import Store

# In what is not whole yet: which bundle it is to be.
_FOR = "made-for.json"


def chosen(state, tag, hardware, names=()):
    """Return the Targets (composeapps.signing.targets) for a bundle.

    Arguments:
        state: the State of the repository.
        tag: of the devices.
        hardware: their hardware ids, empty for all.
        names: NAME-VERSION of those that are wanted; by default the newest for each hardware.

    Raises NotFoundError, UsageError.
    """
    if names:
        found = [customs.find(state, name) for name in dict.fromkeys(names)]
        for target in found:
            if tag not in target.tags or hardware and not set(hardware) & set(target.hardware_ids):
                raise UsageError(f"Target {target.path} is for the tags {', '.join(target.tags)} and the hardware "
                                 f"{', '.join(target.hardware_ids)}: devices that this bundle is for would not take it")
        return found
    newest = {}
    for target in customs.all_of(state):
        for each in target.hardware_ids:
            if tag in target.tags and (not hardware or each in hardware) and (
                    each not in newest or newest[each].version < target.version):
                newest[each] = target
    if not newest:
        raise NotFoundError(f"there is no Target for the tag {tag}"
                            + (f" and the hardware {', '.join(hardware)}" if hardware else ""))
    return list({target.path: target for target in newest.values()}.values())


def layers_of(target, client, platforms):
    """Return the digests of all layers of a Target's apps, for some platforms."""
    source, found = RegistrySource(client), set()
    for uri in target.apps.values():
        app = load_app(source, parse_pinned(uri), list(platforms))
        found |= {layer.digest for image in app.images.values() for variant in image.variants
                  for layer in variant.document.layers}
    return frozenset(found)


def described(state, targets, tag, platforms, lacking, days, now):
    """Return bundle-targets.json as unsigned Metadata."""
    said = {"type": "prod", "tag": tag, "targets": [target.path for target in targets],
            "hardwareIds": sorted({each for target in targets for each in target.hardware_ids}),
            "platforms": [str(platform) for platform in platforms]}
    if lacking:
        said["lacking"] = lacking
    made = Metadata(Targets(version=state.version("targets"), expires=now + datetime.timedelta(days=days),
                            unrecognized_fields={FIELD: said}))
    return made


def sign(state, document, keys):
    """Sign bundle-targets.json with whichever of the Keys may. Raises UsageError when that is not enough."""
    docs.sign(state, {"targets": document}, keys)
    lacking = docs.missing(state, {"targets": document})
    if lacking:
        raise UsageError(told_missing(lacking))


def create(place, repository, state, document, targets, client, platforms, without=frozenset(), progress=None):
    """Make a bundle.

    Arguments:
        place: the directory, or a file with ``.tar`` at its end; neither may be there yet.
        repository: the repository's directory.
        state: its State.
        document: bundle-targets.json, signed.
        targets: the Targets.
        client: the RegistryClient.
        platforms: oci.platforms.Platform of the devices.
        without: digests of layers to be left out.
        progress: a pull.progress.Progress.

    Raises ComposeAppsError.
    """
    place = Path(place)
    check_place(place)
    part = place.with_name(f"{place.name}.part")
    with durable.storage_errors(f"making the bundle {place}"), _alone(part):
        check_place(place)
        _begin(part, document)
        store = Store(part / "apps")
        for uri in sorted({uri for target in targets for uri in target.apps.values()}):
            for platform in platforms:
                found = pull.survey(parse_pinned(uri), store, lambda: client, platform)
                pull.fetch(found, store, lambda: client, progress or Progress(), without=without)
        for name, data in _metadata(repository, state).items():
            durable.write_file(part / "tuf" / name, data)
        durable.write_file(part / "tuf" / NAME, docs.dump(document, NAME))
        (part / _FOR).unlink()
        durable.sync_filesystem(part)
        if place.suffix == ".tar":
            _pack(part, place)
            _remove(part)
        else:
            durable.replace(part, place)


@contextlib.contextmanager
def _alone(part):
    """Keep others from making the same bundle. Raises LockedError."""
    durable.make_directories(part)
    descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LockedError(f"another command is at work on {part}: wait for it, or name another place") from None
    finally:
        os.close(descriptor)


def _begin(part, document):
    """Take what a try of the same bundle left, and nothing that another one left."""
    wanted = dump_json(document.signed.unrecognized_fields[FIELD])
    try:
        same = (part / _FOR).read_bytes() == wanted
    except OSError:
        same = False
    for left in part.iterdir():
        if left.name == "tuf" or not same:
            _remove(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    durable.write_file(part / _FOR, wanted)
    durable.make_directories(part / "tuf")


def check_place(place):
    """Raise UsageError when something is where a bundle is to be made."""
    if os.path.lexists(place):
        raise UsageError(f"{place} is there already: name another place, or remove it")


def _metadata(repository, state):
    names = [f"{root.signed.version}.root.json" for root in state.roots]
    names += [f"{state.version(role)}.{role}.json" for role in ("snapshot", "targets", *state.waves)]
    return {name: (Path(repository) / name).read_bytes() for name in (*names, "timestamp.json")}


def _pack(part, place):
    temporary = place.with_name(f".tmp-{place.name}-{os.getpid()}")
    try:
        with open(temporary, "xb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for top in ("tuf", "apps/blobs", "apps/apps"):
                for path in sorted((part / top).rglob("*")):
                    tar.add(path, path.relative_to(part).as_posix(), recursive=False, filter=_anonymous)
            tar.close()
            stream.flush()
            os.fsync(stream.fileno())
        durable.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def _anonymous(info):
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.isdir() else 0o644
    return info


def _remove(part):
    import shutil

    shutil.rmtree(part)


def verify(place, root, notify=lambda text: None, at=None):
    """Verify a bundle as a device that trusts a root would, and read all blobs.

    Arguments:
        place: the directory, or the file.
        root: the file with the root.
        notify: called with sentences about what is passed over.
        at: the time, this machine's by default.

    Returns (the delivery.bundles.Offer, how many layers are left out). Raises ComposeAppsError.
    """
    trusted, place = clients.read_root(root), Path(place)
    with tempfile.TemporaryDirectory(prefix="composeapps-bundle-") as scratch:
        if place.is_file():
            unpacked = Path(scratch) / "bundle"
            _unpack(place, unpacked)
            place = unpacked
        seeds = Path(scratch) / "seeds"
        seeds.mkdir()
        (seeds / f"{version_of(trusted)}.root.json").write_bytes(trusted)
        bundle = bundles.Bundle(place)
        offer = bundles.believe(bundle, Stored(Path(scratch) / "state", seeds, "", notify), notify, at)
        if not offer.targets:
            raise CorruptError(f"the bundle {place} has no Target that its metadata has for the tag {offer.tag}")
        return offer, _check_blobs(bundle, offer)


def _unpack(path, target):
    try:
        with tarfile.open(path) as tar:
            # It is not to be believed before it is verified.
            tar.extractall(target, filter="data")
    except (tarfile.TarError, EOFError) as err:
        raise CorruptError(f"{path} is no bundle: {err}") from None
    except OSError as err:
        raise UsageError(f"{path} cannot be unpacked: {err.strerror or err}") from None


def _check_blobs(bundle, offer):
    from composeapps.oci.platforms import Platform

    store, absent = Store(bundle.store), set()

    def nothing():
        raise NotFoundError(f"the bundle {bundle.directory} lacks blobs that are needed: make it again")

    platforms = [Platform.parse(text) for text in offer.platforms] or [None]
    for target in offer.targets:
        for app, uri in sorted(target.apps.items()):
            for platform in platforms:
                found = pull.survey(parse_pinned(uri), store, nothing, platform, verify=True)
                layers = {layer.digest for image in found.app.images.values() for variant in image.variants
                          for layer in variant.document.layers}
                for blob in found.missing:
                    digest = blob.descriptor.digest
                    if blob.optional and store.size_of(digest) is None:
                        continue
                    if digest in layers and offer.lacking and store.size_of(digest) is None:
                        absent.add(digest)
                        continue
                    raise CorruptError(f"app {app} of Target {target.name}: blob {digest} is missing or damaged in "
                                       f"{bundle.directory}: make the bundle again")
    return len(absent)
