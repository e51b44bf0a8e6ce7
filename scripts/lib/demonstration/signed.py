# SPDX-License-Identifier: MIT
"""scripts/demo --signed: a device enrols, takes what its factory signs, from the server and from a stick, and refuses
what it did not sign, or signed before.
"""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from composeapps import durable
from demonstration import device
from demonstration.errors import DemoError
from demonstration.updating import HOST, WEB
from emulator.image import Drive

DEVICE, HARDWARE, TAG, NAME = "demo-0001", "qemux86-64", "main", "demo"
# Bytes of the stick, which is as large as it is full.
STICK = 512 << 20
NOT_BELIEVED = 17
_STICK_AT = "/run/stick"
# What a device is given of its own; the rest is the image's.
_SETTINGS = """[pacman]
tags = "{tag}"
[delivery]
server = "https://{host}:{port}"
hardware_id = "{hardware}"
"""


class Factory:
    """The factory of this machine, as scripts/factory has it, and what is done with its keys.

    Arguments:
        chain: the demonstration's Chain.
        kept: the gate.kept.KeptFactory, which runs.
        endpoint: where its registry listens, HOST=URL.
        apps: {app: [pinned references of its releases]}, the preloaded one first.
    """

    def __init__(self, chain, kept, endpoint, apps):
        self._chain, self._kept, self._endpoint, self._apps = chain, kept, endpoint, apps
        self.repository, self.port = kept.repository, kept.state().port
        self.root = str(kept.repository / "1.root.json")
        # The drive has to be there when the machine is started, and is written later.
        self.stick = Drive(kept.directory / "stick.img", readonly=True)
        with open(self.stick.path, "wb") as stream:
            stream.truncate(STICK)

    def publish(self, web):
        """Sign a Target of all apps, with that release of "web"; return its name."""
        wanted = [word for app, releases in self._apps.items()
                  for word in ("--app", releases[web if app == "web" else 0])]
        self._command("target", "create", self.repository, "--name", NAME, "--hardware", HARDWARE, "--tag", TAG,
                      *wanted, *self._keys())
        listed = json.loads(self._command("target", "list", self.repository, "--json"))["targets"]
        return max((each for each in listed if each["name"] == NAME), key=lambda each: each["version"])["target"]

    def certificate(self, request):
        """Return (the device's certificate, the authority of the server), as texts, for a signing request."""
        return self._kept.pki.answer(request.encode(), "the device's request").decode(), \
            self._kept.pki.root.read_text()

    def write_stick(self, target):
        """Write a bundle of a Target onto the stick, and one beside it that somebody has altered."""
        with tempfile.TemporaryDirectory(dir=self._kept.directory) as place:
            good, forged = Path(place, "stick/good"), Path(place, "stick/forged")
            good.parent.mkdir()
            self._command("bundle", "create", self.repository, good, "--tag", TAG, "--target", target, "--platform",
                          "linux/amd64", *self._keys())
            shutil.copytree(good / "tuf", forged / "tuf")
            (forged / "apps/blobs/sha256").mkdir(parents=True)
            for path in (forged / "tuf").glob("*targets.json"):
                before, mark, digest = path.read_bytes().partition(b"sha256:")
                path.write_bytes(before + mark + (b"1" if digest[:1] == b"0" else b"0") + digest[1:])
            done = subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", good.parent, self.stick.path], text=True,
                                  capture_output=True, check=False)
            if done.returncode:
                raise DemoError(f"the stick cannot be written: {done.stderr.strip()}")

    def timestamp(self):
        """Return what says which state of the repository is the newest."""
        return (self.repository / "timestamp.json").read_bytes()

    def serve(self, timestamp):
        """Serve a timestamp, whatever it is."""
        durable.write_file(self.repository / "timestamp.json", timestamp)

    def reports(self):
        """Return the addresses to which the device reported, the last ones."""
        return [report["path"] for report in self._kept.nginx.last_reports(50)]

    def _keys(self):
        return "--keys", self._kept.keys, "--passphrase-file", self._kept.phrase

    def _command(self, *words):
        return self._chain.command("composeapps", *map(os.fspath, words), endpoint=self._endpoint)


