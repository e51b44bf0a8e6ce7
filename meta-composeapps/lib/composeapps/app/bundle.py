# SPDX-License-Identifier: MIT
"""App bundles: the .tgz of an app's directory, with the pinned compose file at its root.

Format: layer 0 of an app manifest as composectl v96 writes it. Owner, group and mode are
kept, modification times are zero, the compose file is named exactly ``docker-compose.yml``.
What unpacks a bundle trusts nothing in it: no name and no file type may reach outside the
directory it is unpacked into, nothing is written through a link, and all of it belongs to who
unpacks it, root on a device: the publisher's number may be somebody else's there.
"""

import contextlib
import io
import os
import posixpath
import stat
from pathlib import Path

from composeapps import COMPOSE_FILE
from composeapps.app.ignorefile import IgnoreRules
from composeapps.durable import fsync_directory
from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.oci.digests import stream_sha256

IGNORE_FILE = ".composeappignores"
# What docker compose looks for, in its order; beside the pinned file they would be taken in its place, or added.
BASE_NAMES = ("compose.yaml", "compose.yml", COMPOSE_FILE, "docker-compose.yaml")
OVERRIDE_NAMES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml",
                  "docker-compose.override.yaml")
MAX_COMPOSE = 1024 * 1024
MAX_BUNDLE = 1024 * 1024 * 1024

_CHUNK = 1024 * 1024


def create(app_dir, compose, out, listing=None):
    """Write the bundle of a directory.

    Arguments:
        app_dir: the app's directory.
        compose: the pinned compose file (bytes), which takes the place of the one in the directory.
        out: a binary file that the bundle is written to.
        listing: what ``entries`` returned of the directory; asked for by default.

    Returns the bundle index, {path: digest}, with an entry for each file that is no directory.
    Raises UsageError for what a bundle cannot hold: a device, a link that leaves the directory,
    more than 1 GiB.
    """
    import gzip
    import tarfile

    if len(compose) > MAX_COMPOSE:
        raise UsageError(f"the pinned compose file has {len(compose)} bytes, more than the {MAX_COMPOSE} allowed")
    app_dir = Path(app_dir)
    listing = entries(app_dir) if listing is None else listing
    if COMPOSE_FILE not in listing:
        raise UsageError(f"{app_dir} has no {COMPOSE_FILE}")
    index, total = {}, 0
    # The same input gives the same bytes: no time stamp, no file name, a fixed order.
    with (
        gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0, compresslevel=9) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in listing.items():
            if name == COMPOSE_FILE:
                # Whatever it is in the directory, a link to a file of another name too.
                path = path.resolve()
            info = _describe(tar, name, path, app_dir)
            if name == COMPOSE_FILE:
                info.size = len(compose)
                tar.addfile(info, io.BytesIO(compose))
                index[name] = stream_sha256(io.BytesIO(compose))
            elif info.isreg():
                total += info.size
                if total > MAX_BUNDLE:
                    raise UsageError(f"the bundle of {app_dir} is larger than {MAX_BUNDLE} bytes: "
                                     f"leave files out with a {IGNORE_FILE}")
                with open(path, "rb") as stream:
                    tar.addfile(info, stream)
                    stream.seek(0)
                    index[name] = stream_sha256(stream)
            else:
                tar.addfile(info)
                if info.issym() and path.is_file():
                    # Readers follow the link, so its entry is the digest of what it leads to.
                    with open(path, "rb") as stream:
                        index[name] = stream_sha256(stream)
    return dict(sorted(index.items()))


def entries(app_dir, compose_files=()):
    """Return {name: path} of all that a directory's bundle holds: what the ignore file does not leave out, sorted.

    Arguments:
        app_dir: the app's directory.
        compose_files: the files that make the compose file (Paths), the first in its place. All that
            docker compose would look for at the top of the directory is left out.

    Raises UsageError for a name that is no text, and for an ignore file that is none.
    """
    app_dir = Path(app_dir)
    try:
        data = (app_dir / IGNORE_FILE).read_bytes() + f"\n{IGNORE_FILE}\n".encode()
    except FileNotFoundError:
        data = b""
    rules = IgnoreRules(data, str(app_dir / IGNORE_FILE))
    found = {}

    def walk(directory, prefix):
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            name = prefix + entry.name
            ignored = rules.ignores(name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if not ignored:
                shown = os.fsencode(name)
                try:
                    shown.decode()
                except UnicodeDecodeError:
                    raise UsageError(f"{app_dir}: the name of the file {shown!r} is not UTF-8: rename it, or leave it "
                                     f"out with a {IGNORE_FILE}") from None
                found[name] = Path(entry.path)
            if is_directory and (not ignored or rules.has_exceptions):
                walk(entry.path, name + "/")

    walk(app_dir, "")
    for name in (*BASE_NAMES, *OVERRIDE_NAMES):
        found.pop(name, None)
    found[COMPOSE_FILE] = compose_files[0] if compose_files else app_dir / COMPOSE_FILE
    return dict(sorted(found.items()))


def _describe(tar, name, path, app_dir):
    from tarfile import REGTYPE

    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path} is neither a file, a directory nor a symbolic link: a bundle cannot hold it")
    if stat.S_ISLNK(mode):
        target = os.readlink(path)
        if not _stays_inside(name, target):
            raise UsageError(f"{path} is a link to '{target}', outside {app_dir}: a bundle cannot hold it")
    info = tar.gettarinfo(path, name)
    if stat.S_ISREG(mode):
        # Names of one file become files of their own: no hard links in a bundle.
        info.type, info.linkname, info.size = REGTYPE, "", path.stat().st_size
    info.mtime = 0
    info.uname = info.gname = ""
    return info


