# SPDX-License-Identifier: MIT
"""Debian packages of any suite and architecture, downloaded by apt with a state of its own.

Nothing of the host's apt is changed: lists, status, sources and cache all live under
the given directory. What the host's apt configuration says about proxies still holds.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from composeapps.errors import ComposeAppsError

DEFAULT_MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_URI_LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) (?P<hash>\S+)")


class PackageError(ComposeAppsError):
    """Debian packages could not be had or read."""


@dataclass(frozen=True)
class Package:
    """A downloaded package: its name, version, architecture ("amd64", "arm64", "all") and file."""

    name: str
    version: str
    architecture: str
    path: Path
    sha256: str


class PackageSource:
    """Downloads packages of one suite.

    :param directory: where the lists and packages are kept from one call to the next
    :param suite: e.g. "trixie"
    :param architectures: Debian names, e.g. ``["amd64", "arm64"]``; the first is the default one
    :param mirror: base URL of the archive; the environment's COMPOSEAPPS_MIRROR by default
    """

    def __init__(self, directory, suite, architectures, mirror=None):
        self.directory = Path(directory).resolve()
        self.suite = suite
        self.architectures = list(architectures)
        self.mirror = mirror or os.environ.get("COMPOSEAPPS_MIRROR") or DEFAULT_MIRROR

    def update(self):
        """Read the suite's package lists from the mirror.

        :raises PackageError: the mirror cannot be reached or its signature does not hold
        """
        self._configure()
        self._apt("apt-get", "--error-on=any", "update")

    def fetch(self, wanted):
        """Download packages that are not there yet, checking each one's hash.

        :param wanted: ``(name, architecture)`` pairs
        :returns: ``{(name, architecture): Package}``
        :raises PackageError: a package does not exist or cannot be downloaded
        """
        wanted = sorted(set(wanted))
        self._configure()
        names = [f"{name}:{architecture}" for name, architecture in wanted]
        debs = self.directory / "debs"
        debs.mkdir(exist_ok=True)
        offers = [_URI_LINE.fullmatch(line.strip()) for line in
                  self._apt("apt-get", "download", "--print-uris", *names).splitlines() if line.startswith("'")]
        offers = [(offer["file"], offer["hash"]) for offer in offers if offer]
        missing = [file for file, sum_ in offers if not _matches(debs / file, sum_)]
        if missing:
            # By exact version, so that what arrives is what was listed.
            exact = [f"{name}:{architecture}={version}" for name, version, architecture in map(_split, missing)]
            self._apt("apt-get", "download", *exact, cwd=debs)
        found = {}
        for file, sum_ in offers:
            path = debs / file
            if not _matches(path, sum_):
                raise PackageError(f"{path} does not have the {sum_} that the package list promises")
            name, version, architecture = _split(file)
            for arch in self.architectures if architecture == "all" else [architecture]:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[name, arch] = Package(name, version, architecture, path, digest)
        for name, architecture in wanted:
            if (name, architecture) not in found:
                raise PackageError(f"package {name}:{architecture} was not downloaded from {self.mirror}")
        return {key: found[key] for key in wanted}

    def _configure(self):
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").touch()
        (self.directory / "sources.list").write_text(
            f"deb [signed-by={KEYRING}] {self.mirror} {self.suite} main\n"
        )
        architectures = " ".join(f'"{name}";' for name in self.architectures)
        (self.directory / "apt.conf").write_text(
            # The host's hooks are about the host.
            "#clear APT::Update;\n#clear DPkg;\n"
            f'Dir::State "{self.directory}/state";\n'
            f'Dir::State::status "{self.directory}/status";\n'
            f'Dir::Cache "{self.directory}/cache";\n'
            'Dir::Cache::pkgcache "pkgcache.bin";\n'
            'Dir::Cache::srcpkgcache "srcpkgcache.bin";\n'
            f'Dir::Etc::SourceList "{self.directory}/sources.list";\n'
            'Dir::Etc::SourceParts "/dev/null";\n'
            'Dir::Etc::Preferences "/dev/null";\n'
            'Dir::Etc::PreferencesParts "/dev/null";\n'
            f'APT::Architecture "{self.architectures[0]}";\n'
            f"APT::Architectures {{ {architectures} }};\n"
            'APT::Sandbox::User "root";\n'
            'Acquire::Languages "none";\n'
            'Acquire::Retries "3";\n'
        )

    def _apt(self, program, *args, cwd=None):
        if not shutil.which(program):
            raise PackageError(f"{program} is not installed: the demo's images are made of Debian packages, with apt")
        done = subprocess.run(
            [program, "-qq", "-c", str(self.directory / "apt.conf"), *args], cwd=cwd, text=True, errors="replace",
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            errors = [line[2:].strip() for line in done.stderr.splitlines() if line.startswith("E:")]
            reason = errors[0] if errors else f"{program} ended with {done.returncode}"
            raise PackageError(f"apt could not get packages of {self.suite} from {self.mirror}: {reason}")
        return done.stdout


def _split(file):
    """Return (name, version, architecture) of a .deb's file name, where apt writes ':' as %3a."""
    name, version, rest = file.split("_")
    return name, unquote(version), rest.removesuffix(".deb")


def _matches(path, expected):
    algorithm, _, digest = expected.partition(":")
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm.lower()).hexdigest() == digest


def read_files(package):
    """Yield ``(tarfile.TarInfo, bytes or None)`` for each entry of a package's file system archive.

    :raises PackageError: the package cannot be unpacked
    """
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package.path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpack:
        try:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
                for info in archive:
                    yield info, archive.extractfile(info).read() if info.isreg() else None
        except tarfile.TarError as err:
            raise PackageError(f"{package.path} cannot be unpacked: {err}") from None
    if unpack.returncode:
        raise PackageError(f"{package.path} cannot be unpacked (dpkg-deb ended with {unpack.returncode})")
