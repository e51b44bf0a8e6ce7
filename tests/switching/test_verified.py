# SPDX-License-Identifier: MIT
"""What a container writes into its app's directory gives it nothing of the host's at the next start."""

import os

import pytest

from composeapps.errors import CorruptError
from composeapps.switching import runtime
from support.device import service

pytestmark = pytest.mark.root

WRITER = service(volumes=[".:/data"])
READER = service(volumes=["${PLACE:-./safe}:/place:ro"], env_file="a.env", secrets=["key"],
                 environment={"FROM": "${WHAT:-nothing}"}, user="1000:1000")
FILES = {"safe/x": "safe", "a.env": "A=of the bundle\n", "key": "secret of the bundle"}


def _again(device, app, name):
    for container in device.containers()[name]:
        device.engine.remove("containers", container["Id"], force="1")
    runtime.start(app, device.states.get(device.name), device.states, device.config)


def _mounted(device, name):
    return {mount["Destination"]: mount["Source"] for mount in device.only(name)["Mounts"]}


@pytest.mark.parametrize("files", (FILES, {**FILES, ".env": "WHAT=bundle\n"}))
def test_no_container_decides_what_compose_reads(device, daemon, files):
    app = device.version({"w": WRITER, "r": READER}, files, secrets={"key": {"file": "./key"}})
    device.apply(None, app)
    said = "bundle" if ".env" in files else "nothing"
    for _ in range(2):
        assert _mounted(device, "r")["/place"] == str(device.directory / "safe")
        # The container's own user gets to read it, who may not look into the directory on the host.
        assert device.sh("r", "cat /place/x /run/secrets/key; echo $A $FROM", daemon) == \
            f"safesecret of the bundleof the bundle {said}\n"
        device.sh("w", "cd /data; printf 'PLACE=/etc\\nWHAT=container\\n' > .env; echo A=container > a.env; rm key; "
                       "ln -s /etc/shadow key; printf 'services: {}' > docker-compose.yml; ls -a", daemon)
        _again(device, app, "r")


def test_a_link_that_a_container_made_is_not_mounted(device, daemon):
    app = device.version({"w": WRITER, "r": service(volumes=["./safe:/place:ro"])}, {"safe/x": "safe"})
    device.apply(None, app)
    device.sh("w", "cd /data; mv safe away; ln -s /etc safe", daemon)
    with pytest.raises(CorruptError, match="safe is a symbolic link that a container may have made"):
        _again(device, app, "r")
    os.unlink(device.directory / "safe")
    os.rename(device.directory / "away", device.directory / "safe")
    runtime.start(app, device.states.get(device.name), device.states, device.config)
    assert device.sh("r", "cat /place/x", daemon) == "safe"
