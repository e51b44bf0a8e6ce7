# SPDX-License-Identifier: MIT
"""The factory reset of the data partition, before it is mounted: what goes, and what each "keep" leaves.

Every step can be repeated, and the wish goes last: whatever moment the power goes at, the next boot finds the wish and
does the whole again. After it there is no app and no image; ``composeapps run --factory`` takes them from the
factory store.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from composeapps import beneath, durable
from composeapps.disk import filesystem, identity, provision, wish
from composeapps.disk.run import run
from composeapps.errors import ComposeAppsError, StorageError
from composeapps.records import resetnote


class Places(NamedTuple):
    """Where things are on the device.

    Attributes:
        var: the data partition's mount point.
        config: the Config.
        docker: dockerd's data root.
        skeleton: the directory with which a new file system begins.
        root: the root file system's top.
    """

    var: Path
    config: object
    docker: Path
    skeleton: Path
    root: Path = Path("/")


def kept(keep, places):
    """Return the paths below ``var`` that a reset leaves, relative to it.

    registration: the device's identity and how it reaches its factory and registries: the copy of its machine-id
    (composeapps-machine-id), its ssh host keys, the agent's logins, what it was given when it was made, and what
    LmP has in /var/sota beside the apps. data: also named volumes and the apps' directories, without what the agent put
    there.
    """
    if keep == wish.NOTHING:
        return ()
    state, sota = places.config.state_dir, places.var / "sota"
    paths = [state / "docker", places.var / "lib/composeapps/machine-id",
             *(places.var / directory for directory in identity.KEYS_OF_VAR),
             *(places.config.identity_dir / name for name in provision.NAMES)]
    ours = {places.config.store, places.config.compose_root}
    with contextlib.suppress(FileNotFoundError):
        paths += [path for path in sorted(sota.iterdir()) if path not in ours]
    if keep == wish.DATA:
        paths += [places.docker / "volumes", places.config.compose_root]
    return tuple(path.relative_to(places.var) for path in paths if path.is_relative_to(places.var))


def carry_out(wanted, device, places, notify):
    """Do what a wish asks for.

    Arguments:
        wanted: the wish.Wish.
        device: the data partition's device, not mounted.
        places: the Places.
        notify: called with a sentence for each step.

    Returns whether the device has to start once more, because its identity of before is in use already.
    Raises StorageError, OSError.
    """
    notify(f"factory reset ({wanted.origin}, {wanted.time}): keeping {wanted.keep}")
    lost, again = "", False
    if wanted.keep != wish.NOTHING:
        lost = _in_place(wanted, device, places, notify)
    if wanted.keep == wish.NOTHING or lost:
        if wanted.discard:
            # Not every disk can.
            status, _said = run("blkdiscard", "-f", device, good=(0, 1))
            notify(f"{device}: {'all blocks are dropped' if not status else 'the disk cannot drop blocks'}")
        # What could not be kept is told before the new file system counts: the next start would find nothing wrong.
        filesystem.make(device, places.skeleton, lambda: _report(wanted, lost, device, places))
        again = identity.forget_machine(places.root, wanted.machine)
        identity.forget_keys(places.root)
    else:
        _report(wanted, lost, device, places)
    return again


def _data(device, places):
    return wish.mounted(device, "ext4", "defaults", place=places.var)


def _mounts(device, places):
    with contextlib.suppress(StorageError), _data(device, places):
        return True
    return False


def _in_place(wanted, device, places, notify):
    """Remove what does not stay; return the sentence that says why nothing could stay, "" when it did."""
    if filesystem.label(device) is None:
        try:
            filesystem.recover(device, notify)
        except StorageError as err:
            notify(err)
    if not filesystem.ready(device):
        lost = f"{wanted.keep} could not be kept, since {device} has no file system that is whole"
        notify(lost)
        return lost
    # Sums of: 1 and 2, repaired; 4, not all of it; 8, there is nothing that it could repair, or it could not work.
    # Only what cannot be mounted after that is lost; any other failure on the way wipes nothing that was to be kept:
    # the next start tries again.
    status, said = run("e2fsck", "-f", "-y", device, good=range(16))
    if status & 12 and not _mounts(device, places):
        lost = (f"{wanted.keep} could not be kept, since the file system of {device} cannot be read: e2fsck does not "
                f"repair it: {(said.splitlines() or [''])[-1]}")
        notify(lost)
        return lost
    with _data(device, places):
        stays = kept(wanted.keep, places)
        if wanted.keep == wish.DATA:
            _take_bundles(places, notify)
        _remove_others(places.var, stays, notify)
        _fill(places.skeleton, places.var)
        durable.sync_filesystem(places.var)
    return ""


def _take_bundles(places, notify):
    """Take what the agent placed out of the apps' directories; what is the user's stays where it is."""
    # Most resets keep no data, and a start that resets should take no longer than another.
    from composeapps.installed import appfiles
    from composeapps.oci.names import AppName
    from composeapps.records.state import StateDirectory

    for name in StateDirectory(places.config.state_dir).names():
        try:
            appfiles.give_back(AppName(name), places.config, notify)
        except (ComposeAppsError, OSError) as err:
            notify(f"{name}: its directory stays as it is: {err}")


def _remove_others(top, stays, notify):
    """Remove all below a directory but some paths, which are relative to it. Links are not followed."""
    above = {parent for path in stays for parent in path.parents}

    def clear(inner):
        descriptor = os.open(top / inner, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in os.listdir(descriptor):
                path = inner / name
                if path in stays:
                    continue
                if path in above:
                    with contextlib.suppress(NotADirectoryError):
                        clear(path)
                        continue
                try:
                    beneath.remove_tree(descriptor, name)
                except OSError as err:
                    notify(f"{top / path} stays: {err.strerror}")
        finally:
            os.close(descriptor)

    clear(Path())


def _fill(skeleton, top):
    """Put the skeleton's files where nothing is."""
    for directory, names, files in os.walk(skeleton):
        inner = os.path.relpath(directory, skeleton)
        for name in names:
            _like(Path(directory, name), Path(top, inner, name))
        for name in files:
            target = Path(top, inner, name)
            if not os.path.lexists(target):
                shutil.copy2(Path(directory, name), target, follow_symlinks=False)
                found = os.lstat(Path(directory, name))
                os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)


def _like(source, target):
    if os.path.lexists(target):
        return
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
        return
    found = source.stat()
    target.mkdir()
    os.chown(target, found.st_uid, found.st_gid)
    shutil.copystat(source, target)


def _report(wanted, lost, device, places):
    """Leave a note for ``status``."""
    anew = wanted.keep == wish.NOTHING or bool(lost)
    with _data(device, places):
        resetnote.write(places.config.state_dir, {
            "time": wanted.time, "origin": wanted.origin, "kept": wish.NOTHING if lost else wanted.keep,
            "discarded": wanted.discard and anew, "lost": lost})
        durable.sync_filesystem(places.var)
