# SPDX-License-Identifier: MIT
"""Old-style apps: reading a Docker App (``.dockerapp``) or an unpinned compose directory, and converting it.

Format of a Docker App: one YAML file of three documents, metadata, compose file and parameters,
or a directory with ``metadata.yml``, ``docker-compose.yml`` and ``parameters.yml``, which older
ones call ``settings.yml``. Each ``${parameter}`` in a text of the compose file stands for the
parameter's value; the names of nested parameters have dots, and what the metadata says has names
that begin with ``app.``. Takes PyYAML.
"""

import os
import re
import shutil
import stat
from pathlib import Path
from typing import NamedTuple

from composeapps import COMPOSE_FILE, beneath, durable
from composeapps.app import bundle, compose, filerefs, pinning, rendering, yamltext
from composeapps.errors import NotFoundError, UsageError

SUFFIX = ".dockerapp"
DOCKERAPP, COMPOSE = "dockerapp", "compose"
METADATA, PARAMETERS, SETTINGS = "metadata.yml", "parameters.yml", "settings.yml"
MAX_FILE = 1024 * 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class OldApp(NamedTuple):
    """An old-style app.

    ``name`` is its name; ``kind`` DOCKERAPP or COMPOSE; ``path`` the file or directory that was read;
    ``files`` the directory whose other files belong to it, or None; ``metadata`` and ``parameters`` are
    mappings, the latter with dotted names; ``compose`` is the compose file, parsed, with its variables.
    """

    name: str
    kind: str
    path: Path
    files: Path | None
    metadata: dict
    parameters: dict
    compose: dict


def read(path):
    """Read an old-style app.

    Arguments:
        path: a ``.dockerapp`` file or directory, a directory that has one of them, or a directory with a
            docker-compose.yml.

    Raises NotFoundError, UsageError naming the file at fault.
    """
    path = Path(path)
    if path.is_dir() and path.suffix != SUFFIX:
        found = sorted(path.glob(f"*{SUFFIX}"))
        if len(found) > 1:
            raise UsageError(f"{path} has {len(found)} Docker Apps; name one: {', '.join(map(str, found))}")
        if not found:
            return _compose_directory(path)
        return _dockerapp(found[0], path)
    return _dockerapp(path, None)


def _compose_directory(path):
    value = compose.check(_mapping(_bytes(path / COMPOSE_FILE), path / COMPOSE_FILE), str(path / COMPOSE_FILE))
    return OldApp(_name(path.resolve().name, path), COMPOSE, path, path, {}, {}, value)


def _dockerapp(path, files):
    if path.is_dir():
        parts = [(path / name, _bytes(path / name)) for name in (METADATA, COMPOSE_FILE)]
        given = next((place for name in (PARAMETERS, SETTINGS) if (place := path / name).exists()), None)
        parts.append((given or path / PARAMETERS, _bytes(given) if given else b""))
    else:
        texts = _documents(_bytes(path), path)
        parts = [(path, text) for text in texts]
    metadata, value, parameters = (_mapping(data, f"{file}: the {what}") for (file, data), what in
                                   zip(parts, ("metadata", "compose file", "parameters"), strict=True))
    # Checked as a compose file, by the words that other commands use.
    compose.check(value, f"{parts[1][0]}: the compose file")
    name = metadata.get("name") or path.name.removesuffix(SUFFIX)
    return OldApp(_name(str(name), path), DOCKERAPP, path, files or (path if path.is_dir() else None), metadata,
                  dict(rendering.flat(parameters)), value)


