# SPDX-License-Identifier: MIT
"""EFI firmware for a guest: it boots from its disk by itself, as a device does."""

import json
import shutil
from pathlib import Path

from .errors import EmulatorError

# Debian's and Ubuntu's package ovmf: the program, and variables as they are on a new machine.
_PAIRS = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
)


def arguments(variables, kernel_words=()):
    """Return QEMU's arguments.

    Arguments:
        variables: the file of the firmware's variables, which is made when it is not there and lasts over boots.
        kernel_words: added to the kernel's command line, by systemd-boot 254 or later (systemd-boot(7)).

    Raises EmulatorError when no firmware is installed.
    """
    found = next(((code, store) for code, store in _PAIRS if Path(code).is_file() and Path(store).is_file()), None)
    if not found:
        raise EmulatorError("there is no EFI firmware for the guest: on Debian, install the package ovmf")
    if not Path(variables).exists():
        shutil.copyfile(found[1], variables)
    words = []
    for name, path, readonly in (("efi-code", found[0], True), ("efi-variables", variables, False)):
        words += ["-blockdev", json.dumps({"driver": "raw", "node-name": name, "read-only": readonly, "file": {
            "driver": "file", "filename": str(Path(path).resolve()), "read-only": readonly}})]
    words += ["-machine", "pflash0=efi-code,pflash1=efi-variables"]
    if kernel_words:
        words += ["-smbios", f"type=11,value=io.systemd.boot.kernel-cmdline-extra={' '.join(kernel_words)}"]
    return words
