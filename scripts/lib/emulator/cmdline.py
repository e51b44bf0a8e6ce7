# SPDX-License-Identifier: MIT
"""The kernel command line for an image that this emulator boots."""

# What makes an emulated boot quicker and weakens the guest (mitigations=off, …) is not here: the machine adds
# it when it emulates, see accel.Accel.kernel_words, so that it does not get into a product by way of its image.
RECOMMENDED_CMDLINE = "root=/dev/vda rw console=ttyS0 quiet"
