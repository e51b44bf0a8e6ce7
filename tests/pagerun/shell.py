# SPDX-License-Identifier: MIT
"""A bash that runs one block of commands after the other, as somebody does who reads a page."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from pathlib import Path

# The first command of a block that fails gives the block's status, as the reader sees it; the rest runs on.
_RUN = """\
_failed=0; trap '_now=$?; [ $_failed = 0 ] && _failed=$_now' ERR
. {block} > {output} 2>&1 < /dev/null
trap - ERR
echo "$_failed $PWD" >&{answers}
"""
# Variables of whoever runs this that a page's commands have as well: of programs that fetch, and of the emulator.
KEPT = ("PATH", "TERM", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY",
        "NO_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE",
        "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "COMPOSEAPPS_MIRROR", "COMPOSEAPPS_ACCEL",
        "SOURCE_MIRROR_URL", "GITCONFIG_FILE", "KAS_REPO_REF_DIR", "KAS_PREMIRRORS", "GOPROXY")


class Shell:
    """A bash with a home directory of its own.

    Arguments:
        directory: where it begins.

    Used as a context; all that it started ends with it.
    """

    def __init__(self, directory):
        self.directory, self._home = Path(directory), tempfile.TemporaryDirectory(prefix="composeapps-pages-")
        self._process = self._answers = None

    def __enter__(self):
        reading, writing = os.pipe()
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment.update(HOME=self._home.name, LANG="C.UTF-8", PYTHONDONTWRITEBYTECODE="1", COLUMNS="80")
        self._process = subprocess.Popen(["bash", "--noprofile", "--norc"], stdin=subprocess.PIPE, cwd=self.directory,
                                         env=environment, text=True, pass_fds=[writing], start_new_session=True)
        os.close(writing)
        self._writing, self._answers = writing, os.fdopen(reading)
        return self

    def __exit__(self, *_error):
        self.kill()
        self._answers.close()
        self._home.cleanup()

    def kill(self):
        """End it, and what it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait()

    def run(self, text, timeout):
        """Run a block.

        Arguments:
            text: the commands.
            timeout: seconds that they may take.

        Returns (exit status of the first command that failed, else 0; what was printed on both outputs), the status
        None when the time was over or the shell has ended.
        """
        block, output = Path(self._home.name, "block"), Path(self._home.name, "output")
        block.write_text(text)
        output.write_text("")
        try:
            self._process.stdin.write(_RUN.format(block=block, output=output, answers=self._writing))
            self._process.stdin.flush()
        except BrokenPipeError:
            return None, ""
        ready, _, _ = select.select([self._answers], [], [], timeout)
        line = self._answers.readline() if ready else ""
        said = output.read_text(errors="replace")
        if not line:
            self.kill()
            return None, said
        status, _, where = line.rstrip("\n").partition(" ")
        self.directory = Path(where)
        return int(status), said
