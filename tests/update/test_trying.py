# SPDX-License-Identifier: MIT
"""``scripts/factory try`` with a double of the update server: the whole way, and what it says when something is odd."""

import json
import ssl
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from composeapps.cli.main import main
from composeapps.errors import RegistryError
from gate.trying import Trial
from support import pki
from support.metadata import Repository
from support.updateserver import UpdateServer
from support.updating import WELL, service

pytestmark = pytest.mark.root


class Rest(BaseHTTPRequestHandler):
    """The server's REST API, plain HTTP as in its own quick start; ``of`` is {name: value} of what it stands before."""

    of = {}

    def log_message(self, *_args):
        pass

    def _answer(self, number, body=b"{}"):
        self.send_response(number)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        server = self.of["server"]
        if self.path == "/v1/tuf/root.json":
            return self._answer(200, self.of["root"])
        device = self.path.rpartition("/")[2]
        told = [request.headers["x-ats-target"] for request in server.requests
                if request.device == device and "x-ats-target" in request.headers]
        return self._answer(200, json.dumps({"uuid": device, "target": told[-1] if told else ""}).encode())

    def do_POST(self):
        context = ssl.create_default_context(cadata=self.of["server"].factory.root.pem)
        request = urllib.request.Request(f"{self.of['server'].url}{self.path}", self._body(), {
            "Authorization": self.headers["Authorization"], "Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=context) as answer:
            self._answer(answer.status, answer.read())

    def do_PUT(self):
        update = self.path.split("/")[4]
        if update not in self.of["updates"]:
            self._body()
            return self._answer(404)
        for device in json.loads(self._body())["uuids"]:
            self.of["server"].roll_out(device, "main", update, self.of["updates"][update])
        return self._answer(202)


@pytest.fixture
def trial(device, dockerd, publisher, tmp_path, name, monkeypatch):
    """Makes a Trial of a server with the updates v1 and v2 of one app."""
    repository, updates = Repository("ats", pki.now()), {}
    for number in (1, 2):
        uri = publisher.version(name, {"web": service(str(number), healthcheck=WELL)})
        assert main(["pull", uri, "--store", str(tmp_path / "served"), "--state-dir", str(tmp_path / "other")]) == 0
        repository.add(number, {name: uri}, hardware=("intel",))
        repository.publish()
        updates[f"v{number}"] = dict(repository.files)
    monkeypatch.delenv("COMPOSEAPPS_ENDPOINTS")
    with UpdateServer(pki.Factory()) as server:
        server.stores.append(tmp_path / "served")
        handler = type("Handler", (Rest,), {"of": {"server": server, "root": repository.files["1.root.json"],
                                                   "updates": updates}})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as rest:
            threading.Thread(target=rest.serve_forever, daemon=True).start()
            (tmp_path / "token").write_text(f"{server.token}\n")
            told = []
            yield Trial(dockerd.directory / f"try{name}", f"http://127.0.0.1:{rest.server_port}", server.url,
                        tmp_path / "token", "testfactory", "main", "intel", dockerd.host, told.append,
                        f"soak_time = 0\ncompose_command = {json.dumps(list(dockerd.compose_command))}"), server, told
            rest.shutdown()


def test_the_whole_way_with_an_update_server(trial, device):
    trying, server, told = trial
    done = trying.run(["v1", "v2"], 30)
    assert done["targets"] == ["device-1", "device-2"]
    assert [each.partition(":")[0] for each in told if ":" in each and not each.startswith("its root")] == [
        "registered", "checked in", "installed device-1", "installed device-2", "refused the older one",
        "went back by hand", "reported"]
    assert "version goes back" in " ".join(told)
    kinds = [each["eventType"]["id"] for each in server.events[trying.device]]
    assert kinds.count("EcuInstallationCompleted") >= 2
    with pytest.raises(RegistryError, match="answers 404 when it is asked for the update v9"):
        trying.run(["v9", "v2"], 1)
