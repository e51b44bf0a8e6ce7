# SPDX-License-Identifier: MIT
"""Root, or what passes for it: a user namespace in which files may belong to any user."""

import os
import shutil
import subprocess

from fastlane.errors import BuildError

_MARK = "COMPOSEAPPS_IN_NAMESPACE"
_NAMESPACE = ["unshare", "--user", "--map-auto", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]


def become_root(argv):
    """Return when this process may give files to any user; else run ``argv`` again in a namespace where it may.

    Raises BuildError with the remedy when the system refuses user namespaces.
    """
    if os.geteuid() == 0:
        return
    if os.environ.get(_MARK) or not shutil.which("unshare"):
        raise BuildError("building needs root or util-linux's unshare: run it as root")
    probe = subprocess.run([*_NAMESPACE, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or ["unshare failed"])[-1]
        raise BuildError(f"without root the build needs a user namespace, and this system refuses one ({reason}): "
                         "install uidmap, give yourself a range in /etc/subuid and /etc/subgid, or run it as root")
    os.execvpe("unshare", [*_NAMESPACE, *argv], {**os.environ, _MARK: "1"})
