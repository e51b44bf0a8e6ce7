# SPDX-License-Identifier: MIT
"""An app's files on the disk: placing a version's bundle, giving back what was there before, removing.

``placing`` says what becomes of each file, ``inputs`` what docker compose gets to read, ``placed`` where it is.
"""

import contextlib
import errno
import hashlib
import os
import posixpath
import stat

from composeapps import beneath, durable
from composeapps.app import bundle as bundles
from composeapps.app import compose, tree
from composeapps.errors import CorruptError
from composeapps.installed import expected, inputs, mounts, oldtrees, staging
from composeapps.installed.placed import KEPT, Placed, Record, found_mark
from composeapps.installed.placing import Work

# So deep a directory is looked for files in; a container could make others without end.
_DEPTH = 40
# What a directory gives that is none any more.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class _Wanted:
    """What a version's bundle says: its ``index``, its ``environment`` (text or None), its compose file's ``value``."""

    def __init__(self, app, store):
        self.app, self._store, self._what = tree.whole(app, store), store, f"the bundle of app {app.ref}"
        self.index = self.app.contents.index
        data = self.app.contents.texts((expected.ENVIRONMENT_FILE,))[0].get(expected.ENVIRONMENT_FILE)
        self.environment = data.decode(errors="replace") if data is not None else None
        self.value = compose.pinned(app.compose, f"app {app.ref}")

    def bindings(self, placed):
        return mounts.bindings(self.value, mounts.Paths(placed.directory, self.environment or ""))

    def contents(self, wanted):
        """Yield (what ``wanted`` has for it, content) of the archive's entries whose number is in ``wanted``.

        The bundle was verified when its index was made, and may have changed since: each content, a binary file, is
        verified by the index. Its end comes when it was right, else reading it raises CorruptError.
        """
        rest, files = dict(wanted), {member.source: member for member in self.index.values()}
        changed = CorruptError(f"{self._what} changed while it was read, or is damaged: fetch it again")
        if not rest:
            return
        with self._store.unverified(self.app.bundle.digest, self.app.ref) as packed:
            for number, (_info, content) in enumerate(bundles.members(packed, self._what)):
                if number not in rest:
                    continue
                if content is None:
                    raise changed
                yield rest.pop(number), _Verified(content, files[number], changed)
                if not rest:
                    return
        raise changed


class _Verified:
    """The content of a Member as it comes out of a bundle; ``wrong`` is raised at its end when it is another one."""

    def __init__(self, content, member, wrong):
        self._content, self._member, self._wrong = content, member, wrong
        self._hasher, self._rest = hashlib.sha256(), member.size

    def read(self, size):
        """Return up to so many bytes, b"" only when all of them were right."""
        data = self._content.read(size)
        self._hasher.update(data)
        self._rest -= len(data)
        if self._rest < 0 or not data and (
                self._rest or f"sha256:{self._hasher.hexdigest()}" != self._member.digest):
            raise self._wrong
        return data


def problems(app, store, config):
    """Return what differs between an app's unpacked bundle and the store's, as sentences.

    What a user has changed where a service may write is none. Raises CorruptError, NotFoundError, OSError.
    """
    placed = Placed(config.compose_root, app.ref.app_name)
    wanted = _Wanted(app, store)
    if not placed.root.is_dir():
        return [f"{placed.directory} is missing"]
    with beneath.opened(placed.root) as root:
        record, _before = _record(placed, wanted, None)
        return Work(placed, root, record, wanted.index).look().problems


