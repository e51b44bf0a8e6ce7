# SPDX-License-Identifier: MIT
"""Two commands that set a new machine up at once do it once."""

import os
import subprocess
import sys

import hostsetup

# Does what enter() does around it, and finds out whether somebody else was in there too.
CODE = """
import hostsetup, os, sys, time
with hostsetup.alone():
    os.mkdir(sys.argv[1])
    time.sleep(0.5)
    os.rmdir(sys.argv[1])
"""


def test_one_waits_for_the_other_and_says_so(tmp_path):
    environment = {**os.environ, "COMPOSEAPPS_BUILD": str(tmp_path / "build"),
                   "PYTHONPATH": str(hostsetup.TOP / "scripts" / "lib")}
    both = [subprocess.Popen([sys.executable, "-B", "-c", CODE, str(tmp_path / "inside")], env=environment, text=True,
                             stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0], said
    assert set(said) <= {"", "setup: another command sets this machine up: waiting for it\n"}
