# SPDX-License-Identifier: MIT
"""Who we are to a registry: credentials from the field's authentication files and helpers.

Format: containers-auth.json(5), which Docker's config.json shares. Files are read in this
order: the one named (REGISTRY_AUTH_FILE), containers' run-time file, containers' and Docker's
files in the home directory. Within a file a helper that ``credHelpers`` names for the registry
comes first, then the longest matching namespace of ``auths``, then the helper of ``credsStore``.

A helper is a program docker-credential-NAME that is given the registry on standard input with
the argument "get" and prints ``{"Username", "Secret"}``; a user called <token> means that the
secret is an identity token (docker-credential-helpers' protocol).
"""

import base64
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

from composeapps.errors import RegistryError, UsageError
from composeapps.registry.texts import clean

# Seconds that a credential helper may take.
HELPER_SECONDS = 60
# What a program may be called; no path.
_HELPER = re.compile(r"[\w.+-]{1,100}")
_HUB_SERVER = "https://index.docker.io/v1/"
_HUB_KEYS = ("docker.io", "https://index.docker.io/v1/", "index.docker.io")


class Login(NamedTuple):
    """A user name and password, or an identity token that is exchanged for bearer tokens."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self):
        return f"Login(username={self.username!r})"

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
    """Looks logins up by registry and repository; may be used by several threads.

    Arguments:
        files: authentication files; None for those of the environment.
        environ: the environment, for tests and for BitBake, whose own is filtered.
        settings: {registry host: RegistrySettings}, whose helper or file is the only one asked.

    Raises UsageError from ``find`` when a file cannot be read or is malformed, or a helper is missing;
    RegistryError when a helper fails.
    """

    def __init__(self, files=None, environ=None, settings=None):
        self._environ = os.environ if environ is None else environ
        self._named = files is not None or bool(self._environ.get("REGISTRY_AUTH_FILE"))
        self._files = default_files(self._environ) if files is None else [Path(f) for f in files]
        self._settings = settings or {}
        self._loaded, self._helped = {}, {}
        self._lock = threading.Lock()

    def find(self, host, path):
        """Return the Login for a repository, or None to go without."""
        with self._lock:
            own = self._settings.get(host)
            if own is not None and own.credential_helper:
                return self._help(own.credential_helper, host)
            files = [own.auth_file] if own is not None and own.auth_file else self._files
            return self._find(files, host, path, bool(own is not None and own.auth_file) or self._named)

    def _find(self, files, host, path, required):
        parts = path.split("/")
        keys = [f"{host}/{'/'.join(parts[:n])}" for n in range(len(parts), 0, -1)]
        servers = _HUB_KEYS if host == "docker.io" else (host, f"https://{host}", f"https://{host}/v1/")
        keys += servers
        for file in files:
            if file not in self._loaded:
                self._loaded[file] = self._read(file, required)
            auths, helpers, store = self._loaded[file]
            if name := next((helpers[key] for key in servers if key in helpers), None):
                return self._help(name, host)
            key = next((key for key in keys if key in auths), None)
            login = _login(auths[key], file, key) if key else None
            if login is None and store:
                login = self._help(store, host)
            if login is not None or key:
                return login
        return None

    def _help(self, name, host):
        if (name, host) not in self._helped:
            self._helped[name, host] = _ask_helper(name, _HUB_SERVER if host == "docker.io" else host, self._environ)
        return self._helped[name, host]

    @staticmethod
    def _read(file, required):
        """Return (auths, helpers of registries, helper of all others) of a file."""
        try:
            value = json.loads(file.read_bytes())
        except FileNotFoundError:
            if required:
                raise UsageError(f"the registry authentication file {file} does not exist") from None
            return {}, {}, ""
        except OSError as err:
            raise UsageError(f"the registry authentication file {file} cannot be read: {err.strerror}") from None
        except (ValueError, RecursionError):
            raise UsageError(f"the registry authentication file {file} is not JSON") from None
        auths, helpers, store = (
            found if isinstance(found := value.get(key) if isinstance(value, dict) else None, kind) else kind()
            for key, kind in (("auths", dict), ("credHelpers", dict), ("credsStore", str)))
        if not all(isinstance(name, str) for name in helpers.values()):
            raise UsageError(f"the registry authentication file {file} names a credential helper that is no text")
        return auths, helpers, store


def _ask_helper(name, server, environ):
    """Run docker-credential-NAME; return its Login, or None when it knows none for ``server``."""
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environ.get("PATH") or os.defpath) if _HELPER.fullmatch(name) else None
    if path is None:
        raise UsageError(f"the credential helper {program} for registry {server} is not installed")
    try:
        done = subprocess.run([path, "get"], input=server.encode(), capture_output=True, timeout=HELPER_SECONDS,
                              check=False, env=dict(environ))
    except subprocess.TimeoutExpired:
        raise RegistryError(f"the credential helper {program} did not answer in {HELPER_SECONDS} s") from None
    except OSError as err:
        raise RegistryError(f"the credential helper {program} cannot be run: {err.strerror}") from None
    if done.returncode:
        # By the protocol, what went wrong is told on standard output, secrets only by success.
        text = clean((done.stdout or done.stderr).decode(errors="replace").strip().partition("\n")[0])
        if "not found" in text:
            return None
        raise RegistryError(f"the credential helper {program} failed for registry {server}: "
                            f"{text or 'it gave no reason'}")
    try:
        value = json.loads(done.stdout)
        user, secret = value["Username"], value["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError(f"the credential helper {program} printed no login for registry {server}") from None
    return Login(identity_token=secret) if user == "<token>" else Login(user, secret)


def _login(entry, file, key):
    """Read one entry; an entry without secrets (a credential helper's) counts as none."""
    if not isinstance(entry, dict):
        raise UsageError(f"{file}: the entry '{key}' is not an object")
    if not isinstance(entry.get("identitytoken", ""), str):
        raise UsageError(f"{file}: 'identitytoken' of the entry '{key}' is no text")
    if entry.get("identitytoken"):
        return Login(identity_token=entry["identitytoken"])
    if not entry.get("auth"):
        return None
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (ValueError, TypeError):
        colon = ""
    if not colon:
        raise UsageError(f"{file}: 'auth' of the entry '{key}' is not base64 of USER:PASSWORD")
    return Login(user, password)
