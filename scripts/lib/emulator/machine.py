# SPDX-License-Identifier: MIT
"""A virtual machine: power, console, network, and what is left of a run."""

import contextlib
import shlex
import socket
import time
from pathlib import Path

from pexpect.exceptions import EOF, TIMEOUT

from . import accel as accelerators
from . import firmware as firmwares
from . import image as images
from . import network as networks
from . import rundir
from .console import Console, SerialLog
from .errors import BootError, ConsoleError, EmulatorError, QMPError
from .process import Process
from .qmp import QMP
from .shell import Shell

BOOT_TIMEOUT = 60.0  # seconds with KVM
KEEP = ("never", "failure", "always")

_POWEROFF = "if [ -d /run/systemd/system ]; then systemctl --no-block poweroff; else sync; poweroff -f; fi"
_REBOOT = "if [ -d /run/systemd/system ]; then systemctl --no-block reboot; else sync; reboot -f; fi"


class Machine:
    """A machine that boots ``image``, or ``kernel`` with ``cmdline``, ``initrd`` and ``disk``.

    image: the path of an image description, or an ImageDescription. disk: a raw image; the guest writes to
    an overlay of it in the run's directory. memory: MB. cpus: virtual processors (default: ``accel.cpus``).
    network: "none", or "user" (the guest reaches the host's loopback at 10.0.2.2, and the host the guest
    through ``forward``); restrict: the guest reaches nothing, forwards work. drives: Drive objects, /dev/vdb
    and on. name: of the run's directory under build/runs; run_dir: a directory to use instead. keep: when the
    overlay stays after ``close``: "never", "failure" (an exception left the with block) or "always". accel:
    "kvm" or "tcg", default: what ``accel.select`` finds. efi: boot by EFI firmware from the disk, which has
    a kernel and its command line; else QEMU loads the kernel. disk_size: bytes of the disk, when the device's is larger
    than the image. Time limits are in seconds with KVM; under emulation
    they are multiplied by ``accel.timeout_scale``.

    As a context manager it is started, logged in, and closed at the end.
    """

    def __init__(
        self, image=None, *, disk=None, kernel=None, initrd=None, cmdline=None, memory=1024, cpus=None, network="none",
        restrict=False, drives=(), name="machine", run_dir=None, keep="failure", accel=None,
        boot_timeout=BOOT_TIMEOUT, extra_arguments=(), efi=False,
        disk_size=None,
    ):
        if keep not in KEEP:
            raise EmulatorError(f"keep is '{keep}': it must be one of {', '.join(KEEP)}")
        if image is None and kernel is None:
            raise EmulatorError("a machine needs an image, or at least a kernel")
        if image is None:
            image = images.ImageDescription(
                kernel=Path(kernel), cmdline=cmdline or "console=ttyS0", disk=Path(disk) if disk else None,
                initrd=Path(initrd) if initrd else None,
            )
        elif not isinstance(image, images.ImageDescription):
            image = images.ImageDescription.load(image)
        networks.arguments(network, restrict)
        if efi and not image.efi:
            raise EmulatorError("the image's disk does not boot by EFI: build one with scripts/build-image --disk")
        self.image, self.efi = image, efi
        self.accel = accelerators.select(accel)
        words = (cmdline or image.cmdline).split()
        self.cmdline = " ".join([*words, *(word for word in self.accel.kernel_words if word not in words)])
        self.network = network
        self.boot_seconds = None
        self._memory, self._cpus, self._restrict = memory, cpus or self.accel.cpus, restrict
        self._drives, self._extra = tuple(drives), tuple(extra_arguments)
        self._boot_timeout, self._keep, self._disk_size = boot_timeout, keep, disk_size
        self.run_dir = Path(run_dir) if run_dir else rundir.make(name)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.overlay = self.run_dir / "overlay.qcow2" if image.disk else None
        self._power_ons = 0
        self._forwards, self._fixed_ports = {}, {}
        self._process = self._qmp = self._console = self._shell = None

    # Power

    @property
    def running(self):
        """Whether QEMU runs."""
        return self._process is not None and self._process.alive()

    @property
    def pid(self):
        """QEMU's process id, or None."""
        return self._process.pid if self.running else None

    def power_on(self):
        """Start QEMU and return at once; ``login`` waits for the guest."""
        if self.running:
            raise EmulatorError("the machine is on already")
        self._cut()
        if self.overlay and not self.overlay.exists():
            images.make_overlay(self.image.disk, self.overlay, self._disk_size)
        self._power_ons += 1
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            serial, serial_end = self._socket_pair(undo, theirs)
            monitor, monitor_end = self._socket_pair(undo, theirs)
            argv = self._arguments(serial_end.fileno(), monitor_end.fileno())
            (self.run_dir / "qemu.command").write_text(shlex.join(argv) + "\n")
            self.powered_on_at = time.monotonic()
            stderr = self.run_dir / "qemu.stderr"
            self._process = Process(argv, stderr, [serial_end.fileno(), monitor_end.fileno()])
            undo.callback(self._process.kill)
            theirs.close()
            self._console = Console(serial, SerialLog(self.run_dir, self._power_ons))
            self._shell = Shell(self._console, self.accel.timeout_scale)
            try:
                self._qmp = QMP(monitor)
                for guest_port in self._forwards:
                    wanted = self._fixed_ports.get(guest_port, 0)
                    self._forwards[guest_port] = networks.add_forward(self._qmp, guest_port, wanted)
            except QMPError as err:
                raise BootError(f"QEMU did not start: {self._stderr_tail() or err}") from err
            undo.pop_all()

    @staticmethod
    def _socket_pair(undo, theirs):
        # A pair made here needs no path, whose length is limited, and nobody else can connect to it.
        ours, other = socket.socketpair()
        undo.enter_context(ours)
        theirs.enter_context(other)
        return ours, other

    def _arguments(self, serial, monitor):
        argv = [
            accelerators.QEMU, *self.accel.arguments, "-smp", str(self._cpus), "-m", str(self._memory),
            "-name", self.run_dir.name, "-nodefaults", "-no-user-config", "-display", "none",
            "-chardev", f"socket,id=serial0,fd={serial}", "-serial", "chardev:serial0",
            "-chardev", f"socket,id=qmp0,fd={monitor}", "-mon", "chardev=qmp0,mode=control",
        ]
        if self.efi:
            argv += firmwares.arguments(self.run_dir / "efi-variables.fd", self.accel.kernel_words)
        else:
            argv += ["-kernel", str(self.image.kernel), "-append", self.cmdline]
            argv += ["-initrd", str(self.image.initrd)] if self.image.initrd else []
        if self.overlay:
            argv += images.drive_arguments(0, self.overlay, "qcow2", boot=self.efi)
        for number, drive in enumerate(self._drives, start=1):
            argv += images.drive_arguments(number, drive.path, drive.format, drive.readonly, drive.serial)
        return [*argv, *networks.arguments(self.network, self._restrict), *self._extra]

    def _stderr_tail(self):
        text = (self.run_dir / "qemu.stderr").read_text(errors="replace")
        return "; ".join(line for line in text.splitlines()[-3:] if "warning:" not in line)

    def start(self):
        """Power on and log in; return self. Raises BootError when the guest does not reach its prompt."""
        self.power_on()
        try:
            self.login()
        except BaseException:
            self.power_cut()
            raise
        return self

    def login(self, timeout=None):
        """Wait for root's prompt on the console (default: the machine's boot timeout); sets ``boot_seconds``."""
        self._need_running()
        self._shell.login(timeout or self._boot_timeout)
        self.boot_seconds = time.monotonic() - self.powered_on_at

    def power_cut(self):
        """Kill QEMU, as if the plug were pulled: what the guest had not synced is lost. ``start`` boots again."""
        self._cut()

    def _cut(self):
        process, self._process = self._process, None
        try:
            if process:
                process.kill()
        finally:
            self._shell = None
            for connection in (self._console, self._qmp):
                if connection:
                    connection.close()
            self._console = self._qmp = None

    def shutdown(self, timeout=60):
        """Have the guest power off cleanly and wait up to ``timeout`` seconds (scaled) until QEMU has ended.

        Raises EmulatorError when it does not; the machine is then still on.
        """
        self._need_login()
        # Without --no-block or with "poweroff -f" the answer may never come: the machine goes first.
        with contextlib.suppress(ConsoleError):
            self._shell.run(_POWEROFF, timeout, check=False)
        if self._process is None or self._process.wait(timeout * self.accel.timeout_scale) is None:
            tail = self._console.tail()
            raise EmulatorError(f"the guest did not power off; the console's last lines:\n{tail}")
        self._cut()

    def reset(self):
        """Press the reset button: no clean shutdown, the overlay stays; then log in again."""
        self._need_running()
        self._qmp.forget_events()
        self._qmp.command("system_reset")
        self._after_reset(10)

    def reboot(self, timeout=60):
        """Have the guest reboot cleanly and log in again; ``timeout`` seconds (scaled) are for going down."""
        self.restart_by(_REBOOT, timeout)

    def restart_by(self, command, timeout=60):
        """Run a command after which the guest restarts, and log in again; ``timeout`` seconds (scaled) are for the
        command and for going down.

        Raises EmulatorError when no restart follows.
        """
        self._need_login()
        self._qmp.forget_events()
        # systemd ends the console's shell before the command is answered, or after it.
        self._shell.give_up(command)
        self._after_reset(timeout)

    def _after_reset(self, timeout):
        self._qmp.wait_event("RESET", timeout * self.accel.timeout_scale)
        self.powered_on_at = time.monotonic()
        self._console.discard()
        try:
            self.login()
        except BaseException:
            self.power_cut()
            raise

    def wait(self, timeout):
        """Wait up to ``timeout`` seconds (not scaled) for QEMU to end by itself; tell whether it did."""
        return self._process is None or self._process.wait(timeout) is not None

    # Commands and files

    def run(self, command, timeout=30, check=True):
        """Run ``command`` in the guest; see ``Shell.run``, which raises CommandError and ConsoleError."""
        self._need_running()
        return self._shell.run(command, timeout, check)

    def upload(self, data, path, mode=0o644, timeout=60):
        """Write ``data`` (bytes) to a file of the guest; see ``Shell.upload``."""
        self._need_running()
        self._shell.upload(data, path, mode, timeout)

    def download(self, path, timeout=60):
        """Return the contents (bytes) of a file of the guest; see ``Shell.download``."""
        self._need_running()
        return self._shell.download(path, timeout)

    @property
    def console(self):
        """The pexpect object of the console, for what ``run`` cannot do; None while the machine is off."""
        return self._console

    def release_console(self):
        """Leave the console at the login shell's prompt; ``login`` takes it again."""
        self._need_running()
        self._shell.release()

    def wait_for_text(self, text, timeout):
        """Wait up to ``timeout`` seconds (scaled) for ``text`` in the console's output; raises ConsoleError.

        For what the guest prints by itself: the output is consumed.
        """
        self._need_running()
        try:
            self._console.expect_exact(text.encode(), timeout=timeout * self.accel.timeout_scale)
        except (TIMEOUT, EOF):
            raise ConsoleError(f"the console did not show '{text}'; its last lines:\n{self._console.tail()}") from None

    # Network

    def forward(self, guest_port, host_port=0):
        """Forward a port of 127.0.0.1 to TCP ``guest_port`` of the guest and return it, at any time.

        ``host_port`` 0 takes a free one. After a power cut ``start`` forwards again, perhaps from another
        port: ``port`` tells. Raises EmulatorError when the port is taken or there is no user network.
        """
        self._need_network()
        port = networks.add_forward(self._qmp, guest_port, host_port)
        self._forwards[guest_port] = port
        if host_port:
            self._fixed_ports[guest_port] = host_port
        return port

    def port(self, guest_port):
        """Return the port of 127.0.0.1 that is forwarded to ``guest_port`` now."""
        try:
            return self._forwards[guest_port]
        except KeyError:
            raise EmulatorError(f"port {guest_port} of the guest is not forwarded") from None

    def remove_forward(self, guest_port):
        """Stop forwarding to ``guest_port``."""
        self._need_network()
        networks.remove_forward(self._qmp, self.port(guest_port))
        del self._forwards[guest_port]
        self._fixed_ports.pop(guest_port, None)

    def set_link(self, up):
        """Plug the network cable of the guest in or pull it out."""
        self._need_network()
        self._qmp.command("set_link", name=networks.NIC, up=bool(up))

    def _need_network(self):
        self._need_running()
        if self.network == "none":
            raise EmulatorError("the machine has no network: start it with network='user'")

    def _need_running(self):
        if not self.running:
            raise EmulatorError("the machine is off")

    def _need_login(self):
        self._need_running()
        if not self._shell.ready:
            raise ConsoleError("nobody is logged in on the guest's console")

    # The end

    def close(self, failed=False):
        """Power off hard and remove the overlay unless it is to be kept; the logs stay."""
        try:
            self._cut()
        finally:
            keep = self._keep == "always" or (failed and self._keep == "failure")
            if self.overlay and not keep:
                self.overlay.unlink(missing_ok=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close(failed=True)
            raise

    def __exit__(self, kind, error, trace):
        self.close(failed=kind is not None)
