# SPDX-License-Identifier: MIT
"""The agent's real command in a process of its own, and what that process cost."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import hostsetup

MIB = 1024 * 1024
# Ends what a fault would let grow for ever: seconds of CPU, bytes of address space.
_ENDS = {"cpu": 20, "memory": 1024 * MIB}
# The high-water mark is that of this program alone: what exec replaces would count in ru_maxrss.
_CODE = """
import json, os, resource, sys
report, lib, cpu, memory, *words = sys.argv[1:]
sys.path.insert(0, lib)
resource.setrlimit(resource.RLIMIT_CPU, (int(cpu), int(cpu)))
resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
def tell():
    peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open(report, "w") as stream:
        json.dump({"peak": int(peak) * 1024, "cpu": used.ru_utime + used.ru_stime}, stream)
from composeapps.cli.main import main
try:
    status = main(words)
finally:
    tell()
sys.exit(status)
"""


@dataclass(frozen=True)
class Measured:
    """A command that has ended: ``peak`` in bytes and ``cpu`` in seconds are those of its own process."""

    status: int
    out: str
    err: str
    peak: int
    cpu: float

    def within(self, megabytes=64, seconds=5):
        """Assert that it kept to the bars, and that it ended in sentences."""
        assert "Traceback" not in self.err and self.status >= 0, self.err[-2000:]
        assert self.peak <= megabytes * MIB, f"{self.peak / MIB:.0f} MiB"
        assert self.cpu <= seconds, f"{self.cpu:.1f} s"
        return self


def run(directory, *words, endpoints="", timeout=120):
    """Run ``composeapps`` with words, its report below ``directory``; returns Measured."""
    report = Path(directory) / "report.json"
    report.unlink(missing_ok=True)
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(directory), "LANG": "C.UTF-8",
                   "COMPOSEAPPS_ENDPOINTS": endpoints}
    done = subprocess.run(
        [sys.executable, "-I", "-X", f"pycache_prefix={hostsetup.BUILD / 'pycache'}", "-c", _CODE, report,
         hostsetup.TOP / "meta-composeapps" / "lib", *map(str, (_ENDS["cpu"], _ENDS["memory"], *words))],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        timeout=timeout)
    used = json.loads(report.read_text()) if report.exists() else {"peak": _ENDS["memory"], "cpu": _ENDS["cpu"]}
    return Measured(done.returncode, done.stdout, done.stderr, **used)


def moved(action, key="wchar"):
    """Return how many bytes this process hands to the kernel ("wchar"), or has from it ("rchar"), meanwhile."""
    before = _io(key)
    action()
    return _io(key) - before


def _io(key):
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())[key])
