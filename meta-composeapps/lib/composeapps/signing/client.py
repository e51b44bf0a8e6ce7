# SPDX-License-Identifier: MIT
"""What a build host takes from a repository: one Target, by its name, verified from a root that is given.

By the same rules as a device's, in both dialects.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from composeapps import durable
from composeapps.delivery import refresh
from composeapps.delivery.stored import Stored, version_of
from composeapps.delivery.trust import LIMITS, ROOT, TrustError
from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError

_TIMEOUT = 60


def find(repository, name, root, cache, notify=lambda text: None):
    """Return the Target (composeapps.delivery.selection) of a repository that is verified and not expired.

    Arguments:
        repository: its address, https:// or http://, or a directory.
        name: NAME-VERSION.
        root: the file with a root that is trusted.
        cache: a directory where what was seen is kept, so that a repository that goes back is noticed.
        notify: called with sentences about what is passed over.

    Raises NotFoundError, CorruptError, UsageError, RegistryError, StorageError.
    """
    fetch, trusted = source(repository), read_root(root)
    try:
        found = refresh.refresh(remembered(cache, repository, trusted, notify), fetch, notify)
    except TrustError as err:
        raise CorruptError(f"repository {repository}: {err}") from None
    for target in found.targets:
        if target.name == name:
            if target.problem:
                raise CorruptError(f"Target {name} of {repository}: {target.problem}")
            return target
    raise NotFoundError(f"repository {repository} has no Target {ascii(name[:120])}")


def read_root(path):
    """Return the bytes of a file with a root. Raises NotFoundError, CorruptError."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(LIMITS[ROOT] + 1)
        version_of(data)
    except OSError as err:
        raise NotFoundError(f"root {path} cannot be read: {err.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CorruptError(f"{path} is no root of signed metadata, as 1.root.json of a repository") from None
    return data


def remembered(cache, repository, trusted, notify):
    """Return the Stored of a repository on this machine, which begins with the bytes of a root. Raises StorageError."""
    place = Path(cache) / hashlib.sha256(repository.encode() + b"\0" + trusted).hexdigest()[:32]
    with durable.storage_errors("keeping what was seen of a repository"):
        durable.make_directories(place / "seeds")
        durable.write_file(place / "seeds" / f"{version_of(trusted)}.root.json", trusted)
    return Stored(place / "seen", place / "seeds", "", notify)


def source(repository):
    """Return what gives a repository's files, as composeapps.delivery.refresh asks for them.

    Arguments:
        repository: an address, or a directory.

    Raises NotFoundError.
    """
    try:
        scheme = urlsplit(repository).scheme
    except ValueError:
        scheme = "?"
    if scheme in ("http", "https"):
        return lambda name, limit: _download(f"{repository.rstrip('/')}/{name}", limit)
    if "://" in repository or not Path(repository).is_dir():
        raise NotFoundError(f"{repository} is no directory with a repository, and no http or https address of one")
    return lambda name, limit: _file(Path(repository), name, limit)


def _file(directory, name, limit):
    # Names of roles are quoted, so none of them leads elsewhere.
    path = directory / name
    try:
        with open(path, "rb") as stream:
            return _bounded(stream.read(limit + 1), limit, path)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None


def _download(url, limit):
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            return _bounded(answer.read(limit + 1), limit, url)
    except urllib.error.HTTPError as err:
        if err.code in (403, 404):
            # Object stores that may not be listed say 403 of what they do not have.
            return None
        raise RegistryError(f"{url}: the server answers {err.code} {err.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise RegistryError(f"{url} cannot be fetched: {getattr(err, 'reason', None) or err}") from None


def _bounded(data, limit, what):
    if len(data) > limit:
        raise CorruptError(f"{what} has more than the {limit} bytes allowed")
    return data