def place(app, store, config, engine=None, old=None, notify=lambda text: None):
    """Bring an app's directory to a version, and have ready what docker compose reads; return whether there was to do.

    Arguments:
        app: the App.
        store: the Store that has its bundle.
        config: the Config.
        engine: the Engine, which tells where containers may write; None when there are none.
        old: the App whose bundle is there as far as is known, for a directory without a record; or None.
        notify: called with a sentence about what is kept or set aside.

    Raises CorruptError, NotFoundError, EngineError; OSError when the file system refuses.
    """
    placed = Placed(config.compose_root, app.ref.app_name)
    wanted = _Wanted(app, store)
    with placed.opened() as root:
        oldtrees.settle(placed, root, engine)
        record, before = _record(placed, wanted, engine)
        if before is None and old is not None and old.ref != app.ref:
            record = _adopted(placed, record, old, store)
        plan = _plan(placed, root, wanted, record, notify)
        done = _place(placed, root, wanted, record, before, plan, notify)
        if engine is not None:
            inputs.prune(placed, root, app.ref, plan.inputs, engine)
        return done


def _place(placed, root, wanted, record, before, plan, notify):
    work = Work(placed, root, record, wanted.index, before.whole if before else None, notify)
    changed, lacking = bool(work.look().problems or work.obsolete()), plan.missing()
    if before is not None and not (changed or lacking) and plan.is_noted():
        with root.directory(placed.private) as private:
            work.tidy(private)
        placed.write(root, record.with_index(wanted.index, work.kept))
        return False
    root.make_directories(placed.private, 0o700)
    # What is in the way is set aside before the record has the new members: after a cut in between, what stands under
    # such a name would be taken for the agent's.
    _write(placed, root, wanted, plan, work, lacking, (lambda: placed.write(root, record.with_index(wanted.index)))
           if changed else None)
    placed.write(root, record.with_index(wanted.index, work.kept))
    return changed


def _plan(placed, root, wanted, record, notify=lambda text: None):
    return inputs.Plan(placed, root, wanted.app, wanted.value, wanted.index, wanted.environment, record.places, notify)


def _write(placed, root, wanted, plan, work, lacking, write_record):
    """Write what the plan lacks and the work misses: all of it is there, and on the disk, before anything changes."""
    for name in (inputs.FILES, inputs.VERSIONS):
        root.make_directories(f"{placed.private}/{name}", 0o700)
    plan.write_own(lacking)
    with root.directory(placed.private) as private, staging.Staging(private) as staged:
        work.tidy(private)
        _stage(wanted, work, plan, lacking, staged)
        if write_record:
            work.prepare()
            write_record()
            # Of what was changed just now more may be missing.
            _stage(wanted, work, plan, lacking, staged)
            work.write_links()
        work.move(staged)
        plan.move(staged)
    work.finish()
    plan.note(bool(lacking))


def _stage(wanted, work, plan, lacking, staged):
    """Have files on the disk that come out of the bundle, in the archive's order, each content read once."""
    files = {key: how for key, how in {**work.files(), **plan.files(lacking)}.items() if key not in staged}
    targets = {}
    for key, how in files.items():
        name = key if isinstance(key, str) else plan.members[key[0]]
        targets.setdefault(wanted.index[name].source, {})[key] = how
    staged.expect(len(files))
    for each, content in wanted.contents(targets):
        staged.add(each, content)
    staged.settle()


def _record(placed, wanted, engine):
    """Return (Record as it is to be before anything is written, the one that is there or None)."""
    before = placed.read()
    bindings = wanted.bindings(placed)
    places = {binding.place for binding in bindings if binding.writes} | mounts.written_now(engine, placed.directory)
    places |= set(before.places if before is not None else ())
    whole = any(binding.place == "." for binding in bindings) or "." in places
    return Record(before.members if before is not None else {}, tuple(sorted(places)), whole), before


def _adopted(placed, record, old, store):
    """Return the record with what the bundle of another version would have written, where that lies there."""
    from composeapps.errors import ComposeAppsError

    try:
        index = tree.whole(old, store).contents.index
    except ComposeAppsError:
        return record
    known = record.with_index(index)
    return record._replace(members={name: marks for name, marks in known.members.items() if name not in record.members}
                           | record.members)


