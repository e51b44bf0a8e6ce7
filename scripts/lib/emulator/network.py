# SPDX-License-Identifier: MIT
"""QEMU's user-mode network of a running machine: forwards on free ports of the loopback, the link."""

import re

from .errors import EmulatorError

NETDEV, NIC = "net0", "nic0"
HOST_ADDRESS = "10.0.2.2"  # what a guest on the user network calls the host's loopback

# A line of "info usernet": protocol[state], file descriptor, source address and port, destination address and port.
_FORWARD = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s", re.MULTILINE)


def arguments(network, restrict):
    """Return QEMU's arguments for ``network`` ("none" or "user"); raise EmulatorError for another word."""
    if network == "none":
        return ["-nic", "none"]
    if network != "user":
        raise EmulatorError(f"the network '{network}' is not known: it must be none or user")
    return [
        "-netdev", f"user,id={NETDEV},restrict={'on' if restrict else 'off'}",
        "-device", f"virtio-net-pci,netdev={NETDEV},id={NIC},romfile=",
    ]


def forwards(qmp):
    """Return the forwards QEMU has now, as a set of (host port, guest port)."""
    return {(int(host), int(guest)) for host, guest in _FORWARD.findall(qmp.human("info usernet"))}


def add_forward(qmp, guest_port, host_port=0):
    """Forward ``host_port`` of 127.0.0.1 (0: a free one that the kernel chooses) to the guest; return the port.

    Raises EmulatorError when the port is taken.
    """
    before = forwards(qmp)
    said = qmp.human(f"hostfwd_add {NETDEV} tcp:127.0.0.1:{host_port}-:{guest_port}").strip()
    added = {host for host, guest in forwards(qmp) - before if guest == guest_port}
    if said or len(added) != 1:
        wanted = f"port {host_port} of 127.0.0.1" if host_port else "a free port"
        reason = said or "QEMU lists no such forward"
        raise EmulatorError(f"cannot forward {wanted} to port {guest_port} of the guest: {reason}")
    return added.pop()


def remove_forward(qmp, host_port):
    """Remove the forward of ``host_port``; connections that are open stay."""
    qmp.human(f"hostfwd_remove {NETDEV} tcp:127.0.0.1:{host_port}")