def _documents(data, path):
    """Split a file into its three YAML documents."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a Docker App: it is no text") from None
    parts = [[]]
    for number, line in enumerate(text.splitlines(keepends=True)):
        if re.match(r"---(\s|$)", line):
            # Errors then name the line of the file.
            parts.append(["\n" * number, line[3:]])
        else:
            parts[-1].append(line)
    documents = ["".join(lines) for lines in parts]
    if _is_empty(documents[0]):
        documents = documents[1:]
    while len(documents) > 3 and _is_empty(documents[-1]):
        documents.pop()
    if len(documents) not in (2, 3):
        raise UsageError(f"{path} is not a Docker App: it has {len(documents)} YAML documents, not the three for "
                         "metadata, compose file and parameters")
    return [document.encode() for document in (*documents, "")[:3]]


def _is_empty(document):
    """Tell whether there is nothing in a document but comments and its end mark."""
    return not re.sub(r"(?m)^[^\S\n]*#.*$|^\.\.\.\s*$", "", document).strip()


def _bytes(path):
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no file")
        if path.stat().st_size > MAX_FILE:
            raise UsageError(f"{path} has more than {MAX_FILE} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None


def _mapping(data, what):
    found = yamltext.read(data, str(what), source=True)
    if len(found) > 1:
        raise UsageError(f"{what} has {len(found)} YAML documents, where one is expected")
    value = found[0] if found and found[0] is not None else {}
    if not isinstance(value, dict):
        raise UsageError(f"{what} is not a mapping")
    return yamltext.plain(value, what)


def _name(text, path):
    if not _NAME.fullmatch(text):
        raise UsageError(f"{path}: '{text}' is not an app's name: lower-case letters, digits, '.', '_' and '-'")
    return text


def render(app, parameters=None):
    """Return an app's compose file, parsed, with its parameters filled in.

    Arguments:
        app: an OldApp.
        parameters: {dotted name: text} that go before the app's own.

    What is no parameter and is written as an ordinary variable of compose with a default stays for the device.
    Raises UsageError naming a parameter without a value, or one that was given and that there is not.
    """
    given = parameters or {}
    if app.kind == COMPOSE:
        return rendering.fill(app.compose, given, False)[0] if given else app.compose
    own = {f"app.{name}": entry for name, entry in rendering.flat(app.metadata)}
    values = {**own, **app.parameters, **given}
    known = {*own, *app.parameters, *rendering.used(app.compose)}
    unknown = sorted(set(given) - known)
    if unknown:
        have = ", ".join(sorted(known - set(own))) or "none"
        raise UsageError(f"{app.path} has no parameter '{unknown[0]}'; its parameters: {have}")
    value, missing = rendering.fill(app.compose, values, True)
    if missing:
        raise UsageError(f"{app.path}: no value for the parameter{'s' if len(missing) > 1 else ''} "
                         f"{', '.join(sorted(missing))}: give one with --set NAME=VALUE")
    return rendering.enabled(value, str(app.path))


def convert(app, output, parameters=None):
    """Write an app as a directory that ``composeapps publish`` takes.

    Arguments:
        app: an OldApp.
        output: the directory, which must not exist.
        parameters: as for ``render``.

    It appears when it is complete. Files beside the app's definition are taken along, with their modes; of an app
    that is one file there are none, and they may be added. Returns sentences about what docker compose will make.
    Raises UsageError for what an app's directory cannot hold or lacks, StorageError.
    """
    output, said = Path(output), []
    if os.path.lexists(output):
        raise UsageError(f"{output} exists already: name another directory with --output")
    if app.files is not None and output.resolve().is_relative_to(app.files.resolve()):
        raise UsageError(f"{output} lies in {app.files}, which is to be converted: name another with --output")
    value = render(app, parameters)
    filerefs.check_confined(value, str(app.path))
    # It says nothing to docker compose any more but draws a warning.
    data = pinning.dump({key: entry for key, entry in value.items() if key != "version"})
    staging = output.with_name(f".staging-{output.name}-{os.getpid()}")
    with durable.storage_errors(f"writing {output}"):
        durable.make_directories(output.parent)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            if app.files is not None:
                _copy(app.files, staging)
            (staging / COMPOSE_FILE).unlink(missing_ok=True)
            durable.write_file(staging / COMPOSE_FILE, data)
            if app.files is not None:
                said = filerefs.check_bundled(value, bundle.entries(staging), str(app.path))
            _sync(staging)
            # No rename replaces a directory that has something in it.
            os.rename(staging, output)
            durable.fsync_directory(output.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return said


def _copy(source, target):
    """Copy what lies in a directory, which a container may change meanwhile: nothing is reached through a link."""
    with beneath.opened(source) as root:
        _copy_below(root, "", Path(source), target)


def _copy_below(root, prefix, source, target):
    with root.directory(prefix) as directory:
        names = sorted(os.listdir(directory))
    for name in names:
        inner, path, place = f"{prefix}/{name}".lstrip("/"), source / name, target / name
        if name.endswith(SUFFIX) or (source.suffix == SUFFIX and name in (METADATA, PARAMETERS, SETTINGS)):
            continue
        with root.parent(inner) as (directory, last):
            mode = os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                leads = os.readlink(last, dir_fd=directory)
                if os.path.isabs(leads) or not Path(os.path.realpath(path)).is_relative_to(root.path):
                    raise UsageError(f"{path} is a link to '{leads}', outside {root.path}: an app cannot hold it")
                place.symlink_to(leads)
            elif stat.S_ISREG(mode):
                with open(beneath.open_file(directory, last), "rb") as content, open(place, "xb") as out:
                    os.fchmod(out.fileno(), stat.S_IMODE(mode))
                    shutil.copyfileobj(content, out)
            elif not stat.S_ISDIR(mode):
                raise UsageError(f"{path} is neither a file, a directory nor a symbolic link: an app cannot hold it")
        if stat.S_ISDIR(mode):
            place.mkdir()
            _copy_below(root, inner, path, place)
            place.chmod(stat.S_IMODE(mode))


def _sync(directory):
    for path in sorted(directory.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            durable.fsync_directory(path)
        elif path.is_file() and not path.is_symlink():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
    durable.fsync_directory(directory)
