# SPDX-License-Identifier: MIT
"""Look at what the layer's recipes made: downloads, packages, image, SBOM, licence manifest."""

import hashlib
import json
import stat
import subprocess

from composeapps.app.tree import StoreSource, load_app
from composeapps.errors import ComposeAppsError
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store
from layercheck import appfacts, manifests
from layercheck.errors import CheckError
from layercheck.results import Result, Status
from layercheck.rootimage import RootImage

CHECK = "execute"
PLATFORM = "linux/amd64"
STORE, FACTORY = "/var/sota/reset-apps", "/factory/reset-apps"
FACTORY_FILE = "/usr/share/composeapps/factory.json"
SERVICE = "composeapps-start.service"


def _result(subject, summary, problems, **more):
    status = Status.FAILED if problems else Status.PASSED
    return Result(CHECK, subject, status, summary, problems=problems, **more)


def fetched(build, recipes, outcome):
    """Judge the fetching: each blob of each app is in DL_DIR, by its digest, and nothing of other platforms."""
    apps = appfacts.read(recipes, PLATFORM)
    wanted = {digest: size for app in apps for digest, size in app.blobs.items()}
    there = {path.name.removeprefix("oci-").replace("-", ":", 1): path for path in build.downloads.glob("oci-*")
             if not path.name.endswith(".done")}
    problems = outcome.said("ERROR", "FATAL")
    if outcome.status and not problems:
        problems.append(f"BitBake ended with status {outcome.status}")
    problems += [f"{digest} is not in DL_DIR" for digest in sorted(wanted.keys() - there.keys())]
    problems += [f"{digest} in DL_DIR belongs to no app" for digest in sorted(there.keys() - wanted.keys())]
    for digest in sorted(wanted.keys() & there.keys()):
        found = "sha256:" + hashlib.sha256(there[digest].read_bytes()).hexdigest()
        if found != digest:
            problems.append(f"the file of {digest} has the digest {found}")
    size = sum(wanted.values())
    return _result("fetch", f"{len(wanted)} blobs of {len(apps)} apps over oci://, {size / 1e6:.1f} MB", problems,
                   seconds=outcome.seconds, counts={"blobs": len(wanted), "bytes": size}, log=str(outcome.log))


def look(build):
    """Return a Result for each of the products of a build that went well; ``build`` is an execute.Build."""
    apps = appfacts.read(build.work / "recipes", PLATFORM)
    looks = (("packages", _packages), ("image", _image), ("store in the image", _store),
             ("SBOM", _sbom), ("licence manifest", _licences))
    results = []
    for subject, function in looks:
        try:
            results.append(function(build, apps))
        except (CheckError, ComposeAppsError, OSError, ValueError) as err:
            results.append(_result(subject, "cannot be looked at", [str(err)]))
    return results


def _packages(build, _apps):
    """The agent's package: Python files where the target looks, each of root, and what it depends on."""
    path = _one(build.tmp / "deploy" / "deb", "*/composeapps_*.deb")
    control = _output("dpkg-deb", "--field", path, "Depends")
    listing = [line.split(None, 5) for line in _output("dpkg-deb", "--contents", path).splitlines()]
    files = {fields[5].split(" -> ")[0].lstrip("."): fields for fields in listing}
    problems = [f"{name} belongs to {fields[1]}" for name, fields in files.items() if fields[1] != "root/root"]
    wanted = ["/usr/bin/composeapps", f"/usr/lib/systemd/system/{SERVICE}"]
    problems += [f"the package has no {name}" for name in wanted if name not in files]
    modules = [name for name in files if name.endswith(".py") and "/site-packages/composeapps/" in name]
    sources = list((build.context.layer / "lib" / "composeapps").rglob("*.py"))
    if len(modules) != len(sources):
        problems.append(f"the package has {len(modules)} modules, the layer {len(sources)}: are all in SRC_URI?")
    depends = {entry.split()[0] for entry in control.split(",") if entry.strip()}
    problems += [f"the package does not depend on {name}"
                 for name in ("composeapps-config", "docker-compose", "docker-moby", "python3-core")
                 if name not in depends]
    return _result("packages", f"the agent's has {len(modules)} modules and {len(depends)} dependencies", problems)


