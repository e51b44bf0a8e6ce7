# SPDX-License-Identifier: MIT
"""Real docker-registries as the tests want them: open, with a password, with tokens, with TLS."""

import base64
import json
import os
from contextlib import contextmanager
from pathlib import Path

import bcrypt

from factory.localregistry import LocalRegistry
from support.certificates import make_server_certificate
from support.tokenserver import TokenServer

USER, PASSWORD = "tester", "s3cret:with/odd chars"


class Registry(LocalRegistry):
    """A LocalRegistry that knows its test account.

    ``user`` and ``password`` are None for an open registry; ``auth_file`` is the path of a
    REGISTRY_AUTH_FILE (the JSON that ``docker login`` writes) with that account, or None;
    ``tokens`` is the TokenServer behind it, or None.
    """

    user = password = auth_file = tokens = None

    def authorization(self, repo, *actions):
        """Return the Authorization header that allows ``actions`` on ``repo``, or None when none is needed."""
        if self.tokens:
            access = [{"type": "repository", "name": repo, "actions": list(actions)}]
            return "Bearer " + self.tokens.mint(self.user, access)
        if self.user:
            return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return None

    def _take_account(self, directory):
        self.user, self.password = USER, PASSWORD
        self.auth_file = write_auth_file(Path(directory) / "auth.json", self.host, USER, PASSWORD)


def write_auth_file(path, host, user, password):
    """Write a REGISTRY_AUTH_FILE for one registry, readable by its owner only, and return its path."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as stream:
        json.dump({"auths": {host: {"auth": pair}}}, stream)
    return path


@contextmanager
def open_registry(directory, **options):
    """A registry that asks for nothing, its data in ``directory``."""
    with Registry(Path(directory) / "registry", **options) as registry:
        yield registry


@contextmanager
def password_registry(directory, **options):
    """A registry with basic authentication for everything."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    htpasswd = directory / "htpasswd"
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds=4)).decode()
    htpasswd.write_text(f"{USER}:{hashed}\n")
    auth = {"htpasswd": {"realm": "composeapps tests", "path": str(htpasswd)}}
    registry = Registry(directory / "registry", auth=auth, **options)
    registry._take_account(directory)
    with registry:
        yield registry


@contextmanager
def token_registry(directory, anonymous_pull=False, **options):
    """A registry that sends clients to a token server."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with TokenServer(directory / "tokens", USER, PASSWORD, anonymous_pull) as tokens:
        registry = Registry(directory / "registry", auth=tokens.registry_auth, **options)
        registry.tokens = tokens
        registry._take_account(directory)
        with registry:
            yield registry


@contextmanager
def tls_registry(directory, **options):
    """A registry behind HTTPS; clients verify it with ``ca_file``."""
    pem = make_server_certificate(Path(directory) / "pki")
    registry = Registry(
        Path(directory) / "registry", tls=(pem.certificate, pem.key), ca_file=pem.ca, **options
    )
    with registry:
        yield registry
