# SPDX-License-Identifier: MIT
"""Run Debian's docker-registry on a loopback port: as a child process, or as one that lasts.

Stdlib-only. Where no port is asked for, the registry binds port 0 and logs the address that the
kernel gave it, so no port is guessed, and none can be taken by another process in between.
"""

import contextlib
import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import hostsetup
from composeapps.errors import RegistryError

DEMO_HOST = "hub.demo.test"

START_SECONDS = 30
STOP_SECONDS = 5


class LocalRegistry:
    """One docker-registry serving ``storage``; a context manager.

    The process dies with the thread that started it, however that ends, unless it is to last.

    :param storage: directory of the registry's data, made when missing, kept afterwards
    :param host: the registry name that apps use in references (see ``endpoint``)
    :param auth: the ``auth`` section of the registry's configuration, or None for open access
    :param tls: ``(certificate, key)`` paths of PEM files to serve HTTPS with, or None for HTTP
    :param ca_file: PEM file with which a client can verify ``tls``
    :param log: file that takes the registry's log; default ``registry.log`` beside the storage
    :param listen: the address of this machine at which it listens
    :param port: the port at which it listens, 0 for a free one
    :param lasting: None, or an open file for a process that outlives this one: the process has the file open
        as long as it runs, and writes its id into it before it becomes the registry
    """

    def __init__(self, storage, host=DEMO_HOST, auth=None, tls=None, ca_file=None, log=None, listen="127.0.0.1",
                 port=0, lasting=None):
        self.storage = Path(storage)
        self.host = host
        self.ca_file = ca_file
        self.log = Path(log) if log else self.storage.with_name(self.storage.name + ".log")
        self.address = None
        self._auth = auth
        self._tls = tls
        self._listen = listen
        self._port = port
        self._lasting = lasting
        self._process = None

    @property
    def url(self):
        """Where the registry listens, e.g. ``http://127.0.0.1:40123``."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    @property
    def endpoint(self):
        """The ``host=url`` pair for COMPOSEAPPS_ENDPOINTS, ``--endpoint`` and OCI_ENDPOINTS."""
        return f"{self.host}={self.url}"

    def blob_path(self, digest):
        """Return the file in the storage that holds the blob or manifest ``digest`` ("sha256:…")."""
        hexa = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / hexa[:2] / hexa / "data"

    def start(self):
        """Start the registry and return when it answers.

        :raises RegistryError: docker-registry is not installed, refuses its configuration,
            or does not answer within 30 seconds
        """
        path = f"{hostsetup.TOOLS / 'bin'}:{os.environ.get('PATH', '')}:/usr/bin"
        program = shutil.which("docker-registry", path=path)
        if not program:
            raise RegistryError("docker-registry is not there: scripts/demo and scripts/test fetch it")
        self.storage.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # The registry takes each REGISTRY_* variable as a setting, so REGISTRY_AUTH_FILE would break it.
        env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        try:
            with open(self.log, "wb") as log:
                # The configuration holds a secret and goes through a pipe: no file of it is left behind.
                self._process = subprocess.Popen(
                    [*self._launcher(), os.path.abspath(program), "serve", "/dev/stdin"],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True,
                    # What lasts keeps no directory of whoever started it from being unmounted.
                    cwd="/" if self._lasting else None,
                    pass_fds=[self._lasting.fileno()] if self._lasting else (),
                )
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(json.dumps(self._config()).encode())
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        """End the registry; safe to call twice."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            self.address = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc_info):
        self.stop()

    def _launcher(self):
        if not self._lasting:
            return ["setpriv", "--pdeathsig", "KILL"]
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', f"/proc/self/fd/{self._lasting.fileno()}"]

    def _config(self):
        http = {"addr": f"{self._listen}:{self._port}", "secret": secrets.token_hex(16)}
        if self._tls:
            http["tls"] = {"certificate": str(self._tls[0]), "key": str(self._tls[1])}
        config = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage.resolve())},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http,
        }
        if self._auth:
            config["auth"] = self._auth
        return config

    def _wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while not (self.address and self._answers()):
            if self._process.poll() is not None:
                raise RegistryError(f"docker-registry ended at once: {self._last_log_line()} ({self.log})")
            if time.monotonic() > deadline:
                raise RegistryError(f"docker-registry did not answer within {START_SECONDS} s, see {self.log}")
            time.sleep(0.01)
            self.address = self.address or self._logged_address()

    def _logged_address(self):
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, AttributeError):
                message = json.loads(line).get("msg", "")
                if message.startswith("listening on "):
                    return message.removeprefix("listening on ").removesuffix(", tls")
        return None

    def _last_log_line(self):
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def _answers(self):
        # Only tells whether it is up: the address is our own child's, so its certificate proves nothing more.
        context = ssl._create_unverified_context() if self._tls else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.url}/v2/", timeout=5):
                return True
        except urllib.error.HTTPError as err:
            return err.code == 401
        except OSError:
            return False
