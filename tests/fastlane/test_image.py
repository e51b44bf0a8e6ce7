# SPDX-License-Identifier: MIT
"""A real image from the real base: what is on its disk, and that nothing spoils a finished one."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest

import hostsetup
import moby.build
import moby.series

# Little free space, so that reading a whole disk does not take long.
SMALL = ("--set", "COMPOSEAPPS_DATA_SPACE=32768")

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The described image, built in a directory of its own; the base comes from the cache of build/."""
    directory = tmp_path_factory.mktemp("image")
    hostsetup.BUILD.joinpath("cache").mkdir(parents=True, exist_ok=True)
    (directory / "cache").symlink_to(hostsetup.BUILD / "cache")
    return Image(directory)


class Image:
    """A build directory, and the image that it holds."""

    def __init__(self, directory):
        self.directory = directory
        self.build()

    def start(self, *arguments, **kwargs):
        code = "import sys; from fastlane.command import main; sys.exit(main(sys.argv[3:], sys.argv[1], sys.argv[2]))"
        return subprocess.Popen(
            [sys.executable, "-c", code, str(hostsetup.TOP), str(self.directory), *SMALL, *arguments],
            stdin=subprocess.DEVNULL, text=True, **kwargs)

    def build(self, *arguments):
        with self.start("--json", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, err = process.communicate()
        assert process.returncode == 0, err
        return json.loads(out)

    @property
    def description(self):
        return json.loads((self.directory / "deploy/composeapps-image-qemux86-64.json").read_text())

    def path(self, what):
        return self.directory / "deploy" / self.description[what]

    def debugfs(self, request):
        done = subprocess.run(["debugfs", "-R", request, str(self.path("disk"))], capture_output=True, text=True,
                              check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "DEBUGFS_PAGER": "cat"})
        return done.stdout

    def digests(self):
        return {what: hashlib.sha256(self.path(what).read_bytes()).hexdigest() for what in ("disk", "kernel", "initrd")}


def test_the_description_names_what_a_machine_boots_from(image):
    description = image.description
    assert description["machine"] == "qemux86-64"
    assert re.search(r"\broot=/dev/vda\b", description["cmdline"])
    assert description["apps"] == {}
    for what in ("disk", "kernel", "initrd"):
        assert image.path(what).is_file()
    assert (image.directory / "deploy/composeapps-image-qemux86-64.ext4").resolve() == image.path("disk")


def test_the_agent_is_installed_with_byte_code_for_the_devices_python(image):
    assert image.debugfs("cat /usr/bin/composeapps").startswith("#!/usr/bin/python3")
    assert re.search(r"Mode:\s+0755", image.debugfs("stat /usr/bin/composeapps"))
    for path in ("bash-completion/completions/composeapps", "zsh/site-functions/_composeapps",
                 "fish/vendor_completions.d/composeapps.fish"):
        assert "rollback" in image.debugfs(f"cat /usr/share/{path}")
    listing = image.debugfs("ls -l /usr/lib/python3/dist-packages/composeapps/__pycache__")
    assert "errors.cpython-313.pyc" in listing


def test_the_agents_unit_is_enabled_and_knows_the_paths(image):
    link = image.debugfs("stat /etc/systemd/system/multi-user.target.wants/composeapps-start.service")
    assert 'Fast link dest: "/usr/lib/systemd/system/composeapps-start.service"' in link
    unit = image.debugfs("cat /usr/lib/systemd/system/composeapps-start.service")
    assert "ExecStart=/usr/bin/composeapps run --factory" in unit
    assert "ReadWritePaths=/var/sota/reset-apps /var/sota/compose-apps /var/lib/composeapps" in unit


def test_the_configuration_says_the_paths_and_pins_dockers_store(image):
    config = image.debugfs("cat /etc/composeapps/config.toml")
    assert 'reset_apps_root = "/var/sota/reset-apps"' in config
    daemon = json.loads(image.debugfs("cat /etc/docker/daemon.json"))
    assert daemon["storage-driver"] == "overlay2"
    assert daemon["features"] == {"containerd-snapshotter": False}
    assert json.loads(image.debugfs("cat /usr/share/composeapps/factory.json")) == {"apps": {}}


