# SPDX-License-Identifier: MIT
"""Texts that others write are read in proportion to their length, by each command that reads them.

They are so long that who takes the square of them would need many minutes of CPU; then the kernel ends the command.
"""

import json

import pytest

from support.apps import make_app
from support.images import make_image
from support.stores import write

pytestmark = [pytest.mark.root, pytest.mark.slow]

LENGTH = 500_000
# Of CPU; one such text takes about one.
SECONDS = 60
PIECES = ("a", "a/", "${", "$a", "a:", "@sha256:", "a.", " a", "\\", "[")
# Where in a service a text may stand; "TEXT" stands for it.
PLACES = {
    "value": {"environment": {"A": "TEXT"}}, "entry": {"environment": ["TEXT"]},
    "label": {"labels": {"a": "TEXT"}}, "command": {"command": ["TEXT"]},
    "words": {"command": "TEXT"}, "volume": {"volumes": ["TEXT"]}, "source": {"volumes": [
        {"type": "bind", "source": "TEXT", "target": "/a"}]}, "port": {"ports": ["TEXT"]},
    "env_file": {"env_file": "TEXT"}, "container": {"container_name": "TEXT"},
    "profile": {"profiles": ["TEXT"]}, "needs": {"depends_on": ["TEXT"]},
    "network": {"networks": ["TEXT"]}, "extension": {"x-any": "TEXT"},
}
COMMANDS = (("ls",), ("show", "shop"), ("check", "--store-only", "shop"), ("prune", "--dry-run"))


@pytest.fixture
def run(tmp_path, stepper):
    """Run a command on a store that holds one app, of a compose file (a mapping)."""
    (tmp_path / "config.toml").write_text(
        f'[pacman]\nreset_apps_root = "{tmp_path}/store"\ncompose_apps_root = "{tmp_path}/compose"\n'
        f'storage_watermark = 95\n[composeapps]\nstate_dir = "{tmp_path}/state"\n'
        f'docker_host = "unix://{tmp_path}/none.sock"\nfactory_file = "{tmp_path}/factory.json"\n'
        f'factory_store = "{tmp_path}/factory"\n')
    image = make_image()
    uri = f"hub.demo.test/f/web@{image.digest}"

    def keep(service):
        text = json.dumps({"services": {"web": {"image": uri, **service}}})
        write(tmp_path / "store", "hub.demo.test/f/shop", make_app(text, images=[image]), {uri: image}, compose=text)

    return keep, lambda *words: stepper.run("--config", tmp_path / "config.toml", *words, counted=False,
                                            seconds=SECONDS)


@pytest.mark.parametrize("place", PLACES)
def test_a_text_of_any_length_in_a_compose_file(run, place):
    keep, command = run
    piece = PIECES[list(PLACES).index(place) % len(PIECES)]
    text = piece * (LENGTH // len(piece))
    keep(json.loads(json.dumps(PLACES[place]).replace("TEXT", json.dumps(text)[1:-1])))
    for words in COMMANDS:
        done = command(*words)
        # Refused or read, but by the command itself.
        assert done.status >= 0 and "Traceback" not in done.err, (words, done.status, done.err[-500:])
