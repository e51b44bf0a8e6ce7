# SPDX-License-Identifier: MIT
"""A real dockerd with a data root of its own: the device's engine, from the fast lane's base.

It runs in a mount namespace and a PID namespace of its own, in the base's root, with
nothing of the base written to. The PID namespace makes that nothing it started outlives it.
"""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import hostsetup
from composeapps.engine.client import Engine
from composeapps.errors import EngineError

# The test's directory appears at its own path inside, so that bind mounts of apps mean the same there.
_ENTER = """
set -e
root=$1 share=$2 dockerd=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
for place in proc sys dev; do mount --rbind "/$place" "$root/$place"; done
mount -t proc proc "$root/proc"
for place in run tmp; do mount -t tmpfs tmpfs "$root/$place"; done
mkdir -p "$root$share"
# With what is mounted below it: a disk of its own for the data root, for example.
mount --rbind "$share" "$root$share"
[ -z "$dockerd" ] || mount --bind "$dockerd" "$root/usr/sbin/dockerd"
# A change of root alone would not do: what enters a container later starts from the namespace's own root.
mkdir "$root/tmp/.outside"
cd "$root"
pivot_root . tmp/.outside
exec chroot . sh -c 'umount --lazy /tmp/.outside && exec "$@"' sh "$@"
"""


# A network's ID in libnetwork's database.
_NETWORK = re.compile(rb"docker/network/v1\.0/network/([0-9a-f]{64})")


class DockerDaemon:
    """A dockerd; a context manager.

    Arguments:
        base: the root file system that holds dockerd, containerd and runc.
        directory: under /tmp; holds the data root, the socket and the log.
        dockerd: another dockerd that takes the place of the base's, e.g. moby.build.patched() / "dockerd".
        env: environment variables for it, besides PATH and HOME.
        containerd_images: keep images in containerd's store.
    """

    def __init__(self, base, directory, dockerd=None, env=None, containerd_images=False):
        self.base, self.directory = Path(base), Path(directory)
        self.data_root = self.directory / "docker"
        self.socket = self.directory / "docker.sock"
        self.log = self.directory / "dockerd.log"
        self.host = f"unix://{self.socket}"
        self.compose_command = (str(self.base / "usr/libexec/docker/cli-plugins/docker-compose"),)
        self._dockerd = str(Path(dockerd).resolve(strict=True)) if dockerd else ""
        self._env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **(env or {})}
        self._settings, self._driver = {}, "overlay2"
        if containerd_images:
            self._settings, self._driver = {"features": {"containerd-snapshotter": True}}, "overlayfs"
        self._process = self._alive = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exc):
        self.stop()
        self._remove_bridges()

    def _remove_bridges(self):
        """Remove what its networks left on this machine, which has room for thirty."""
        try:
            known = (self.data_root / "network" / "files" / "local-kv.db").read_bytes()
        except OSError:
            return
        for bridge in {f"br-{found[:12].decode()}" for found in _NETWORK.findall(known)}:
            if Path("/sys/class/net", bridge).exists():
                subprocess.run(["ip", "link", "delete", bridge], check=True)

    def start(self):
        """Start dockerd and wait until it answers; raises AssertionError with its log when it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        settings = self.directory / "daemon.json"
        settings.write_text(json.dumps(self._settings))
        argv = [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", str(self.base),
            str(self.directory), self._dockerd, "dockerd", "--data-root", str(self.data_root),
            "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--host", self.host,
            "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", self._driver,
            "--config-file", str(settings),
        ]
        self._alive, held = os.pipe()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, pass_fds=[held])
        os.close(held)
        engine, deadline = Engine(self.host, timeout=30), time.monotonic() + 60
        while True:
            try:
                engine.image("no-such-image")
                return
            except EngineError as err:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    log = self.log.read_text(errors="replace")[-3000:]
                    raise AssertionError(f"dockerd did not start: {err}\n{log}") from None
            # The socket's appearance is what is waited for; nothing tells of it but trying.
            time.sleep(0.05)

    @property
    def pid(self):
        """The process that is dockerd, as this machine numbers it."""
        first = self._process.pid
        return int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])

    def stop(self):
        """Kill dockerd and all that it started; return when none of it lives."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        # dockerd holds the other end of this pipe, so the end of the file is the end of dockerd.
        while os.read(self._alive, 1):
            pass
        os.close(self._alive)
        self._process = None


def busybox_image(make_image, tar, files=None):
    """Return a small runnable image: busybox, statically linked, and above it a layer of ``files`` where given."""
    data = Path(hostsetup.TOOLS, "bin", "busybox").read_bytes()
    layers = [tar({"bin/busybox": data}, mode=0o755), *([tar(files)] if files else [])]
    return make_image(layers=layers)