def test_dockerd_is_the_one_with_the_layers_patches(image, tmp_path):
    image.debugfs(f"dump /usr/sbin/dockerd {tmp_path}/dockerd")
    built = json.loads((moby.build.patched() / "build.json").read_text())
    assert [entry["name"] for entry in built["patches"]] == moby.series.names() != []
    assert hashlib.sha256((tmp_path / "dockerd").read_bytes()).hexdigest() == built["sha256"]


def test_everything_belongs_to_who_it_should(image):
    for path in ("/usr/bin/composeapps", "/etc/docker/daemon.json", "/usr/sbin/dockerd"):
        assert re.search(r"User:\s+0\s+Group:\s+0\b", image.debugfs(f"stat {path}"))
    shadow = image.debugfs("stat /etc/shadow")
    assert re.search(r"User:\s+0\s+Group:\s+42\b", shadow) and re.search(r"Mode:\s+0640", shadow)


def test_a_second_build_changes_nothing_and_a_new_setting_does(image):
    before, path = image.digests(), image.directory / "deploy/composeapps-image-qemux86-64.json"
    os.utime(path, (1, 1))
    assert image.build()["built"] == []
    assert image.digests() == before
    # The image that was built last is the one that is booted.
    assert path.stat().st_mtime > 1
    result = image.build("--set", "COMPOSEAPPS_STATE_DIR=/var/lib/elsewhere")
    assert "composeapps-config" in result["built"] and "composeapps-docker-config" in result["unchanged"]
    assert 'state_dir = "/var/lib/elsewhere"' in image.debugfs("cat /etc/composeapps/config.toml")


def test_a_closed_image_lets_nobody_in(image):
    assert re.search(r"^root::", image.debugfs("cat /etc/shadow"), re.MULTILINE)
    image.build("--set", "EXTRA_IMAGE_FEATURES=")
    assert re.search(r"^root:\*:", image.debugfs("cat /etc/shadow"), re.MULTILINE)


def test_a_build_that_is_killed_leaves_the_old_image(image):
    before, settings = image.digests(), ("--set", "COMPOSEAPPS_STATE_DIR=/var/lib/other")
    for moment in ("building composeapps-config", "laying out the root", "writing the disk"):
        with image.start(*settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            for line in process.stderr:
                if line.startswith(moment):
                    process.send_signal(signal.SIGKILL)
                    break
            else:
                pytest.fail(f"the build never said '{moment}'")
        assert image.digests() == before, moment
    image.build(*settings)
    assert 'state_dir = "/var/lib/other"' in image.debugfs("cat /etc/composeapps/config.toml")


def test_an_image_whose_own_daemon_json_is_wrong_is_refused(image, tmp_path):
    # As a product may do it: not by the setting, which is checked earlier, but in the recipe.
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/layer.conf").write_text(
        'BBPATH .= ":${LAYERDIR}"\nBBFILES += "${LAYERDIR}/*.bbappend"\nBBFILE_COLLECTIONS += "product"\n'
        'BBFILE_PATTERN_product = "^${LAYERDIR}/"\nLAYERSERIES_COMPAT_product = "wrynose"\n')
    (tmp_path / "composeapps-docker-config_%.bbappend").write_text(
        "do_install:append() {\n"
        """    echo '{"features": {"containerd-snapshotter": true}}' > ${D}${sysconfdir}/docker/daemon.json\n}\n""")
    before = image.digests()
    with image.start("--quiet", "--layer", str(tmp_path), stderr=subprocess.PIPE) as process:
        message = process.stderr.read()
    assert process.returncode == 1 and "/etc/docker/daemon.json of composeapps-image selects containerd's image store" \
        in message
    assert image.digests() == before


def test_the_file_system_is_sound_and_sparse(image):
    image.build("--set", "COMPOSEAPPS_DATA_SPACE=4194304")
    disk = image.path("disk")
    done = subprocess.run(["/sbin/e2fsck", "-fn", str(disk)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    info = disk.stat()
    assert info.st_size > 4 << 30
    assert info.st_blocks * 512 < 1 << 30
