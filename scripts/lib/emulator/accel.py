# SPDX-License-Identifier: MIT
"""Choose how QEMU runs the guest: KVM where it really does, else TCG, its emulation.

The presence of /dev/kvm tells little: on some machines (nested virtualisation, mostly) opening it
works and the guest then hangs or QEMU aborts. So a 512-byte guest is run once a boot of the host.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hostsetup

from .errors import EmulatorError

QEMU = "qemu-system-x86_64"
OVERRIDE = "COMPOSEAPPS_ACCEL"
PROBE_TIMEOUT = 5.0  # seconds; the probe's guest needs 0.1 with KVM, and SeaBIOS is most of that
TCG_TIMEOUT_SCALE = 8.0  # an emulated boot on two busy cores against one with KVM

_KVM_CPU = "host"
# QEMU 7.2's TCG miscompiles cmpxchg16b, which Go programs and the kernel use when the processor has it.
_TCG_CPU = "IvyBridge,-cx16"
_DEBUG_EXIT_PORT = 0xF4
_DEBUG_EXIT_VALUE = 0x2A
# no_timer_check: on a busy host an emulated timer can come too late for the kernel's check of it, which
# panics. The next leave out work that costs an emulated boot a third of its time, and complaints about slowness.
# The last two are systemd's own limits, 90 s, as long as the others here: when the serial port's device is late, its
# console is given up for good, and such a device cannot be talked to.
_SYSTEMD_LIMIT = f"{90 * TCG_TIMEOUT_SCALE:.0f}"
_TCG_KERNEL_WORDS = ("no_timer_check", "mitigations=off", "nokaslr", "init_on_alloc=0", "nowatchdog",
                     f"systemd.default_device_timeout_sec={_SYSTEMD_LIMIT}",
                     f"systemd.default_timeout_start_sec={_SYSTEMD_LIMIT}")
# Real-mode code of a boot sector: sti; hlt (until the timer interrupts: a guest that gets no interrupts
# is no use); mov al, VALUE; out PORT, al; then hlt for ever.
_BOOT_CODE = bytes([0xFB, 0xF4, 0xB0, _DEBUG_EXIT_VALUE, 0xE6, _DEBUG_EXIT_PORT, 0xF4, 0xEB, 0xFD])


@dataclass(frozen=True)
class Accel:
    """How to run a guest: ``name`` ("kvm" or "tcg"), QEMU's ``arguments``, and why it was chosen.

    ``timeout_scale`` multiplies every time limit that is stated for KVM. ``cpus`` is how many virtual processors
    are safe and sensible. ``kernel_words`` are added to the kernel's command line.
    """

    name: str
    arguments: tuple
    timeout_scale: float
    reason: str
    cpus: int
    kernel_words: tuple = ()


def kvm(reason):
    """Return the Accel for KVM."""
    return Accel("kvm", ("-machine", "q35", "-accel", "kvm", "-cpu", _KVM_CPU), 1.0, reason, cpus=2)


def tcg(reason):
    """Return the Accel for emulation.

    It has one processor: with two, each in a thread, QEMU 7.2 now and then runs code that Linux has just
    patched ("Oops: int3"), and a device gets little quicker by the second one.
    """
    arguments = ("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", _TCG_CPU)
    return Accel("tcg", arguments, TCG_TIMEOUT_SCALE, reason, cpus=1, kernel_words=_TCG_KERNEL_WORDS)


def select(wanted=None):
    """Return the Accel to use: ``wanted`` ("kvm" or "tcg"), else what COMPOSEAPPS_ACCEL says, else by probing.

    Raises EmulatorError for another word.
    """
    for source, word in (("the option --accel", wanted), (f"the environment's {OVERRIDE}", os.environ.get(OVERRIDE))):
        if word:
            if word not in ("kvm", "tcg"):
                raise EmulatorError(f"{source} says '{word}': it must be kvm or tcg")
            return (kvm if word == "kvm" else tcg)(f"{source} says so")
    works, reason = probe()
    return kvm(reason) if works else tcg(reason)


def probe(cache=None, device="/dev/kvm", timeout=PROBE_TIMEOUT):
    """Tell whether KVM runs a guest here: (bool, the reason as a sentence).

    Takes at most ``timeout`` seconds plus one or two to end QEMU. The answer is kept in the file ``cache``
    (default: build/emulator/accel.json) and holds until the host reboots, QEMU is replaced, or the
    rights on ``device`` change.
    """
    cache = Path(cache) if cache else hostsetup.BUILD / "emulator" / "accel.json"
    key = _key(device, timeout)
    try:
        kept = json.loads(cache.read_text())
        if kept["key"] == key and isinstance(kept["kvm"], bool):
            return kept["kvm"], str(kept["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if platform.machine() != "x86_64":
        works, reason = False, f"the host is {platform.machine()}, the guest x86_64"
    elif not os.access(device, os.R_OK | os.W_OK):
        works, reason = False, f"{device} is missing or may not be opened"
    else:
        works, reason = run_probe_guest(kvm("").arguments, timeout)
        reason = f"with {device}, {reason}"
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as stream:
        json.dump({"key": key, "kvm": works, "reason": reason}, stream)
    os.replace(stream.name, cache)
    return works, reason


def _key(device, timeout):
    qemu = shutil.which(QEMU)
    if not qemu:
        raise EmulatorError(f"{QEMU} is not installed: on Debian, install the package qemu-system-x86")
    found = os.stat(qemu)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    usable = os.access(device, os.R_OK | os.W_OK)
    return [boot_id, platform.release(), qemu, found.st_size, found.st_mtime_ns, device, usable, _KVM_CPU, timeout]


def run_probe_guest(arguments, timeout):
    """Run the boot-sector guest under QEMU with ``arguments``; return (it ran, the reason as a sentence).

    Gives up after ``timeout`` seconds.
    """
    with tempfile.NamedTemporaryFile(suffix=".img") as disk:
        disk.write(_BOOT_CODE.ljust(510, b"\0") + b"\x55\xaa")
        disk.truncate(1 << 20)  # SeaBIOS boots no disk of one sector
        disk.flush()
        drive = {"driver": "raw", "node-name": "probe", "file": {"driver": "file", "filename": disk.name}}
        argv = [
            QEMU, *arguments, "-m", "64", "-nodefaults", "-no-user-config", "-display", "none",
            "-blockdev", json.dumps(drive), "-device", "ide-hd,drive=probe",
            "-device", f"isa-debug-exit,iobase={_DEBUG_EXIT_PORT},iosize=4",
        ]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )
        try:
            _, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel, where nothing can end it
                process.communicate(timeout=2)
            return False, f"the guest did nothing for {timeout:g} s"
        except BaseException:
            process.kill()
            raise
    # isa-debug-exit ends QEMU with (value << 1) | 1.
    if process.returncode == (_DEBUG_EXIT_VALUE << 1) | 1:
        return True, "a guest ran"
    said = [line for line in stderr.decode(errors="replace").splitlines() if line and "warning:" not in line]
    return False, f"QEMU ended with status {process.returncode}: {said[0] if said else 'no message'}"