def _image(build, _apps):
    """The root file system: services enabled, settings in place, everything owned by root."""
    image = _ext4(build)
    entries = image.entries()
    problems = [f"{path} belongs to {entry.uid}:{entry.gid}" for path, entry in entries.items()
                if (entry.uid, entry.gid) != (0, 0)]
    # Links and the sticky directories of a root file system may be writable, nothing else.
    problems += [f"{path} can be written by everybody" for path, entry in entries.items()
                 if entry.mode & stat.S_IWOTH and not stat.S_ISLNK(entry.mode) and not entry.mode & stat.S_ISVTX]
    wanted = [f"/etc/systemd/system/multi-user.target.wants/{SERVICE}", f"/usr/lib/systemd/system/{SERVICE}",
              "/etc/composeapps/config.toml", "/etc/docker/daemon.json", FACTORY_FILE,
              "/usr/lib/systemd/system/docker.service.d/50-composeapps.conf",
              "/usr/libexec/composeapps-data", "/usr/lib/systemd/system/composeapps-data.service"]
    problems += [f"the image has no {path}" for path in wanted if path not in entries]
    installed = _one(build.images, "composeapps-image-*.rootfs.manifest").read_text().splitlines()
    size = image.path.resolve().stat().st_size
    summary = (f"ext4 of {size >> 20} MiB with {len(entries)} entries of root's and {len(installed)} packages, "
               f"{SERVICE} enabled")
    return _result("image", summary, problems, counts={"entries": len(entries), "packages": len(installed)})


def _store(build, apps):
    """The preloaded store in the image: every blob verified, each app as its recipe says, the factory's one linked."""
    image = _ext4(build)
    copies = build.work / "image"
    store = Store(image.copy(STORE, copies / "store"))
    problems, blobs = [], 0
    expected = {app.name: app.uri for app in apps}
    found = {ref.app_name: str(ref) for ref in store.list_apps()}
    if found != expected:
        problems.append(f"the store has the apps {found}, the recipes {expected}")
    factory = json.loads((image.copy(FACTORY_FILE.rpartition("/")[0], copies / "factory") / "factory.json").read_text())
    if factory != {"apps": expected}:
        problems.append(f"{FACTORY_FILE} says {factory}, the recipes {expected}")
    for app in apps:
        images = [parse_pinned(reference) for reference in app.images]
        for blob in load_app(StoreSource(store), parse_pinned(app.uri), [Platform.parse(PLATFORM)], images).blobs():
            blobs += 1
            problem = store.verify(blob.descriptor.digest, blob.descriptor.size)
            problems += [f"app {app.name}: {problem}"] if problem and not blob.optional else []
    entries = image.entries()
    for digest in {digest for app in apps for digest in app.blobs}:
        name = "/blobs/sha256/" + digest.removeprefix("sha256:")
        pair = [entries.get(top + name) for top in (STORE, FACTORY)]
        if None in pair:
            problems.append(f"{digest} is not in both {STORE} and {FACTORY}")
        elif pair[0].inode != pair[1].inode:
            problems.append(f"{digest} takes space twice")
    return _result("store in the image", f"{len(found)} apps, {blobs} blobs verified, as the recipes say", problems,
                   counts={"apps": len(found), "blobs": blobs})


def _sbom(build, apps):
    path = _one(build.images, "composeapps-image-*.rootfs.spdx.json")
    document = json.loads(path.read_text())
    images = sum(len(app.images) for app in apps)
    return _result("SBOM", f"SPDX 3 with {len(document.get('@graph', []))} elements names {len(apps)} apps and "
                   f"{images} images by digest", manifests.sbom_problems(document, apps))


def _licences(build, apps):
    path = _one(build.tmp / "deploy" / "licenses", "*/composeapps-image-*.rootfs*/license.manifest")
    return _result("licence manifest", f"names {len(apps)} apps, their images and licences",
                   manifests.licence_problems(path.read_text(), apps))


def _ext4(build):
    return RootImage(_one(build.images, "composeapps-image-*.rootfs.ext4"))


def _one(directory, pattern):
    """Return the one file; a link to another counts as that."""
    found = {path.resolve(): path for path in directory.glob(pattern)}
    if len(found) != 1:
        raise CheckError(f"there are {len(found)} files {directory}/{pattern} where one is expected")
    return next(iter(found.values()))


def _output(*argv):
    done = subprocess.run([*map(str, argv)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout
