# SPDX-License-Identifier: MIT
"""Run oeqa runtime cases on a device that is reached over its serial console, such as the emulator's.

``bitbake -c testimage`` brings oeqa, boots the image and runs the cases over ssh. Here the cases are the same,
oeqa is openembedded-core's too, or whatever else offers its names, and the device is a logged-in ``Machine``:
it needs no ssh server, no network and no build directory.
"""

from .cases import CASES, OeqaError, Result, run_cases
from .target import SerialTarget

__all__ = ["CASES", "OeqaError", "Result", "SerialTarget", "run_cases"]