def compose_arguments(app, config, engine=None, starting=True):
    """Return docker compose's arguments that name the files it reads: the verified ones.

    Arguments:
        app: the App.
        config: the Config.
        engine: the Engine, for an app that this agent has not placed yet.
        starting: whether containers may be started; then what they mount is looked at once more.

    Raises CorruptError for a place that a container made a link of, or when there are no such files of a version
    whose bundle cannot be read; NotFoundError, EngineError, StorageError.
    """
    placed, found = inputs.of(config, app.ref)
    if found is None:
        if getattr(app, "bundle", None) is None:
            raise CorruptError(f"app {app.ref}: the files that docker compose reads are not there, and the store has "
                               "lost the bundle that they are from")
        with durable.storage_errors(f"writing the compose files of app {app.ref}"):
            found = _prepare(app, config, placed, engine)
    if starting:
        inputs.check_sources(placed, found)
    return inputs.arguments(placed, found)


def _prepare(app, config, placed, engine):
    """Have ready what docker compose reads, and leave the app's directory as it is."""
    from composeapps.store.store import Store

    wanted = _Wanted(app, Store(config.store))
    with placed.opened() as root:
        record, before = _record(placed, wanted, engine)
        plan = _plan(placed, root, wanted, record)
        _write(placed, root, wanted, plan, Work(placed, root, record, wanted.index), plan.missing(), None)
        return plan.inputs


def adopt(app, store, config):
    """Take note of what an app's directory has of a version's bundle, where an older agent unpacked it.

    Raises CorruptError, NotFoundError; OSError.
    """
    placed = Placed(config.compose_root, app.ref.app_name)
    if placed.read() is None and os.path.isdir(placed.directory):
        wanted = _Wanted(app, store)
        with placed.opened() as root:
            record, _before = _record(placed, wanted, None)
            root.make_directories(placed.private, 0o700)
            placed.write(root, record.with_index(wanted.index))


def give_back(name, config, notify=lambda text: None):
    """Take away what the agent placed of an app that never ran well, and put back what was there before it.

    Arguments:
        name: the AppName.
        config: the Config.
        notify: called with a sentence about what stays.

    What a user has changed stays. It can be repeated. Raises OSError.
    """
    placed = Placed(config.compose_root, name)
    if not placed.root.is_dir():
        return
    with beneath.opened(placed.root) as root:
        if root.lstat(placed.private) is None:
            return
        oldtrees.settle(placed, root, None)
        record = placed.read()
        if record is not None:
            _take_ours(placed, root, record)
        _put_back(placed, root, notify)
        _remove_empty(root, str(name))
        # From here on there is no record, and nothing of the agent's that it would tell of.
        with root.parent(placed.private) as (directory, last):
            beneath.remove_tree(directory, last)
        root.sync("")


def _put_back(placed, root, notify):
    base = f"{placed.private}/before"
    for path, found in list(_below(root, base)):
        inner = path[len(base) + 1:]
        target = f"{placed.name}/{inner}"
        if root.lstat(path) is None or stat.S_ISDIR(found.st_mode) and root.is_directory(target):
            continue
        root.make_directories(posixpath.dirname(target), 0o755)
        try:
            with root.parent(path) as (source, old), root.parent(target) as (directory, new):
                beneath.rename(source, old, directory, new, beneath.NO_REPLACE)
                os.fsync(directory)
        except FileExistsError:
            notify(f"{placed.name}: {inner} was changed meanwhile; what was there before is "
                   f"{_keep(placed, root, path, inner)}")


def remove(name, config, others=(), notify=lambda text: None):
    """Remove an app's directory: what the agent placed there, and what is empty then; set the rest aside.

    Arguments:
        name: the AppName.
        config: the Config.
        others: the AppNames of the device's apps; those whose directories lie in this one's keep them.
        notify: called with a sentence about what is set aside, or stays where it is.

    It can be repeated. Raises OSError.
    """
    placed = Placed(config.compose_root, name)
    if not placed.root.is_dir():
        return
    with beneath.opened(placed.root) as root:
        oldtrees.settle(placed, root, None)
        record = placed.read()
        if record is not None:
            _take_ours(placed, root, record)
        inner = {other[len(name) + 1:].split("/")[0] for other in others if name.holds(other)}
        kept = _set_rest_aside(placed, root, inner, notify)
        if root.lstat(f"{placed.private}/before") is not None and _remove_empty(root, f"{placed.private}/before"):
            kept = _keep(placed, root, f"{placed.private}/before", "before", kept)
        if kept:
            notify(f"{name}: what is not of its bundle is now in {placed.root / kept}")
        with contextlib.suppress(FileNotFoundError), root.parent(placed.private) as (directory, last):
            beneath.remove_tree(directory, last)
        parts = name.components
        for count in range(len(parts), 0, -1):
            with contextlib.suppress(OSError), root.parent("/".join(parts[:count])) as (directory, last):
                os.rmdir(last, dir_fd=directory)
        root.sync("")


