# SPDX-License-Identifier: MIT
"""The base of an image: a Debian root by mmdebstrap, cached by everything that went into it."""

import dataclasses
import fcntl
import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

from fastlane import bootstrap, initramfs, services, trees
from fastlane.errors import BuildError

# Bases that are kept besides the one in use: switching between two lists of packages is common.
KEEP = 2


@dataclasses.dataclass(frozen=True)
class Base:
    """A base root: ``tree`` is its directory, ``kernel`` and ``initrd`` are files beside it."""

    key: str
    directory: Path

    @property
    def tree(self):
        return self.directory / "tree"

    @property
    def kernel(self):
        return self.directory / "vmlinuz"

    @property
    def initrd(self):
        return self.directory / "initrd.img"

    @property
    def python(self):
        """The command that runs the base's Python on the build machine."""
        return self.directory / "python3"


def describe(d, packages):
    """Return what defines a base, from a data store and the sorted Debian packages."""
    layer = d.getVar("FASTLANE_LAYERDIR")
    overlay = Path(layer, "base")
    files = {
        str(path.relative_to(overlay)): path.read_text()
        for path in sorted(overlay.rglob("*")) if path.is_file()
    }
    keys = ("FASTLANE_MIRROR", "FASTLANE_SUITE", "FASTLANE_DEBIAN_ARCH", "FASTLANE_EXCLUDE", "FASTLANE_MASK",
            "FASTLANE_ENABLE", "FASTLANE_INITRD_MODULES", "FASTLANE_LOADER", "FASTLANE_LIBRARY_PATH")
    return {"packages": packages, "files": files, "init": Path(layer, "init").read_text(),
            **{key: " ".join((d.getVar(key) or "").split()) for key in keys}}


def key(description):
    """Return the name under which a base is cached."""
    made_by = b"".join(Path(module.__file__).read_bytes() for module in (bootstrap, initramfs))
    made_by += Path(__file__).read_bytes()
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode() + made_by).hexdigest()[:16]


def find(cache, description):
    """Return the cached Base for a description, or None."""
    base = Base(key(description), Path(cache, f"base-{key(description)}"))
    return base if base.directory.is_dir() else None


def make(cache, description, progress):
    """Return the Base for a description, making it when it is not in the cache.

    Raises BuildError when a tool is missing, the mirror cannot be reached, a package does not
    exist or the disk is full. Nothing half-made is ever found by a later build.
    """
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    # Build directories may share a cache.
    with open(cache / "base.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find(cache, description)
        if found:
            os.utime(found.directory)
            return found
        bootstrap.check_tools()
        return _make(cache, description, progress)


def _make(cache, description, progress):
    base = Base(key(description), cache / f"base-{key(description)}")
    for stale in cache.glob("base-*.new"):
        trees.remove_tree(stale)
    new = dataclasses.replace(base, directory=cache / f"base-{base.key}.new")
    new.directory.mkdir()
    try:
        _bootstrap(new, description, progress)
        progress.detail("adapting the base to a virtual machine")
        _customise(new, description)
        (new.directory / "description.json").write_text(json.dumps(description, indent=2) + "\n")
        (new.directory / "files.json").write_text(json.dumps(trees.fingerprint(new.tree)))
        os.sync()
        os.rename(new.directory, base.directory)
    except OSError as err:
        raise BuildError(f"the base root cannot be made in {cache}: {err.strerror}") from None
    finally:
        trees.remove_tree(new.directory)
    old = sorted((path for path in cache.glob("base-*/") if path != base.directory),
                 key=lambda path: path.stat().st_mtime, reverse=True)
    for path in old[KEEP - 1:]:
        trees.remove_tree(path)
    return base


def check(base):
    """Raise BuildError, and drop the base, when a build wrote into its files instead of replacing them."""
    before = json.loads((base.directory / "files.json").read_text())
    now = trees.fingerprint(base.tree)
    changed = sorted(path for path, print_ in before.items() if now.get(path) != tuple(print_))
    if changed:
        trees.remove_tree(base.directory)
        raise BuildError(f"a ROOTFS_POSTPROCESS_COMMAND wrote into /{changed[0]}, which is shared with the cached base "
                         "(now removed): make the function replace the file, and build again")


def _bootstrap(base, description, progress):
    """Run mmdebstrap into ``base.tree``."""
    # busybox is the initramfs, which loads the few modules named in the machine's configuration and mounts the root:
    # seconds less than a full one, in building and in every emulated boot. The kernel's package wants some program
    # that makes one: tiny-initramfs is the smallest.
    bootstrap.make_root(
        base.tree, description["FASTLANE_SUITE"], description["FASTLANE_MIRROR"],
        [*description["packages"], "busybox-static", "tiny-initramfs"], progress,
        log=base.directory.parent / "mmdebstrap.log", where="conf/fastlane/conf/debian.conf or FASTLANE_BASE",
        architecture=description["FASTLANE_DEBIAN_ARCH"], exclude=description["FASTLANE_EXCLUDE"].split())


def _customise(base, description):
    """Adapt a fresh root to its job: a machine for development and tests."""
    tree = base.tree
    version = sorted(os.listdir(tree / "usr/lib/modules"))[-1]
    base.initrd.write_bytes(_initrd(tree, version, description))
    for path in (tree / "boot").glob("initrd.img*"):
        path.unlink()
    # QEMU loads both from outside, and a disk has them on its boot partition.
    shutil.move(tree / f"boot/vmlinuz-{version}", base.kernel)
    for path in (base.initrd, base.kernel):
        os.chmod(path, 0o644)
    for name in ("vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"):
        if (tree / name).is_symlink():
            (tree / name).unlink()
    for path, text in description["files"].items():
        trees.write_file(tree, path, text)
    for unit in description["FASTLANE_ENABLE"].split():
        services.enable(tree, unit)
    for unit in description["FASTLANE_MASK"].split():
        services.mask(tree, unit)
    loader, libraries = description["FASTLANE_LOADER"], description["FASTLANE_LIBRARY_PATH"]
    # Found from where it lies: the directory is renamed, and build directories move.
    base.python.write_text(
        "#!/bin/sh\n# The base's own Python, for byte code that the device can read.\n"
        'tree="${0%/*}/tree"\n'
        'PYTHONHOME="$tree/usr" PYTHONDONTWRITEBYTECODE=1 \\\n'
        f'    exec "$tree{loader}" --library-path "$tree{libraries}" "$tree/usr/bin/python3" "$@"\n')
    os.chmod(base.python, 0o755)


def _initrd(tree, version, description):
    """Return the initramfs of a base."""
    archive = initramfs.Newc()
    for directory in ("bin", "dev", "proc", "sys", "root", "modules"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", description["init"].encode(), 0o755)
    archive.file("bin/busybox", (tree / "usr/bin/busybox").read_bytes(), 0o755)
    try:
        modules = initramfs.kernel_modules(tree / "usr/lib/modules" / version,
                                           description["FASTLANE_INITRD_MODULES"].split())
    except LookupError as err:
        raise BuildError(f"the initramfs cannot be made: {err}; correct FASTLANE_INITRD_MODULES") from None
    for number, (name, data) in enumerate(modules):
        archive.file(f"modules/{number:02}-{name}", data)
    return gzip.compress(bytes(archive), mtime=0)
