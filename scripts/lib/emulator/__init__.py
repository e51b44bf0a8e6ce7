# SPDX-License-Identifier: MIT
"""Boot an image in QEMU, run commands on its serial console, cut its power, take its network away.

    from emulator import Machine

    with Machine("build/deploy/composeapps-image-qemux86-64.json", network="user") as vm:
        print(vm.run("uname -r").stdout)
        port = vm.forward(80)      # a free port on 127.0.0.1
        vm.power_cut()
        vm.start()
"""

from .errors import BootError, CommandError, ConsoleError, EmulatorError, QMPError
from .image import Drive, ImageDescription
from .machine import Machine
from .shell import CommandResult

__all__ = [
    "BootError", "CommandError", "CommandResult", "ConsoleError", "Drive", "EmulatorError",
    "ImageDescription", "Machine", "QMPError",
]
