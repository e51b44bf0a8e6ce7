# SPDX-License-Identifier: MIT
"""A small layer of recipes, and the builder in processes of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

LAYER_CONF = """\
BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/recipes/*/*.bb ${LAYERDIR}/recipes/*/*.bbappend"
BBFILE_COLLECTIONS += "small"
BBFILE_PATTERN_small = "^${LAYERDIR}/"
LAYERSERIES_COMPAT_small = "wrynose"
"""

HELLO = """\
SUMMARY = "A file and a unit"
LICENSE = "MIT"
inherit allarch systemd
SRC_URI = "file://greeting.txt file://hello.service"
S = "${UNPACKDIR}"
do_install() {
    install -D -m 0640 ${S}/greeting.txt ${D}${datadir}/hello/greeting.txt
    install -D -m 0644 ${S}/hello.service ${D}${systemd_system_unitdir}/hello.service
}
SYSTEMD_SERVICE:${PN} = "hello.service"
"""

OTHER = """\
LICENSE = "MIT"
inherit allarch
DEPENDS = "hello"
do_install() {
    install -d ${D}${sysconfdir}
    echo other > ${D}${sysconfdir}/other
}
"""


class SmallLayer:
    """A layer in a temporary directory, and the builder run on it."""

    def __init__(self, directory):
        self.directory = directory / "meta-small"
        self.build = directory / "build"
        self.write("conf/layer.conf", LAYER_CONF)

    def write(self, path, text):
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def add_hello(self):
        self.write("recipes/hello/hello_1.0.bb", HELLO)
        self.write("recipes/hello/files/greeting.txt", "hello\n")
        self.write("recipes/hello/files/hello.service",
                   "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")

    def add_other(self):
        self.write("recipes/other/other_2.0.bb", OTHER)

    def run(self, *recipes, options=()):
        """Build recipes; return (result or None, message)."""
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("drive.py")), str(self.build), *recipes,
             "--", "--layer", str(self.directory), *options],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode:
            return None, done.stderr.strip()
        return json.loads(done.stdout), ""

    def build_image(self, *arguments):
        """Run the command of scripts/build-image without its setup; return the finished process."""
        code = ("import sys; from fastlane.command import main; "
                "sys.exit(main(sys.argv[3:], sys.argv[1], sys.argv[2]))")
        return subprocess.run(
            [sys.executable, "-c", code, str(TOP), str(self.build), "--layer", str(self.directory), *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.fixture
def layer(tmp_path):
    """An empty layer besides meta-composeapps."""
    return SmallLayer(tmp_path)


@pytest.fixture
def refused(layer):
    """A function that runs the command and returns the one sentence with which it refuses."""
    def run(*arguments):
        done = layer.build_image("--quiet", *arguments)
        assert done.returncode == 1, done.stdout
        assert done.stdout == ""
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        return lines[0]
    return run
