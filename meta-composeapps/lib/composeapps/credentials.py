# SPDX-License-Identifier: MIT
"""Who we are to a registry: credentials from the field's authentication files.

Format: containers-auth.json(5), which Docker's config.json shares. Files are read in this
order: the one named (REGISTRY_AUTH_FILE), containers' run-time file, containers' and Docker's
files in the home directory. Within a file the longest matching namespace wins.
"""

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from composeapps.errors import UsageError

_HUB_KEYS = ("docker.io", "https://index.docker.io/v1/", "index.docker.io")


@dataclass(frozen=True)
class Login:
    """A user name and password, or an identity token that is exchanged for bearer tokens."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self):
        """The value of an HTTP ``Authorization`` header for basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def default_files(environ):
    """Return the authentication files to look at, the first match winning.

    A file that the user named is the only one, and must exist.
    """
    if named := environ.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    home = Path(environ.get("HOME") or "/root")
    files = []
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        files.append(Path(runtime, "containers/auth.json"))
    files.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json"))
    files.append(Path(environ.get("DOCKER_CONFIG") or home / ".docker", "config.json"))
    return files


class Credentials:
    """Looks logins up by registry and repository.

    Arguments:
        files: authentication files; None for those of the environment.
        environ: the environment, for tests and for BitBake, whose own is filtered.

    Raises UsageError from ``find`` when a file cannot be read or is malformed.
    """

    def __init__(self, files=None, environ=None):
        environ = os.environ if environ is None else environ
        self._named = files is not None or bool(environ.get("REGISTRY_AUTH_FILE"))
        self._files = default_files(environ) if files is None else [Path(f) for f in files]
        self._loaded = None

    def find(self, host, path):
        """Return the Login for a repository, or None to go without."""
        if self._loaded is None:
            self._loaded = [self._read(file) for file in self._files]
        parts = path.split("/")
        keys = [f"{host}/{'/'.join(parts[:n])}" for n in range(len(parts), 0, -1)]
        keys += _HUB_KEYS if host == "docker.io" else (host, f"https://{host}", f"https://{host}/v1/")
        for file, auths in self._loaded:
            for key in keys:
                if key in auths:
                    return _login(auths[key], file, key)
        return None

    def _read(self, file):
        try:
            value = json.loads(file.read_bytes())
        except FileNotFoundError:
            if self._named:
                raise UsageError(f"the registry authentication file {file} does not exist") from None
            return file, {}
        except OSError as err:
            raise UsageError(f"the registry authentication file {file} cannot be read: {err.strerror}") from None
        except ValueError:
            raise UsageError(f"the registry authentication file {file} is not JSON") from None
        auths = value.get("auths") if isinstance(value, dict) else None
        return file, auths if isinstance(auths, dict) else {}


def _login(entry, file, key):
    """Read one entry; an entry without secrets (a credential helper's) counts as none."""
    if not isinstance(entry, dict):
        raise UsageError(f"{file}: the entry '{key}' is not an object")
    if entry.get("identitytoken"):
        return Login(identity_token=entry["identitytoken"])
    if not entry.get("auth"):
        return None
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError):
        colon = ""
    if not colon:
        raise UsageError(f"{file}: 'auth' of the entry '{key}' is not base64 of USER:PASSWORD")
    return Login(user, password)
