# SPDX-License-Identifier: MIT
"""The restorable store: each app's blobs, outside dockerd, content-addressed.

Layout, as composectl v96 writes and reads it::

    <root>/blobs/sha256/<hex>
    <root>/ingest/…                              what is being written
    <root>/apps/<name>/<app manifest hex>/
        uri                                      the pinned reference, no newline; uri.sha256
        manifest.json  <bundle hex>.tgz          hard links to blobs
        docker-compose.yml
        images/<host>/<path>/<image hex>/index.json, oci-layout

A name under ``blobs`` appears only when the blob is whole, verified and durable. An app
exists when its ``uri`` does, and that is written last. Every step can be repeated; a power
cut leaves at most files under ``ingest`` and an app directory without ``uri``, which the
next writer takes over.
"""

import contextlib
import errno
import functools
import hashlib
import os
import stat
from pathlib import Path

from composeapps import COMPOSE_FILE, beneath, durable
from composeapps.errors import CorruptError, NotFoundError, StorageError, UsageError
from composeapps.oci.digests import is_digest, stream_sha256
from composeapps.oci.documents import MAX_DOCUMENT
from composeapps.oci.names import AppName, is_name
from composeapps.oci.onepass import parsed
from composeapps.oci.reference import parse_pinned

CHUNK = 1024 * 1024
# What is hashed at once, small enough to stay in a processor's cache between reading and hashing.
READ = 256 * 1024

