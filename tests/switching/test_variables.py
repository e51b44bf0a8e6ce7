# SPDX-License-Identifier: MIT
"""Variables are replaced as the device's own docker compose replaces them."""

import json
import subprocess

from composeapps import programs
from composeapps.app.interpolation import substitute
from composeapps.installed import expected
from support.engine import DockerDaemon

FILE = """\
# what stands here is read by both
export A=1
EMPTY=
B = "two $A\\n\\"three\\""   # more
C='single $A'
D=${NONE:-${A}}${EMPTY-x} # c
E: x#y
HOME=/elsewhere
F=$HOME
G="over
two lines"
H=a\\nb
A=9
"""
TEXTS = ["$A", "${B}", "$C", "${D}", "${E}", "$F", "$G", "$H", "${NONE:-a${NONE:-${A}}b}c", "${EMPTY:-d}", "${EMPTY-d}",
         "${A:+o}", "${EMPTY:+o}", "$$A", "a$", "$-", "${A}}", "${NONE:-$$x}", "${NONE-}", "$PATH", "${HOME}", "$LANG"]


def test_of_each_text_becomes_the_same(device_root, tmp_path):
    (tmp_path / ".env").write_text(FILE)
    compose = {"services": {"a": {"image": "x", "environment": {f"V{n}": text for n, text in enumerate(TEXTS)}}}}
    (tmp_path / "compose.json").write_text(json.dumps(compose))
    argv = [*DockerDaemon(device_root, tmp_path).compose_command, "--project-name", "p", "--file",
            str(tmp_path / "compose.json"), "config", "--format", "json"]
    done = subprocess.run(argv, capture_output=True, cwd=tmp_path, env=programs.ENVIRONMENT, check=True)
    found = json.loads(done.stdout)["services"]["a"]["environment"]
    variables = expected.environment(FILE)
    ours = {f"V{number}": substitute(text, variables) for number, text in enumerate(TEXTS)}
    # In what it prints a dollar sign is written as one that is no variable.
    assert {key: (text or "").replace("$$", "$") for key, text in found.items()} == ours