def shown(machine, factory, progress):
    """Take a booted device through it; return what is left to tell.

    Arguments:
        machine: the logged-in Machine, its apps running, with the stick as its second drive.
        factory: the Factory.
        progress: a fastlane.progress.Progress.

    Raises DemoError when the device takes what it may not, or does not take what it should.
    """
    found = {}
    with progress.step("the device makes a key, and gets a certificate from the factory"):
        found["identity"] = _enrol(machine, factory)
    with progress.step("it checks in over TLS with that certificate, and installs what the factory signed"):
        first = factory.publish(1)
        before = factory.timestamp()
        found["online"] = _update(machine, "--now")
        found["page"] = _page(machine)
        _expect(machine, first)
    with progress.step("the network goes; it takes the next release from a stick"):
        second = factory.publish(0)
        factory.write_stick(second)
        machine.set_link(False)
        machine.run(f"mkdir -p {_STICK_AT} && mount -o ro /dev/vdb {_STICK_AT}")
        found["forged"] = _refused(machine, "--bundle", f"{_STICK_AT}/forged")
        found["offline"] = _update(machine, "--bundle", f"{_STICK_AT}/good")
        found["offline_page"] = _page(machine)
        _expect(machine, second)
    with progress.step("the network is back; somebody serves what was signed before"):
        machine.set_link(True)
        after = factory.timestamp()
        try:
            factory.serve(before)
            found["rolled_back"] = _refused(machine, "--now")
        finally:
            factory.serve(after)
        found["last"] = _update(machine, "--now")
        _expect(machine, second)
    found["reports"] = factory.reports()
    return found


def _enrol(machine, factory):
    machine.run(f"composeapps identity --new-key --device {DEVICE}", timeout=120)
    request = machine.run("composeapps identity --csr --unit demo", timeout=60).stdout
    certificate, authority = factory.certificate(request)
    settings = _SETTINGS.format(tag=TAG, host=HOST, port=factory.port, hardware=HARDWARE)
    for path, text in (("/run/client.pem", certificate), ("/run/root.crt", authority),
                       ("/var/sota/composeapps.toml", settings)):
        machine.run(f"printf %s {shlex.quote(text)} > {path}")
    machine.run("composeapps identity --certificate /run/client.pem --authority /run/root.crt", timeout=60)
    return machine.run("composeapps identity", timeout=60).stdout.splitlines()


def _said(machine, words, timeout):
    """Run ``composeapps update``; what it says goes through a file, since a terminal gets a moving picture."""
    return machine.run(f"composeapps update {shlex.join(words)} > /run/update.log 2>&1; status=$?; "
                       "cat /run/update.log; (exit $status)", timeout=timeout, check=False)


def _update(machine, *words):
    done = _said(machine, words, 900)
    if done.exit_status:
        raise DemoError("the device did not take what its factory signed: " + " ".join(done.stdout.splitlines()[-2:]))
    return done.stdout.splitlines()


def _refused(machine, *words):
    done = _said(machine, words, 300)
    if done.exit_status != NOT_BELIEVED:
        raise DemoError(f"the device did not refuse it (status {done.exit_status}): "
                        + " ".join(done.stdout.splitlines()[-2:]))
    return done.stdout.splitlines()[-1]


def _expect(machine, target):
    """See that a Target is installed; its apps' health was waited for."""
    told = json.loads(machine.run("cat /var/lib/composeapps/delivery/target.json").stdout)
    if told["current"]["name"] != target or told["rollout"]:
        raise DemoError(f"the device is at {told['current']['name']}, not at {target}")


def _page(machine):
    return device.fetch(machine, WEB).strip()