# What reading a blob ends with when the medium or the file system has lost it.
_DAMAGES = {errno.EIO, errno.EISDIR, errno.ELOOP, errno.EUCLEAN, errno.ENXIO}
# What a name ends with that is not there, or below something that is no directory.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class Store:
    """A restorable store.

    Arguments:
        root: its directory; created by the first write.

    Methods that write raise StorageError when the file system refuses.
    """

    def __init__(self, root):
        self.root = Path(root)
        # What the apps' directories have of blobs: {hex digits of the digest: [path, …]}, None until that is asked for.
        self._beside = None

    @functools.cached_property
    def blobs(self):
        """The directory of the blobs."""
        return self.root / "blobs" / "sha256"

    @functools.cached_property
    def ingest(self):
        """The directory of what is being downloaded."""
        return self.root / "ingest"

    @functools.cached_property
    def apps(self):
        """The directory of the apps' directories."""
        return self.root / "apps"

    def blob_path(self, digest):
        """Return where a blob lives; raises CorruptError for what is no sha256 digest."""
        if not is_digest(digest):
            raise CorruptError(f"'{digest}' is not a digest of the form sha256:<64 hex digits>")
        return self.blobs / digest.partition(":")[2]

    def size_of(self, digest):
        """Return a blob's size in bytes, or None when it is not in the store. Does not read it."""
        try:
            return self.blob_path(digest).stat().st_size
        except OSError as err:
            if err.errno not in _ABSENT:
                raise
            return None

    def chunks(self, digest, size=None, near=None):
        """Yield a blob's content, verifying it on the way.

        Arguments:
            digest: the blob's digest.
            size: its size in bytes where known.
            near: the Reference of an app whose directory may have it in place of the blobs.

        Raises NotFoundError when it is missing; CorruptError, after the last chunk at the
        latest, when it is not what its name says.
        """
        with self._open(digest, near) as stream:
            yield from self._verified(stream, digest, size)

    def read(self, digest, size=None, limit=MAX_DOCUMENT, near=None):
        """Return a small blob (bytes), verified, as ``chunks`` does; raises CorruptError above ``limit`` bytes too."""
        present = self.size_of(digest)
        if present is not None and present > limit:
            raise CorruptError(f"blob {digest} in {self.root} has {present} bytes, more than the {limit} allowed")
        return b"".join(self.chunks(digest, size, near))

    def parse(self, digest, parse, size=None, near=None):
        """Return what a function makes of a blob, which is read once and verified before anything is returned.

        ``parse`` is as ``onepass.parsed`` calls it. The other arguments and the errors are those of ``chunks``.
        """
        return parsed(self.chunks(digest, size, near), parse)

    def unverified(self, digest, near=None):
        """Return a binary file over a blob, whatever is in it, for who verifies it; raises NotFoundError."""
        return self._open(digest, near)

    def _open(self, digest, near=None):
        with self._reading(digest), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return beneath.open_regular(self.blob_path(digest))
        for path in self._elsewhere(digest.partition(":")[2], near):
            with contextlib.suppress(OSError):
                return beneath.open_regular(path)
        raise NotFoundError(f"blob {digest} is not in the store {self.root}")

    def _elsewhere(self, number, near):
        """Yield the paths in apps' directories, that of the app ``near`` first, at which a blob may be.

        skopeo leaves an app's manifest and bundle there alone. All directories are gone through once: a fetch asks for
        each blob that is missing. What comes to be there later is found only ``near``; elsewhere it is fetched.
        """
        if near is not None:
            with contextlib.suppress(UsageError):
                directory = self.app_dir(near)
                yield directory / f"{number}.tgz"
                if near.hex == number:
                    yield directory / "manifest.json"
        if self._beside is None:
            found = {}
            for _name, own, directory in self.app_directories():
                names = set()
                with contextlib.suppress(OSError):
                    names.update(os.listdir(directory))
                for name in names:
                    if name == "manifest.json" or name.endswith(".tgz"):
                        found.setdefault(own if name == "manifest.json" else name[:-4], []).append(directory / name)
            self._beside = found
        yield from self._beside.get(number, ())

    @contextlib.contextmanager
    def _reading(self, digest):
        """A blob on a sector that has gone bad is damaged as any other, and can be fetched again."""
        with durable.storage_errors(f"reading blob {digest}"):
            try:
                yield
            except OSError as err:
                if err.errno not in _DAMAGES:
                    raise
                raise CorruptError(f"blob {digest} in {self.root} cannot be read ({err.strerror}): fetch it again"
                                   ) from None

    def _verified(self, stream, digest, size):
        with self._reading(digest):
            self._check_size(stream, digest, size)
            hasher = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                yield chunk
        self._check_digest(hasher, digest)

    def _check(self, stream, digest, size, buffer=None):
        """Read a blob to its end; raises CorruptError when it is not what its name says."""
        with self._reading(digest):
            self._check_size(stream, digest, size)
            hasher = hashlib.sha256()
            # Memory of its own for each piece would cost half of what hashing it does.
            buffer = memoryview(bytearray(READ)) if buffer is None else buffer
            while count := stream.readinto(buffer):
                hasher.update(buffer[:count])
        self._check_digest(hasher, digest)

    def _check_size(self, stream, digest, size):
        present = os.fstat(stream.fileno()).st_size
        if size is not None and present != size:
            raise CorruptError(f"blob {digest} in {self.root} has {present} bytes, not {size}: fetch it again")

    def _check_digest(self, hasher, digest):
        if "sha256:" + hasher.hexdigest() != digest:
            raise CorruptError(f"blob {digest} in {self.root} is damaged (its digest is sha256:{hasher.hexdigest()}): "
                               "fetch it again")

    def verify(self, digest, size=None, buffer=None):
        """Return None for a blob that is whole, else the sentence that says what is wrong with it.

        Arguments:
            digest: the blob's digest.
            size: its size in bytes where known.
            buffer: a memoryview to read into.
        """
        try:
            with self._open(digest) as stream:
                self._check(stream, digest, size, buffer)
        except (NotFoundError, CorruptError) as err:
            return str(err)
        return None

    def verify_all(self, blobs):
        """Return {digest: what ``verify`` returns}, read on all processors.

        Arguments:
            blobs: {digest: size in bytes, None where unknown}.

        Raises what reading the first one that cannot be read raises.
        """
        import threading

        waiting = sorted(blobs, key=lambda digest: blobs[digest] or 0)
        found, failures = {}, []

        def work():
            buffer = memoryview(bytearray(READ))
            # Taking the last one of a list is one step for the interpreter, and no other thread gets it, too.
            with contextlib.suppress(IndexError):
                while not failures:
                    digest = waiting.pop()
                    try:
                        found[digest] = self.verify(digest, blobs[digest], buffer)
                    except Exception as err:
                        failures.append(err)

        # One that is small is read before another thread has started.
        many = sum(size or READ for size in blobs.values()) > 8 * READ
        count = min(os.cpu_count() or 1, len(blobs), 4) if many else 1
        others = [threading.Thread(target=work) for _ in range(count - 1)]
        for other in others:
            other.start()
        try:
            work()
        except BaseException:
            waiting.clear()
            raise
        finally:
            for other in others:
                other.join()
        if failures:
            raise failures[0]
        return found

    def add_blob(self, digest, chunks, size=None):
        """Write a blob, unless a whole one is there.

        Arguments:
            digest: its digest.
            chunks: an iterable of bytes.
            size: its size in bytes where known.

        Raises CorruptError, leaving nothing behind, when the bytes do not match.
        """
        target = self.blob_path(digest)
        with durable.storage_errors(f"writing blob {digest}"):
            if target.exists() and self.verify(digest, size) is None:
                return
            with self._temporary(target.name) as temporary:
                hasher, total = hashlib.sha256(), 0
                with durable.create(temporary, 0o644) as out:
                    for chunk in chunks:
                        hasher.update(chunk)
                        out.write(chunk)
                        total += len(chunk)
                    if size is not None and total != size:
                        raise CorruptError(f"blob {digest} came with {total} bytes, not {size}")
                    if "sha256:" + hasher.hexdigest() != digest:
                        raise CorruptError(f"blob {digest} came with the wrong content "
                                           f"(its digest is sha256:{hasher.hexdigest()})")
                self.give_name(temporary, target)

    def add_file(self, path, digest, size=None):
        """Take a file over as a blob: by a hard link where the file systems are one, else by copying.

        The file's content is verified in both cases. Raises NotFoundError when there is no such file.
        """
        target = self.blob_path(digest)
        # A mirror may have left a symbolic link, and a hard link to that would dangle one day.
        path = Path(path).resolve()
        try:
            stream = open(path, "rb")  # noqa: SIM115 - the with follows
        except FileNotFoundError:
            raise NotFoundError(f"{path} does not exist: fetch blob {digest} first") from None
        with stream, durable.storage_errors(f"adding blob {digest}"):
            found = stream_sha256(stream)
            if found != digest or (size is not None and stream.tell() != size):
                raise CorruptError(f"{path} is not blob {digest} (its digest is {found}): remove it and fetch it again")
            if target.exists() and (target.samefile(path) or self.verify(digest, size) is None):
                return
            with self._temporary(target.name) as temporary:
                try:
                    os.fsync(stream.fileno())
                    os.link(path, temporary)
                except OSError:
                    stream.seek(0)
                    self.add_blob(digest, iter(lambda: stream.read(CHUNK), b""), size)
                else:
                    self.give_name(temporary, target)

    def give_name(self, temporary, target):
        """Rename a file that is whole and durable to a blob's name; raises OSError."""
        durable.make_way(target, self.root)
        durable.replace(temporary, target)

    def make_private(self):
        """Make the store's directories; what is in them, bundles with secrets perhaps, is for its owner alone.

        The files themselves keep the mode that they have elsewhere: they may be links to a build's downloads.
        """
        for directory in (self.blobs.parent, self.ingest, self.apps):
            durable.make_way(directory / "x", self.root)
            durable.make_directories(directory, 0o700, 0o755)
            status = os.stat(directory)
            if status.st_mode & 0o077 and status.st_uid == os.geteuid():
                os.chmod(directory, 0o700)
        durable.make_way(self.blobs / "x", self.root)
        durable.make_directories(self.blobs, 0o700)

    @contextlib.contextmanager
    def _temporary(self, name):
        """Give a name under ``ingest``, on the store's own file system; whatever is left of it is removed."""
        self.make_private()
        temporary = self.ingest / f"{name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def add_app(self, app):
        """Make an app whose blobs are all here visible.

        Arguments:
            app: a composeapps.app.tree.App loaded from this store.

        Nothing is verified here: loading the app did that for its documents, and the caller
        for its layers. Running it again repairs what is missing or damaged, and nothing else.
        """
        from composeapps.store import appdir

        with durable.storage_errors(f"adding app {app.ref}"):
            self.make_private()
            appdir.write(self, app)

    def has_app(self, ref):
        """Tell whether an app's version is complete in the store, as its writer vouched. Reads no blob."""
        try:
            return beneath.read_regular(self.app_dir(ref) / "uri").strip().decode(errors="replace") == str(ref)
        except OSError:
            return False

    def compose_of(self, ref, limit):
        """Return the compose file (bytes) beside an app's bundle, unverified; None when it is larger than ``limit``.

        Raises OSError.
        """
        with beneath.open_regular(self.app_dir(ref) / COMPOSE_FILE) as stream:
            data = stream.read(limit + 1)
        return data if len(data) <= limit else None

    def app_dir(self, ref):
        """Return the directory of an app's version; ``ref`` carries a digest."""
        return ref.app_name.below(self.apps) / ref.hex

    def absence(self):
        """Return None when the store's directory is there, else the error that says what is in place of it.

        A NotFoundError says that nothing is, and a StorageError that something else is, or that nobody can tell.
        """
        try:
            if stat.S_ISDIR(os.stat(self.root).st_mode):
                return None
        except OSError as err:
            if err.errno not in _ABSENT:
                return StorageError(f"the store {self.root} cannot be read ({err.strerror})")
            return NotFoundError(f"the store {self.root} does not exist")
        return StorageError(f"the store {self.root} is no directory")

    def list_apps(self):
        """Return the References of the apps in the store, sorted by name.

        An app directory whose ``uri`` is missing, malformed or names another app is no app.
        """
        return self._sorted(directory for _name, _number, directory in self.app_directories())

    def _sorted(self, directories):
        """Return the References of the apps in directories, sorted by name."""
        return sorted(filter(None, map(self.app_at, directories)), key=lambda ref: (ref.app_name, ref.digest))

    def app_at(self, directory):
        """Return the Reference of the app whose directory this is, None when its ``uri`` does not say so."""
        with contextlib.suppress(OSError, UsageError, UnicodeDecodeError):
            ref = parse_pinned(beneath.read_regular(directory / "uri").strip().decode())
            if self.app_dir(ref) == directory:
                return ref
        return None

    def app_directories(self, below=None, deeper=True):
        """Yield (AppName, hex digits of the app's digest, Path) of each directory of an app, whole or not.

        Arguments:
            below: the directory that they are looked for in; by default that of all of them.
            deeper: whether directories below that are gone through, too.

        What lies below ``apps`` under names that no app has is nobody's here.
        """
        try:
            entries = sorted(os.scandir(below or self.apps), key=lambda e: e.name)
        except OSError as err:
            if err.errno not in _ABSENT:
                raise
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if is_digest(f"sha256:{entry.name}"):
                    name = os.path.dirname(entry.path)[len(str(self.apps)) + 1:]
                    if is_name(name):
                        yield AppName(name), entry.name, Path(entry.path)
                elif deeper:
                    yield from self.app_directories(entry.path)

    def _directories(self, near):
        """Yield what ``app_directories`` does, that of the app ``near`` (a Reference or None) first.

        So a store of many apps is gone through only for what is not where it should be.
        """
        if near is not None:
            with contextlib.suppress(UsageError):
                yield near.app_name, near.hex, self.app_dir(near)
        yield from self.app_directories()

    def image_layout(self, ref, near=None):
        """Return the index.json that an app's directory has for an image (bytes), None without one.

        The app whose Reference is ``near`` is asked first.
        """
        for _name, _number, directory in self._directories(near):
            path = directory.joinpath("images", ref.host, ref.path, ref.hex, "index.json")
            with contextlib.suppress(OSError):
                return beneath.read_regular(path)
        return None

    def find_app(self, name, states=None):
        """Return the Reference of one app, named by its name or by its pinned reference.

        Of several versions a name means the one that is installed according to ``states``, a StateDirectory.
        Raises NotFoundError, which lists what there is, or UsageError when several versions fit.
        """
        if "@" in name:
            # Its directory says whether it is there.
            with contextlib.suppress(UsageError):
                asked = parse_pinned(name)
                found = self.app_at(self.app_dir(asked))
                if found is not None and name in (str(found), f"{found.repository}@{found.digest}"):
                    return found
        elif is_name(name):
            # All versions of one app are beside each other.
            home = AppName(name).below(self.apps)
            fitting = self._sorted(directory for found, _number, directory in self.app_directories(home, deeper=False)
                                   if found == name)
            if fitting:
                return self._one_of(name, fitting, states)
        apps = self.list_apps()
        fitting = [ref for ref in apps if name in (ref.app_name, str(ref), f"{ref.repository}@{ref.digest}")]
        if fitting:
            return self._one_of(name, fitting, states)
        have = ", ".join(sorted({ref.app_name for ref in apps})) or "none"
        raise NotFoundError(f"app '{name}' is not in the store {self.root}; its apps: {have}")

    def _one_of(self, name, fitting, states):
        """Return the Reference that ``find_app`` means, of some that fit a name."""
        if len(fitting) == 1:
            return fitting[0]
        installed = states.get(name) if states else None
        for ref in fitting:
            if installed and installed.uri == str(ref):
                return ref
        versions = ", ".join(str(ref) for ref in fitting)
        raise UsageError(f"the store has {len(fitting)} versions of {name}; name one: {versions}")

    def remove_stale(self):
        """Remove what killed writers left under ``ingest``; what a process that lives is writing stays."""
        for temporary in self.ingest.glob("*.tmp"):
            process = temporary.name.split(".")[-2]
            if process == str(os.getpid()) or not os.path.exists(f"/proc/{process}"):
                temporary.unlink(missing_ok=True)