def _stays_inside(name, target):
    """Tell whether a symbolic link called ``name`` with ``target`` leads to somewhere in the bundle."""
    if not target or target.startswith("/"):
        return False
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return resolved != ".." and not resolved.startswith("../")


def members(stream, what):
    """Yield (TarInfo, binary file or None) of a bundle, each checked before it is handed out.

    Arguments:
        stream: the bundle, a binary file.
        what: how errors name it.

    An absolute symbolic link is handed out like others: what it means is for the container to say. A hard
    link comes without a file, ``linkname`` being the regular file before it that has its content and mode.
    Raises CorruptError for an archive that is broken or that reaches outside its directory.
    """
    import gzip
    import tarfile
    import zlib

    total, links, files = 0, set(), {}
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for info in tar:
                name = posixpath.normpath(info.name)
                parts = info.name.split("/")
                if info.name.startswith("/") or ".." in parts or "\0" in info.name:
                    raise CorruptError(f"{what}: the name '{info.name}' leads outside the bundle")
                if name == ".":
                    continue
                if name in links or any(name.startswith(link + "/") for link in links):
                    raise CorruptError(f"{what}: '{name}' lies on or behind a symbolic link")
                if info.issym():
                    if not (info.linkname.startswith("/") or _stays_inside(name, info.linkname)):
                        raise CorruptError(f"{what}: the link '{name}' to '{info.linkname}' leads outside the bundle")
                    links.add(name)
                elif info.islnk():
                    same = files.get(posixpath.normpath(info.linkname))
                    if same is None:
                        raise CorruptError(f"{what}: '{name}' is a hard link to '{info.linkname}', which is no file "
                                           "of the bundle before it")
                    info.linkname, info.size, info.mode = same.name, same.size, same.mode
                    files[name] = same
                elif info.isreg():
                    files[name] = info
                elif not info.isdir():
                    raise CorruptError(f"{what}: '{name}' is neither a file, a directory nor a link")
                total += info.size
                if total > MAX_BUNDLE + MAX_COMPOSE:
                    raise CorruptError(f"{what} unpacks to more than {MAX_BUNDLE} bytes")
                info.name = name
                yield info, tar.extractfile(info) if info.isreg() else None
            # Read on to the end, so that a truncated or damaged tail is noticed.
            while stream.read(_CHUNK):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError) as err:
        raise CorruptError(f"{what} is not a readable .tgz: {err}") from None


def read_compose(stream, what):
    """Return the compose file (bytes) of a bundle.

    Raises NotFoundError when there is none at its root, CorruptError for a broken bundle.
    """
    found = None
    for info, content in members(stream, what):
        if info.name == COMPOSE_FILE and content is not None:
            if info.size > MAX_COMPOSE:
                raise CorruptError(f"{what}: {COMPOSE_FILE} has {info.size} bytes, more than the {MAX_COMPOSE} allowed")
            found = content.read()
    if found is None:
        raise NotFoundError(f"{what} has no {COMPOSE_FILE} at its root")
    return found


def extract(stream, directory, what):
    """Unpack a bundle into an empty directory and make it durable.

    Hard links become files of their own. Raises CorruptError for a bundle that is broken or that would
    reach outside ``directory``.
    """
    directory = Path(directory)
    modes, made = {}, {directory}
    for info, content in members(stream, what):
        target = directory / info.name
        target.parent.mkdir(parents=True, exist_ok=True)
        made.update(p for p in target.parents if p.is_relative_to(directory))
        if info.isdir():
            target.mkdir(exist_ok=True)
            made.add(target)
            modes[target] = info
            continue
        if target.is_symlink() or target.is_file():
            target.unlink()
        if info.issym():
            target.symlink_to(info.linkname)
            continue
        with contextlib.ExitStack() as end, open(target, "xb") as out:
            if info.islnk():
                content = end.enter_context(open(directory / info.linkname, "rb"))
            while chunk := content.read(_CHUNK):
                out.write(chunk)
            out.flush()
            os.fchmod(out.fileno(), stat.S_IMODE(info.mode))
            os.fsync(out.fileno())
    # A directory without write permission must get its mode after its content.
    for target, info in sorted(modes.items(), reverse=True):
        target.chmod(stat.S_IMODE(info.mode))
    for target in sorted(made, reverse=True):
        fsync_directory(target)


def differences(stream, directory, what):
    """Compare an unpacked bundle with the bundle; return a list of sentences, empty when all is well.

    Raises CorruptError when the bundle itself is broken.
    """
    directory, problems = Path(directory), []
    for info, content in members(stream, what):
        target = directory / info.name
        try:
            mode = target.lstat().st_mode
        except OSError:
            problems.append(f"{info.name} is missing")
            continue
        if info.isdir():
            problem = None if stat.S_ISDIR(mode) else "is no directory"
        elif info.issym():
            same = stat.S_ISLNK(mode) and os.readlink(target) == info.linkname
            problem = None if same else f"is not the link to {info.linkname}"
        elif not stat.S_ISREG(mode):
            problem = "is no file"
        elif not (_same_files(target, directory / info.linkname) if info.islnk() else _same_content(target, content)):
            problem = "has other content"
        else:
            problem = None if stat.S_IMODE(mode) == stat.S_IMODE(info.mode) else "has another mode"
        if problem:
            problems.append(f"{info.name} {problem}")
    return problems


def _same_files(path, other):
    try:
        with open(other, "rb") as content:
            return _same_content(path, content)
    except OSError:
        return False


def _same_content(path, content):
    with open(path, "rb") as stream:
        while True:
            theirs, ours = content.read(_CHUNK), stream.read(_CHUNK)
            if theirs != ours:
                return False
            if not ours:
                return True
