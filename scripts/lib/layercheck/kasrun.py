# SPDX-License-Identifier: MIT
"""Run kas on a combination: what it makes of the files, the checkout of the layers, commands among them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from composeapps import durable
from layercheck import process
from layercheck.errors import CheckError

# BitBake refuses to run as root, since recipes then could write anywhere. In a user namespace of its own, which maps
# root to a plain user, it sees that user, and the files that it makes belong to whoever started it.
_AS_NOBODY_SPECIAL = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]

_CHECK_SETTINGS = """\
# A parse and a dry run fetch nothing, and need not find out whether they could.
BB_NO_NETWORK = "1"
CONNECTIVITY_CHECK_URIS = ""
"""


def unprivileged(argv):
    """Return ``argv``, so wrapped that it does not run as root."""
    return [*_AS_NOBODY_SPECIAL, *argv] if os.geteuid() == 0 else list(argv)


class Kas:
    """kas with the user's mirrors and fragments; a context manager that takes its copies of fragments away again.

    Arguments:
        top: the repository, whose kas/ has the files.
        directory: for logs, build directories and what else is written.
        layers: where kas checks out (KAS_WORK_DIR).
        extra: more kas files for the end of each combination (--with).

    Raises CheckError when a file of ``extra`` is not there, or the directory is of no use to kas.
    """

    def __init__(self, top, directory, layers, extra=()):
        self.top, self.directory, self.layers = Path(top), Path(directory), Path(layers)
        # kas wants all files that it joins in one repository: what comes from elsewhere is copied into ours.
        own = hashlib.sha256(os.fsencode(self.directory.resolve())).hexdigest()[:12]
        self._fragments = self.top / "build" / "layercheck" / "fragments" / own
        for path in (self.directory / "build", self.layers, self._fragments):
            durable.make_directories(path)
        self.environment = self._environment()
        self.use_mirrors({})
        try:
            self._extra = [self._copy(number, Path(path)) for number, path in enumerate(extra)]
        except CheckError:
            self.__exit__()
            raise
        self._settings = self._fragments / "check-layer.yml"
        durable.write_file(self._settings, json.dumps({
            "header": {"version": 20},
            "env": {
                # Byte code of the layer's package must not land in the layer, which BitBake hashes.
                "PYTHONPYCACHEPREFIX": str(self.directory / "pycache"),
                # openembedded-core makes COMBINED_FEATURES from a set. With the order another each time, BitBake
                # takes the configuration for a new one and parses everything again.
                "PYTHONHASHSEED": "0",
            },
            "local_conf_header": {"zz-check-layer": _CHECK_SETTINGS},
        }, indent=1).encode())

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        shutil.rmtree(self._fragments, ignore_errors=True)

    def _copy(self, number, path):
        target = self._fragments / f"with-{number}-{path.stem}.yml"
        try:
            durable.write_file(target, path.read_bytes())
        except OSError as err:
            raise CheckError(f"--with {path}: {err.strerror}: name a kas file that can be read") from err
        return target

    def _environment(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # The history of the layers is of no interest here.
        environment.setdefault("KAS_CLONE_DEPTH", "1")
        environment["KAS_WORK_DIR"] = str(self.layers)
        environment["GIT_TERMINAL_PROMPT"] = "0"
        return environment

    def use_mirrors(self, mirrors):
        """Let git take {URL prefix: path or URL} in place of those URLs, besides what the user's configuration says.

        Raises CheckError when GITCONFIG_FILE is set and cannot be read.
        """
        own = os.environ.get("GITCONFIG_FILE")
        source = Path(own) if own else Path(os.environ.get("HOME", "/")) / ".gitconfig"
        lines = []
        try:
            lines.append(source.read_text())
        except OSError as err:
            if own:
                raise CheckError(f"GITCONFIG_FILE names {own}, which cannot be read: {err.strerror}") from err
        for url, place in mirrors.items():
            # git clones a plain path whole; it takes the depth into account for a URL.
            target = f"file://{Path(place).resolve()}" if Path(place).exists() else place
            lines.append(f'[url "{_quoted(target)}"]\n\tinsteadOf = "{_quoted(url)}"\n')
        path = self.directory / "gitconfig"
        durable.write_file(path, "\n".join(lines).encode(), mode=0o600)
        self.environment["GITCONFIG_FILE"] = str(path)

    def files(self, combination):
        """Return the argument that names all files of ``combination`` to kas."""
        paths = [self.top / name for name in combination.files]
        return ":".join(map(str, [*paths, *self._extra, self._settings]))

    def build_directory(self, combination):
        """Return the build directory (TOPDIR) of ``combination``; each has its own, so that its cache stays good."""
        return self.directory / "build" / combination.name

    def dump(self, combination):
        """Return what kas makes of the files of ``combination``, with nothing fetched.

        Raises CheckError with what kas says when a file is missing or breaks kas's schema.
        """
        argv = [sys.executable, "-m", "kas", "dump", "--format", "json", "--skip", "repos_checkout",
                "--skip", "finish_setup_repos", self.files(combination)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              env=self.environment, cwd=self.top, check=False)
        if done.returncode:
            raise CheckError(_error_of(done.stderr.splitlines() + done.stdout.splitlines()))
        return json.loads(done.stdout)

    def checkout(self, combination, log):
        """Bring the layers to the revisions of ``combination`` and write its conf/; raises CheckError."""
        configuration = self.build_directory(combination) / "conf"
        before = _times(configuration)
        status = self._run(combination, ["checkout"], log)
        if status:
            raise CheckError(_error_of(log.read_text(errors="replace").splitlines()))
        _keep_times(before)

    def shell(self, combination, command, log, **callbacks):
        """Run the shell command ``command`` in the build directory; return its exit status.

        ``callbacks`` are those of process.run. Call checkout before.
        """
        # kas would write conf/ once more, and BitBake throws its cache away when that is newer.
        return self._run(combination, ["shell", "--keep-config-unchanged", "--command", command], log, **callbacks)

    def _run(self, combination, words, log, **callbacks):
        environment = {**self.environment, "KAS_BUILD_DIR": str(self.build_directory(combination))}
        argv = [sys.executable, "-m", "kas", *words, self.files(combination)]
        return process.run(unprivileged(argv), log, environment, self.top, **callbacks)


def _quoted(text):
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _error_of(lines):
    """Return what kas complains about, in one line."""
    errors = [line.split(" - ERROR", 1)[1].lstrip(" -") for line in lines if " - ERROR" in line]
    if any("validation Error" in error for error in errors):
        # What is wrong with a file follows on lines of its own.
        details = [line for line in lines if line.strip() and " - " not in line]
        where = [error.rsplit(": ", 1)[-1] for error in errors if "config file:" in error]
        return process.without_logins(f"{' '.join(where)}: {'; '.join(details)}")
    said = "; ".join(errors) or next((line for line in reversed(lines) if line.strip()), "kas failed and said nothing")
    return process.without_logins(said)


def _times(directory):
    """Return {file: (its content, its times)} of the files in ``directory``."""
    found = {}
    with suppress(OSError):
        for path in directory.iterdir():
            if path.is_file():
                status = path.stat()
                found[path] = path.read_bytes(), (status.st_atime_ns, status.st_mtime_ns)
    return found


def _keep_times(before):
    """Give files that were written again with what they had already their old times: nothing has changed."""
    for path, (content, times) in before.items():
        with suppress(OSError):
            if path.read_bytes() == content:
                os.utime(path, ns=times)
