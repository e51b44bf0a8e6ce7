# SPDX-License-Identifier: MIT
"""What a build host takes from a repository: one Target, by its name, verified from a root that is given.

By python-tuf's own client, since nothing here has to last over a power cut, and no clock of a device is involved.
"""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from securesystemslib.exceptions import Error as SigningError
from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater

from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.signing import targets as customs

_LARGEST = 512_000


class _Files(FetcherInterface):
    """Gives the files of a directory, whose "address" is ``file:``."""

    def __init__(self, directory):
        self._directory = directory

    def _fetch(self, url):
        try:
            return iter([(self._directory / url.rpartition("/")[2]).read_bytes()])
        except FileNotFoundError:
            raise DownloadHTTPError("there is no such file", 404) from None
        except OSError as err:
            raise DownloadError(f"{err.filename}: {err.strerror}") from None


def find(repository, name, root, cache):
    """Return the Target (composeapps.signing.targets) of a repository that is verified and not expired.

    Arguments:
        repository: its address, https:// or http://, or a directory.
        name: NAME-VERSION.
        root: the file with a root that is trusted.
        cache: a directory where what was seen is kept, so that a repository that goes back is noticed.

    Raises NotFoundError, CorruptError, UsageError, RegistryError.
    """
    try:
        trusted = Path(root).read_bytes()
    except OSError as err:
        raise NotFoundError(f"root {root} cannot be read: {err.strerror}") from None
    if len(trusted) > _LARGEST:
        raise CorruptError(f"root {root} has more than {_LARGEST} bytes")
    try:
        scheme = urlsplit(repository).scheme
    except ValueError:
        scheme = "?"
    if scheme in ("http", "https"):
        address, fetcher = repository.rstrip("/") + "/", None
    elif "://" in repository or not Path(repository).is_dir():
        raise NotFoundError(f"{repository} is no directory with a repository, and no http or https address of one")
    else:
        address, fetcher = "file:/", _Files(Path(repository))
    seen = Path(cache) / hashlib.sha256(repository.encode() + b"\0" + trusted).hexdigest()[:32]
    try:
        seen.mkdir(parents=True, exist_ok=True)
        updater = Updater(str(seen), address, fetcher=fetcher, bootstrap=trusted)
        updater.refresh()
        found = updater.get_targetinfo(name)
    except DownloadError as err:
        raise RegistryError(f"repository {repository}: {err}") from None
    except ExpiredMetadataError as err:
        raise CorruptError(f"repository {repository}: {err}: have it renewed, 'composeapps target renew'") from None
    except (RepositoryError, SigningError, ValueError) as err:
        raise CorruptError(f"repository {repository} is not what the root {root} vouches for: "
                           f"{str(err).splitlines()[0]}") from None
    except OSError as err:
        raise UsageError(f"{err.filename or seen}: {err.strerror}") from None
    if found is None:
        raise NotFoundError(f"repository {repository} has no Target {ascii(name[:120])}")
    target = customs.read(name, found, "the repository")
    if target.path != name:
        raise CorruptError(f"Target {name} calls itself {target.path}: refused")
    return target
