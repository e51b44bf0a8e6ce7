# SPDX-License-Identifier: MIT
"""A slow, far or lossy network between two network namespaces, packet by packet.

Two tun devices, one in each namespace, and a process that carries the packets from one to the
other: late, at a limited rate, not all of them. What the TCP of both ends makes of that is real.
For kernels without netem.
"""

import contextlib
import ctypes
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import deque

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PR_SET_PDEATHSIG = 1
NEAR, FAR = "10.211.7.2", "10.211.7.1"
MTU = 1500
# What a packet's headers take of the MTU: IPv4, TCP with time stamps.
HEADERS = 20 + 32
_libc = ctypes.CDLL(None, use_errno=True)


def payload_rate(rate):
    """Return how many of ``rate`` bytes a second of full packets TCP can use."""
    return rate * (MTU - HEADERS) / MTU


class Link:
    """A network of two hosts; a context manager. Needs root and /dev/net/tun.

    Arguments:
        rate: bytes a second from the far to the near end, 0 for no limit; packets beyond ``queue`` bytes are lost.
        delay: seconds that a packet takes in each direction.
        loss: the share of packets from the far to the near end that is lost.
        congestion: the far end's TCP congestion control.

    ``listening`` is a listening TCP socket at the far end; ``enter`` are words before a command that
    make it run at the near end.
    """

    def __init__(self, rate=0, delay=0.0, loss=0.0, queue=256 * 1024, congestion="cubic"):
        self._rate, self._delay, self._loss, self._queue = rate, delay, loss, queue
        self._congestion = congestion
        self._child = None

    def __enter__(self):
        near, far = _Host(NEAR, FAR), _Host(FAR, NEAR, self._congestion)
        self.listening, self._namespace = far.listening, near.namespace
        near.listening.close()
        self.enter = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{near.namespace}"]
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            try:
                _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    _carry(near.tun, far.tun, self._rate, self._delay, self._loss, self._queue)
            finally:
                os._exit(1)
        for descriptor in (near.tun, far.tun, far.namespace):
            os.close(descriptor)
        return self

    def __exit__(self, *_exc):
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        os.close(self._namespace)
        self.listening.close()


class _Host:
    """A network namespace with a tun device: descriptors ``tun`` and ``namespace``, the socket ``listening``."""

    def __init__(self, address, peer, congestion=None):
        self._failure = None
        thread = threading.Thread(target=self._make, args=(address, peer, congestion))
        thread.start()
        thread.join()
        if self._failure:
            raise self._failure

    def _make(self, address, peer, congestion):
        try:
            # A namespace is the thread's own; the thread ends, what was opened in it stays.
            if _libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "a network namespace takes root")
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"link0", IFF_TUN | IFF_NO_PI))
            for words in (f"addr add {address}/32 peer {peer} dev link0", f"link set link0 mtu {MTU} up",
                          "link set lo up"):
                subprocess.run(["ip", *words.split()], check=True)
            self.listening = socket.socket()
            if congestion:
                self.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
            self.listening.bind((address, 0))
            self.listening.listen(64)
            self.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        except (OSError, subprocess.CalledProcessError) as err:
            self._failure = err


def _carry(near, far, rate, delay, loss, queue):
    """Carry packets between two tun devices until killed."""
    for descriptor in (near, far):
        os.set_blocking(descriptor, False)
    waiting = {near: deque(), far: deque()}
    free_at = 0.0
    chance = random.Random(0)
    while True:
        now = time.monotonic()
        for target, packets in waiting.items():
            while packets and packets[0][0] <= now:
                packet = packets.popleft()[1]
                with contextlib.suppress(BlockingIOError):
                    os.write(target, packet)
        due = min((packets[0][0] for packets in waiting.values() if packets), default=None)
        ready = select.select([near, far], [], [], None if due is None else max(due - time.monotonic(), 0))[0]
        now = time.monotonic()
        for source in ready:
            for _ in range(64):
                try:
                    packet = os.read(source, 65536)
                except BlockingIOError:
                    break
                if source == near:
                    waiting[far].append((now + delay, packet))
                elif chance.random() >= loss:
                    # As a router's queue: what is beyond it is lost, not late.
                    backlog = max(free_at - now, 0) * rate
                    if rate and backlog > queue:
                        continue
                    free_at = max(free_at, now) + (len(packet) / rate if rate else 0)
                    waiting[near].append((free_at + delay, packet))
