# SPDX-License-Identifier: MIT
"""Asking for a factory reset in the running system: that something can run after it, and the wish for it."""

from composeapps.disk import identity, table, wish
from composeapps.disk.run import run
from composeapps.errors import CorruptError, NotFoundError, StorageError
from composeapps.installed import desired
from composeapps.oci.reference import parse_pinned
from composeapps.store import inventory
from composeapps.store.store import Store

ROOT_DISK = "/usr/libexec/composeapps-root-disk"


def boot_partition(program=ROOT_DISK):
    """Return the table.Partition of the disk that the root is on, on which a wish is written down.

    Raises NotFoundError for a device whose disk is another one.
    """
    try:
        _status, sysfs = run(program)
        found = table.Disk(sysfs).partition("boot")
    except (StorageError, OSError) as err:
        raise NotFoundError(f"the disk of this device has not the partitions of the class composeapps-disk ({err}): "
                            "reset it by the way of its board") from None
    if found is None:
        raise NotFoundError("the disk of this device has no boot partition, on which the reset would be written down")
    return found


def problems(factory, store):
    """Return the sentences that tell why the preloaded apps could not be had after a reset; every byte is read.

    Arguments:
        factory: {name: pinned reference} of the preloaded apps.
        store: the factory store's directory.
    """
    found, factory_store, blobs = [], Store(store), {}
    if not factory:
        return ["this device has no preloaded apps: after a reset nothing would run"]
    for uri in factory.values():
        ref = parse_pinned(uri)
        if not factory_store.has_app(ref):
            found.append(f"the factory store {store} does not have {uri}")
            continue
        held = inventory.take(factory_store, ref)
        found += held.problems
        blobs.update(dict.fromkeys(held.digests))
        for image in held.images.values():
            blobs.update({digest: size for variant in image.variants for digest, size, _content in variant
                          if factory_store.size_of(digest) is not None})
    wrong = factory_store.verify_all({digest: size for digest, size in blobs.items()
                                      if factory_store.size_of(digest) is not None})
    return found + sorted(filter(None, wrong.values()))


def check(config, notify, outcome):
    """See that the preloaded apps could be had after a reset.

    Arguments:
        config: the Config.
        notify: called with each sentence that tells why not but for the first, which is the error's.
        outcome: what becomes of the reset then, for the error.

    Raises CorruptError.
    """
    factory, problem = desired.factory_set(config)
    if problem is not None:
        raise problem
    found = problems(factory, config.factory_store)
    for sentence in found[1:]:
        notify(sentence)
    if found:
        raise CorruptError(f"{found[0]}; {outcome}")


def ask(boot, wanted, notify, root="/"):
    """Write the wish down, durably; where nothing is kept the next start draws another machine-id.

    Arguments:
        boot: the boot partition, a table.Partition.
        wanted: the wish.Wish.
        notify: called with a sentence.
        root: the root file system's top.

    From when this returns the reset takes place at the next start. Raises StorageError, CorruptError, OSError.
    """
    wanted = wanted._replace(machine=identity.machine_id(root))
    with wish.boot_partition(boot, writable=True) as directory:
        wish.write(directory, wanted)
    if wanted.keep == wish.NOTHING and identity.forget_machine(root, wanted.machine):
        notify("this device draws a new identity at its next start")


def cancel(boot, root="/"):
    """Take a wish back and have the machine-id stay; return it, None for none. Raises StorageError, OSError."""
    with wish.boot_partition(boot, writable=True) as directory:
        try:
            found = wish.read(directory)
        except CorruptError:
            found = None
        wish.clear(directory)
    if found is not None:
        identity.remember_machine(root, found.machine)
    return found
