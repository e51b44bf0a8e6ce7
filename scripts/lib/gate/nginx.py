# SPDX-License-Identifier: MIT
"""nginx as a factory's server: a device's certificate is asked for, files are static, blobs come from the registry.

What it answers is what composeapps.delivery asks for: metadata below /repo, a place for blobs at /app-proxy-url, and
reports, which it writes into a file, one JSON object a line.
"""

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import hostsetup
from composeapps import durable
from composeapps.errors import RegistryError

START_SECONDS = 30

_CONFIGURATION = """\
daemon off;
master_process off;
pid {run}/nginx.pid;
error_log {log} warn;
events {{ worker_connections 512; }}
http {{
    server_tokens off;
    default_type application/octet-stream;
    types {{ application/json json; }}
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi;
    scgi_temp_path {run}/scgi;
    # The query is left out: it has the token.
    log_format requests escape=json '{{"time":"$time_iso8601","device":"$ssl_client_s_dn","method":"$request_method",'
        '"path":"$uri","status":$status,"bytes":$bytes_sent,"connection":$connection,"tag":"$http_x_ats_tags",'
        '"target":"$http_x_ats_target"}}';
    log_format reports escape=json '{{"time":"$time_iso8601","device":"$ssl_client_s_dn","path":"$uri",'
        '"body":"$request_body"}}';
    map $status $is_taken {{ 200 1; default 0; }}
    access_log {requests} requests;

    # Takes what devices report: to pass it on is what makes nginx read it.
    server {{
        listen unix:{run}/sink;
        access_log off;
        location / {{ return 200; }}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {pki}/server.crt;
        ssl_certificate_key {pki}/server.key;
        ssl_client_certificate {pki}/devices.crt;
        # Blobs come with a token instead, as from the server that this one stands for.
        ssl_verify_client optional;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets off;
        keepalive_timeout 75s;

        location /repo/ {{
            if ($ssl_client_verify != SUCCESS) {{ return 403 "no certificate of a device"; }}
            limit_except GET {{ deny all; }}
            alias {repository}/;
        }}
        location = /app-proxy-url {{
            if ($ssl_client_verify != SUCCESS) {{ return 403 "no certificate of a device"; }}
            default_type text/plain;
            return 201 "https://$host:{port}/registry?token={token}";
        }}
        location /registry/v2/ {{
            # What it says of errors has the query, and so the token.
            error_log {log} crit;
            if ($arg_token != "{token}") {{ return 401 "no token, or an old one"; }}
            limit_except GET {{ deny all; }}
            proxy_pass {registry}/v2/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
        location = /config {{
            if ($ssl_client_verify != SUCCESS) {{ return 403 "no certificate of a device"; }}
            return 204;
        }}
        location ~ ^/(events|apps-states|system_info(/[a-z]+)?)$ {{
            if ($ssl_client_verify != SUCCESS) {{ return 403 "no certificate of a device"; }}
            client_max_body_size 100k;
            client_body_buffer_size 128k;
            client_body_in_single_buffer on;
            access_log {requests} requests;
            access_log {reports} reports if=$is_taken;
            proxy_pass http://unix:{run}/sink;
        }}
        location / {{
            if ($ssl_client_verify != SUCCESS) {{ return 403 "no certificate of a device"; }}
            return 404;
        }}
    }}
}}
"""


def program():
    """Return the path of nginx. Raises RegistryError when it is not there."""
    path = f"{hostsetup.TOOLS / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin"
    found = shutil.which("nginx", path=path)
    if not found:
        raise RegistryError("nginx is not there: scripts/factory up and scripts/test fetch it")
    return os.path.abspath(found)


class Nginx:
    """nginx below ``directory``, on a port of loopback.

    Arguments:
        directory: for its configuration, logs and sockets.
        pki: the Pki.
        repository: the directory of the signed metadata.
        registry: where the registry listens, ``http://127.0.0.1:PORT``.
        token: what opens the registry, until the next start.
    """

    def __init__(self, directory, pki, repository, registry, token):
        self.directory, self._pki, self._repository = directory, pki, repository
        self._registry, self._token = registry, token
        self.log, self.requests, self.reports = (directory / f"{name}.log" for name in (
            "error", "requests", "reports"))

    def start(self, port, mark):
        """Start it, and return when it answers.

        Arguments:
            port: of 127.0.0.1.
            mark: an open file, see hub.held: nginx has it open as long as it runs, its process id in it.

        Raises RegistryError.
        """
        run = self.directory / "run"
        durable.make_directories(run, mode=0o700)
        (run / "sink").unlink(missing_ok=True)
        if len(os.fsencode(run / "sink")) > 100:
            raise RegistryError(f"the path {run} is too long for a socket: set COMPOSEAPPS_BUILD to a shorter one")
        values = {"run": run, "log": self.log, "requests": self.requests, "reports": self.reports,
                  "pki": self._pki.directory, "repository": self._repository}
        for name, path in values.items():
            if any(char in str(path) for char in "\"'\\{};$ \n"):
                raise RegistryError(f"{name} lies at {str(path)!a}, which nginx cannot be told: set COMPOSEAPPS_BUILD "
                                    "to a path of letters and digits")
        text = _CONFIGURATION.format(**values, port=port, token=self._token, registry=self._registry)
        configuration = run / "nginx.conf"
        durable.write_file(configuration, text.encode(), 0o600)
        self.log.write_bytes(b"")
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", 'echo $$ >"$0" && exec "$@"', f"/proc/self/fd/{mark.fileno()}", program(), "-p", str(run),
                 "-e", str(self.log), "-c", str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/", pass_fds=[mark.fileno()])
        try:
            self._wait(process, port)
        except BaseException:
            process.kill()
            process.wait()
            raise

    def _wait(self, process, port):
        deadline = time.monotonic() + START_SECONDS
        while not self.answers(port):
            if process.poll() is not None:
                lines = self.log.read_text(errors="replace").strip().splitlines()
                raise RegistryError(f"nginx ended at once: {lines[-1] if lines else 'it wrote nothing'} ({self.log})")
            if time.monotonic() > deadline:
                raise RegistryError(f"nginx did not answer within {START_SECONDS} s, see {self.log}")
            time.sleep(0.01)

    def answers(self, port):
        """Tell whether it answers, as a server of this factory; without a device's certificate it says 403."""
        context = ssl.create_default_context(cafile=self._pki.root)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                             urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(f"https://127.0.0.1:{port}/", timeout=5):
                return False
        except urllib.error.HTTPError as err:
            return err.code == 403
        except OSError:
            return False

    def last_reports(self, count=10):
        """Return the last reports, each a dict with "time", "device", "path" and "body"; [] for none."""
        try:
            with open(self.reports, "rb") as stream:
                stream.seek(max(os.fstat(stream.fileno()).st_size - 200_000, 0))
                lines = stream.read().splitlines()[-count:]
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                # What was cut in the middle.
                continue
        return found
