# SPDX-License-Identifier: MIT
"""Run one program so that it never outlives the process that asked for it.

Run as a script, with Python's -I: ``supervise.py OWNER_PID REPORT_FD PROGRAM ARGUMENT…``. It is a
process of its own because PR_SET_PDEATHSIG counts the death of the *thread* that forked: set
directly on QEMU it would kill a machine whose starting thread has returned, and it must be set
between fork and exec, where a program with threads may do little. Here is one thread only.

OWNER_PID ends, however it ends: the program is killed. This supervisor is killed: the kernel
kills the program. The program's process id is written to REPORT_FD, which is then closed.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(argv):
    owner, report, program = int(argv[1]), int(argv[2]), argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    myself = os.getpid()

    def die_with_supervisor():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != myself:
            os._exit(1)

    try:
        watched = os.pidfd_open(owner)
    except ProcessLookupError:
        return 1
    if os.getppid() != owner:  # it died before the pidfd, which may name another process by now
        return 1
    inherited = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
    inherited = [fd for fd in inherited if fd not in (watched, report) and _is_open(fd)]
    try:
        child = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, preexec_fn=die_with_supervisor,
            pass_fds=inherited,
        )
    except OSError as err:
        print(f"cannot run {program[0]}: {err.strerror}", file=sys.stderr)
        return 127
    os.write(report, b"%d\n" % child.pid)
    os.close(report)
    # The sockets to the owner must be the program's alone, so that its end is seen as end-of-file.
    for fd in inherited:
        os.close(fd)
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    if any(fd == watched for fd, _ in poll.poll()):
        child.kill()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv))