def _set_rest_aside(placed, root, inner, notify):
    """Move what is left in an app's directory away, but the entries ``inner``; return where to, None for nothing."""
    kept, path = None, str(placed.name)
    found = root.lstat(path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        return _keep(placed, root, path, placed.name.components[-1])
    for entry in root.names(path):
        each = f"{path}/{entry}"
        if entry in inner:
            continue
        if mounts.mounted_at_or_below(placed.root / each):
            notify(f"{placed.name}: {placed.root / each} stays where it is, since a file system is mounted there")
        elif _remove_empty(root, each):
            try:
                kept = _keep(placed, root, each, entry, kept)
            except OSError as err:
                if err.errno not in (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EBUSY):
                    raise
                notify(f"{placed.name}: {placed.root / each} stays where it is ({err.strerror})")
    return kept


def _keep(placed, root, path, name, kept=None):
    """Move something to where what was removed is kept; return that directory, made anew for the first."""
    if kept is None:
        root.make_directory(KEPT, 0o700)
        kept = root.unused(f"{KEPT}/{placed.name.file_stem}")
    root.make_directories(posixpath.dirname(f"{kept}/{name}"), 0o700)
    with root.parent(path) as (source, old), root.parent(root.unused(f"{kept}/{name}")) as (target, new):
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        os.fsync(target)
    return kept


def _take_ours(placed, root, record):
    """Remove the members that are as the agent wrote them, and directories that are empty then."""
    with root.walk() as walk:
        for name in sorted(record.members, reverse=True):
            marks = record.members[name]
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                directory, last = walk.parent(f"{placed.name}/{name}")
                status = os.stat(last, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    with contextlib.suppress(OSError):
                        os.rmdir(last, dir_fd=directory)
                elif found_mark(directory, last, status, marks) in marks \
                        or not marks and not mounts.within(name, record.places):
                    os.unlink(last, dir_fd=directory)


def _remove_empty(root, path):
    """Remove a directory and those in it as far as they are empty; return whether something is left."""
    found = root.lstat(path)
    if found is None:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return True
    inside = []
    for each, status in _below(root, path):
        if not stat.S_ISDIR(status.st_mode) or each.count("/") > path.count("/") + _DEPTH:
            return True
        inside.append(each)
    with root.walk() as walk:
        for each in reversed(inside):
            with contextlib.suppress(OSError):
                directory, last = walk.parent(each)
                os.rmdir(last, dir_fd=directory)
    with contextlib.suppress(OSError), root.parent(path) as (directory, last):
        os.rmdir(last, dir_fd=directory)
    return root.lstat(path) is not None


def _below(root, path):
    """Yield (path, state) of all below a directory of the same file system, a directory before its content."""
    waiting = [path]
    top = root.lstat(path)
    with root.walk() as walk:
        while waiting:
            current = waiting.pop()
            try:
                names = sorted(os.listdir(walk.directory(current)))
            except OSError as err:
                if err.errno not in _GONE:
                    raise
                continue
            for entry in names:
                each = f"{current}/{entry}"
                try:
                    status = walk.lstat(each)
                except OSError as err:
                    if err.errno not in _GONE:
                        raise
                    continue
                if status is None:
                    continue
                yield each, status
                if stat.S_ISDIR(status.st_mode) and status.st_dev == top.st_dev:
                    waiting.append(each)
