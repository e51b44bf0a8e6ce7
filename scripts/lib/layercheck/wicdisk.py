# SPDX-License-Identifier: MIT
"""Hold the disk that wic makes by the layer's kickstart file against the fast lane's, with stores of several sizes.

wic left openembedded-core in April 2026 and is a program of its own since; either is taken. It gets what do_image_wic
gives it: the expanded file, and a file of BitBake's variables.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from composeapps import durable
from fastlane import disk
from fastlane.base import Base
from fastlane.builder import Build, Options
from fastlane.errors import BuildError
from fastlane.progress import Progress as BuildProgress
from layercheck.process import last_lines
from layercheck.results import Result, Status

CHECK = "disk"
# MiB of the store, and the largest file in it.
STORES = ((1, 500_000), (40, 70_000), (1024, 40_000_000), (3072, 100_000_000))
_EXT4 = ("root", "factory", "data")
# Sizes may differ by what the lanes round to.
TOLERANCE = 1 << 20
# Of these the lanes need not agree on the files.
_NO_EXT4 = ("boot", "provision")
_SETTINGS = (("MACHINE_FEATURES:append", " efi"), ("COMPOSEAPPS_ROOT_SPACE", "8192"),
             ("COMPOSEAPPS_DATA_SPACE", "16384"))
_BELOW = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
# sfdisk before util-linux 2.39 has no such option, and takes sectors of 512 bytes for granted.
_SFDISK = """\
#!/bin/bash
words=()
while [ $# -gt 0 ]; do
    if [ "$1" = --sector-size ]; then shift; else words+=("$1"); fi
    shift
done
exec "$(PATH=/usr/sbin:/sbin:/usr/bin:/bin command -v sfdisk)" "${words[@]}"
"""


def run(context, program=None, stores=STORES):
    """Make the disks and compare them.

    Arguments:
        context: the Context.
        program: wic's path; default: the one on PATH.
        stores: pairs of (MiB, bytes of the largest file).

    Returns a Result for each store.
    """
    wic = shutil.which(program or "wic")
    if not wic:
        return [Result(CHECK, context.layer.name, Status.UNREACHED, "there is no wic", problems=[
            f"{program or 'wic'} is not to be found: name openembedded-core's scripts/wic (before April 2026), or "
            "https://git.yoctoproject.org/wic, with --wic"])]
    return [_one(context, wic, *store) for store in stores]


def _one(context, wic, mebibytes, largest):
    started, subject = time.monotonic(), f"store of {mebibytes} MiB"
    work, log = context.directory / "disk", context.directory / "log" / f"disk-{mebibytes}.log"
    shutil.rmtree(work, ignore_errors=True)
    durable.make_directories(log.parent)
    try:
        with context.progress.step(f"a disk by wic and one by the fast lane, with a {subject}"):
            _fill(work, mebibytes << 20, largest)
            text = _fast_lane(context.top, work)
            made = _wic(wic, work, text, log)
            problems = [last_lines(log)] if made is None else differences(work / "fast.img", made)
    except BuildError as err:
        problems = [f"the fast lane: {err}"]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    summary = "the lanes' disks differ" if problems else "the same partitions, each file system whole"
    return Result(CHECK, subject, Status.FAILED if problems else Status.PASSED, summary, time.monotonic() - started,
                  problems=problems, log=str(log))


def _fill(work, size, largest):
    """Make what a disk is made of: a root with a store, and what stands for a kernel and a loader."""
    root, chance, number = work / "root", random.Random(size), 0
    for path in ("boot/never", "etc/fstab", "var/lib/kept", "usr/share/file"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    store = root / "factory/reset-apps/blobs"
    store.mkdir(parents=True)
    while size > 0:
        part = min(size, chance.choice((1, 600, 5000, largest)))
        (store / f"{number:064x}").write_bytes(os.urandom(part))
        size, number = size - part, number + 1
    loader = work / "base/tree/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    loader.parent.mkdir(parents=True)
    for file in (loader, work / "base/vmlinuz", work / "base/initrd.img"):
        file.write_bytes(file.name.encode() * 1000)


def _fast_lane(top, work):
    """Make the fast lane's disk; return the expanded kickstart file. Raises BuildError."""
    # In a process of its own: the fast lane changes directory and environment.
    done = subprocess.run([sys.executable, "-m", "layercheck.wicdisk", top, work], capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    if done.returncode:
        raise BuildError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout


def _main(top, work):
    recipe = Build(Options(top=Path(top), build=work / "build", settings=_SETTINGS), BuildProgress(quiet=True)
                   ).world.recipe("composeapps-image", "the check")
    recipe.d.setVar("IMAGE_ROOTFS", str(work / "root"))
    recipe.d.setVar("BB_UNIHASH", "a build")
    disk.partitioned(recipe.d, Base("check", work / "base"), work / "fast.img")
    print(recipe.d.getVar("_WKS_TEMPLATE"))


def _wic(wic, work, text, log):
    """Make wic's disk; return its path, None when wic failed."""
    native, deploy, given = work / "native", work / "deploy", work / "vars"
    for directory in (native / "sbin", native / "usr", deploy, given):
        directory.mkdir(parents=True)
    for name in ("bin", "sbin"):
        (native / "usr" / name).symlink_to(f"/usr/{name}")
    (native / "bin").symlink_to("/usr/bin")
    (native / "sbin/sfdisk").write_text(_SFDISK)
    (native / "sbin/sfdisk").chmod(0o755)
    shutil.copyfile(work / "base/vmlinuz", deploy / "bzImage")
    shutil.copyfile(work / "base/tree/usr/lib/systemd/boot/efi/systemd-bootx64.efi", deploy / "systemd-bootx64.efi")
    (work / "layer.wks").write_text(text)
    variables = {
        "IMAGE_ROOTFS": work / "root", "DEPLOY_DIR_IMAGE": deploy, "STAGING_DATADIR": work / "none",
        "RECIPE_SYSROOT_NATIVE": native, "HOSTTOOLS_DIR": "/usr/bin", "TARGET_SYS": "x86_64-oe-linux",
        "FAKEROOTCMD": "/usr/bin/env", "KERNEL_IMAGETYPE": "bzImage", "IMAGE_CLASSES": "", "BBLAYERS": "",
    }
    (given / "image.env").write_text("".join(f'{name}="{value}"\n' for name, value in variables.items()))
    argv = [wic, "create", work / "layer.wks", "--vars", given, "-e", "image", "--skip-build-check", "-o", work / "out"]
    with open(log, "wb") as output:
        done = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
                              env={**os.environ, "PATH": _BELOW, "BUILDDIR": str(work), "LC_ALL": "C"})
    return None if done.returncode else next((work / "out").glob("*.direct"), None)


def differences(ours, wics):
    """Return sentences that tell how wic's disk differs from the fast lane's, and what is not whole on either."""
    first, second = (_table(path) for path in (ours, wics))
    problems = [] if first["id"].lower() == second["id"].lower() else ["the disks' identifiers differ"]
    names = [[part["name"] for part in table["partitions"]] for table in (first, second)]
    if names[0] != names[1]:
        return [*problems, f"the fast lane has the partitions {', '.join(names[0])}, wic {', '.join(names[1])}"]
    for left, right in zip(first["partitions"], second["partitions"], strict=True):
        problems += [f"{left['name']}: {what} is {left.get(what)} in the fast lane, {right.get(what)} by wic"
                     for what in ("type", "uuid", "attrs")
                     if str(left.get(what)).lower() != str(right.get(what)).lower()]
        problems += [f"{left['name']}: {what} is at sector {left[what]} in the fast lane, {right[what]} by wic"
                     if what == "start" else f"{left['name']} has {left[what]} sectors in the fast lane, "
                     f"{right[what]} by wic" for what in ("start", "size")
                     if abs(left[what] - right[what]) * 512 > TOLERANCE]
        if left["name"] not in _NO_EXT4:
            found = [_files(path, part) for path, part in ((ours, left), (wics, right))]
            problems += [f"{left['name']}, {lane}: {problem}" for lane, (_names, problem)
                         in zip(("the fast lane", "wic"), found, strict=True) if problem]
            problems += [f"{left['name']} has other files by wic"] if found[0][0] != found[1][0] else []
    return problems


def _table(path):
    return json.loads(_output("sfdisk", "--json", path))["partitiontable"]


def _files(image, part):
    """Return (what lists all directories of a file system down to the third, the sentence that says what is wrong)."""
    target = image.with_name("part.img")
    with open(image, "rb") as stream, open(target, "wb") as out:
        stream.seek(part["start"] * 512)
        for _ in range(-(-part["size"] * 512 // TOLERANCE)):
            data = stream.read(TOLERANCE)
            if data.strip(b"\0"):
                out.write(data)
            else:
                out.seek(len(data), os.SEEK_CUR)
        out.truncate(part["size"] * 512)
    try:
        whole = _start("e2fsck", "-fn", target)
        listed = "".join(_output("debugfs", "-R", f"ls -p {place}", target)
                         for place in ("/", "/boot", "/var", "/factory", "/reset-apps/blobs", "/lib"))
        names = sorted(line.split("/")[5] for line in listed.splitlines() if line.count("/") > 5)
        return names, "" if not whole.returncode else f"e2fsck finds errors (status {whole.returncode})"
    finally:
        target.unlink()


def _start(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False,
                          env={**os.environ, "PATH": _BELOW, "LC_ALL": "C", "DEBUGFS_PAGER": "cat"})


def _output(*words):
    done = _start(*words)
    if done.returncode:
        raise BuildError(f"{words[0]}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return done.stdout


if __name__ == "__main__":
    try:
        _main(sys.argv[1], Path(sys.argv[2]))
    except BuildError as err:
        sys.exit(str(err))
