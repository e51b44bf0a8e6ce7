# SPDX-License-Identifier: MIT
"""A target of oeqa whose commands go over the serial console of a virtual machine."""

from pathlib import Path

from emulator.errors import ConsoleError

# What oeqa's targets report for a command that did not end in time.
_TIMED_OUT = -15
_DEFAULT_TIMEOUT = 300
_NO_LIMIT = 24 * 3600


class SerialTarget:
    """What oeqa's cases expect of ``self.target``; its ``OETarget`` describes the methods.

    Arguments:
        machine: a logged-in emulator Machine. Its time limits are scaled for emulation.
        logger: gets each command and its output, at level DEBUG.
    """

    # oeqa looks here for a QEMU of its own, and for addresses: there is neither.
    runner = None
    ip = server_ip = ""

    def __init__(self, machine, logger):
        self.machine = machine
        self.logger = logger

    def start(self, **_arguments):
        """Do nothing: the machine is on."""

    def stop(self, **_arguments):
        """Do nothing: the machine belongs to the caller."""

    def run(self, cmd, timeout=None, ignore_status=True, raw=False, **_arguments):
        """Run ``cmd`` on the device and return (exit status, output and error together).

        ``timeout`` is in seconds: None for the default of 300, 0 for none. ``raw`` gives the output as bytes.
        A command that does not end in time has the status -15, as with oeqa's ssh target. Raises AssertionError
        for a status other than 0 unless ``ignore_status``.
        """
        limit = _DEFAULT_TIMEOUT if timeout is None else timeout or _NO_LIMIT
        self.logger.debug("running: %s", cmd)
        try:
            result = self.machine.run(f"export PATH=/usr/sbin:/sbin:/usr/bin:/bin; {cmd}", limit, check=False)
        except ConsoleError as err:
            status, output = _TIMED_OUT, str(err)
        else:
            status, output = result.exit_status, result.stdout.rstrip("\r\n")
            if raw:
                output = result.raw
        self.logger.debug("status %s: %s", status, output)
        if status and not ignore_status:
            raise AssertionError(f"command '{cmd}' returned non-zero exit status {status}:\n{output}")
        return status, output

    def copyTo(self, localSrc, remoteDst):  # noqa: N802,N803 - oeqa's names
        """Copy a small file to the device; return (0, "")."""
        source = Path(localSrc)
        self.machine.upload(source.read_bytes(), remoteDst, source.stat().st_mode & 0o777)
        return 0, ""

    def copyFrom(self, remoteSrc, localDst, warn_on_failure=False):  # noqa: N802,N803 - oeqa's names
        """Copy a small file from the device; return (0, "")."""
        Path(localDst).write_bytes(self.machine.download(remoteSrc))
        return 0, ""
