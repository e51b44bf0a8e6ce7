# SPDX-License-Identifier: MIT
"""The agent's commands as processes of their own: what they cost, and whether anything of them stays."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from bench.figures import BenchError

# Handed on to all that a command starts, and so what tells them from everything else that runs.
MARK = "COMPOSEAPPS_BENCH_MARK"
# Runs the command in its own process and writes down what the kernel knows of that at the end.
_MEASURED = """
import json, resource, sys
from pathlib import Path
from composeapps.cli.main import main
report, sys.argv = sys.argv[1], ["composeapps", *sys.argv[2:]]
code = main()
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
Path(report).write_text(json.dumps({"own": int(peak.split()[1]) * 1024, "children": children * 1024}))
sys.exit(code)
"""
_PLAIN = "from composeapps.cli.main import program; program()"


@dataclass(frozen=True)
class Peaks:
    """The most memory in bytes: of the command's ``own`` process, of the largest that it started."""

    own: int
    children: int


class Agent:
    """The commands with one configuration.

    Arguments:
        directory: on the disk of the daemon; gets the store, the bundles, the state and the configuration.
        daemon: a support.engine.DockerDaemon, which reads the store when DOCKER_LOAD_ROOTS says so.
        endpoints: the value of COMPOSEAPPS_ENDPOINTS.
    """

    def __init__(self, directory, daemon, endpoints):
        self.directory = Path(directory)
        self.store = self.directory / "store"
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LANG": "C.UTF-8",
            "COMPOSEAPPS_ENDPOINTS": endpoints, MARK: "1",
        }
        self._config, self._daemon = self.directory / "config.toml", daemon
        self.configure()

    def configure(self, **settings):
        """Write the configuration, with these keys of the section [composeapps] besides those that it needs."""
        values = {"state_dir": f"{self.directory}/state", "docker_host": self._daemon.host,
                  "compose_command": list(self._daemon.compose_command), "soak_time": 0, **settings}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self._config.write_text(
            f'[pacman]\nreset_apps_root = "{self.store}"\ncompose_apps_root = "{self.directory}/compose"\n'
            f"storage_watermark = 95\n[composeapps]\n{lines}")

    def run(self, *argv):
        """Run a command to its end; raises BenchError with its words when it fails."""
        done = self._start(_PLAIN, argv)
        if done.returncode:
            raise BenchError(f"composeapps {' '.join(argv)}: {done.stderr.strip()[-500:]}")

    def peaks(self, *argv):
        """Run a command and return its Peaks."""
        with tempfile.NamedTemporaryFile() as report:
            done = self._start(_MEASURED, [report.name, *argv])
            if done.returncode:
                raise BenchError(f"composeapps {' '.join(argv)}: {done.stderr.strip()[-500:]}")
            return Peaks(**json.loads(Path(report.name).read_text()))

    def seconds(self, *argv):
        """Run a command, whatever its exit status, and return the seconds of CPU that it took, kernel's included."""
        return self._seconds(_PLAIN, argv)

    def bare_seconds(self):
        """Return the seconds of CPU that Python takes to start and end."""
        return self._seconds("pass", [])

    def _seconds(self, script, argv):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self._start(script, argv)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if "Traceback" in done.stderr:
            raise BenchError(f"composeapps {' '.join(argv)}: {done.stderr.strip()[-500:]}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def left(self):
        """Return how many processes of the commands that were run are there still."""
        count = 0
        for place in Path("/proc").glob("[0-9]*/environ"):
            try:
                count += f"{MARK}=1".encode() in place.read_bytes().split(b"\0")
            except OSError:
                continue
        return count

    def _start(self, script, argv):
        # As on the device: neither the environment nor the directory decides what runs, and byte code is there.
        script = f"import sys; sys.path.insert(0, {str(hostsetup.TOP / 'meta-composeapps' / 'lib')!r})\n{script}"
        command = [sys.executable, "-I", "-X", f"pycache_prefix={hostsetup.BUILD / 'pycache'}", "-c", script]
        if script.endswith(_MEASURED):
            report, *argv = argv
            command.append(report)
        return subprocess.run([*command, "--config", str(self._config), *argv], env=self._environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
