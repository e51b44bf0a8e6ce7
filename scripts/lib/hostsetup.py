# SPDX-License-Identifier: MIT
"""Bring a fresh Debian or Ubuntu machine to where a command of scripts/ can run.

Stdlib-only: it runs under the machine's own Python. ``enter`` installs what is
missing (Debian packages with apt-get, Python packages into build/venv) and then
runs the same command again under that virtual environment.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("COMPOSEAPPS_BUILD", TOP / "build"))
LAYER = TOP / "meta-composeapps"
TOOLS = BUILD / "tools"
# BitBake does not start without it, and kas gives it to all that runs in a build directory.
LOCALE = "en_US.UTF-8"

# Feature -> {a file or program that shows it is there: the Debian package that brings it}.
FEATURES = {
    "image": {
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "newuidmap": "uidmap",
        "patch": "patch",
        "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
        "zstd": "zstd",
        # A disk with partitions.
        "bmaptool": "bmap-tools", "debugfs": "e2fsprogs", "mcopy": "mtools", "mkfs.erofs": "erofs-utils",
        "mkfs.vfat": "dosfstools", "sfdisk": "fdisk",
    },
    "qemu": {
        "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils",
        "/usr/share/OVMF/OVMF_VARS_4M.fd": "ovmf",
    },
    "flash": {"bmaptool": "bmap-tools", "sfdisk": "fdisk", "ssh-keygen": "openssh-client", "zstd": "zstd"},
    "provision": {"openssl": "openssl", "sfdisk": "fdisk"},
    # The registry itself is taken out of a Debian package, whose lists other distributions do not trust by themselves.
    "registry": {"/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"},
    # Keys are encrypted by openssl; nginx is taken out of its package as the registry is.
    "gate": {"openssl": "openssl", "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"},
    # What runs BitBake or kas; see install_locale.
    "locale": {},
    # openembedded-core's HOSTTOOLS, and those that it wants for testimage.
    "bitbake": {
        "ar": "binutils", "bzip2": "bzip2", "chrpath": "chrpath", "cpio": "cpio", "diffstat": "diffstat",
        "file": "file", "g++": "g++", "gawk": "gawk", "gcc": "gcc", "git": "git", "lz4": "lz4", "make": "make",
        "patch": "patch", "perl": "perl", "pzstd": "zstd", "rpcgen": "rpcsvc-proto", "unshare": "util-linux",
        "wget": "wget", "which": "debianutils", "xz": "xz-utils",
        "ip": "iproute2", "ping": "iputils-ping", "ps": "procps", "ssh": "openssh-client",
    },
    # Programs that stand in for what openembedded-core would build.
    "execute": {
        "apt-ftparchive": "apt-utils", "debugfs": "e2fsprogs", "dpkg-split": "dpkg", "mkfs.ext4": "e2fsprogs",
        "pseudo": "pseudo", "/usr/lib/rpm/rpmdeps": "rpm", "systemctl": "systemd",
    },
    "conformance": {"faketime": "faketime"},
    "bench": {"skopeo": "skopeo", "ip": "iproute2", "nsenter": "util-linux"},
    "tests": {
        "openssl": "openssl", "unshare": "util-linux", "pivot_root": "util-linux-extra", "depmod": "kmod",
        "mke2fs": "e2fsprogs", "fish": "fish", "zsh": "zsh", "mkfs.xfs": "xfsprogs",
    },
}

# Feature -> {a program that is taken out of a Debian package into build/tools: the package}. These are not
# installed: the package of a server would start it, and whether busybox is static is Debian's choice.
EXTRACTED = {
    "registry": {"docker-registry": "docker-registry"},
    "gate": {"nginx": "nginx"},
    "tests": {"docker-registry": "docker-registry", "busybox": "busybox-static", "nginx": "nginx"},
}


class SetupError(Exception):
    """Something is missing and could not be installed; the message says what to do."""


def _present(thing):
    if thing.startswith("/"):
        return os.path.exists(thing)
    return shutil.which(thing, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def missing_packages(features):
    """Return the sorted Debian packages that ``features`` need and the machine lacks."""
    wanted = [FEATURES.get(name, {}) for name in features]
    return sorted({package for feature in wanted for thing, package in feature.items() if not _present(thing)})


def _run(argv, what, **kwargs):
    """Run ``argv`` quietly; raise SetupError with the last lines of its output when it fails."""
    print(f"setup: {what}", file=sys.stderr, flush=True)
    started = time.monotonic()
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", check=False, **kwargs,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise SetupError(f"{what} failed ({' '.join(map(str, argv[:4]))} …):\n{tail}")
    print(f"setup: {what}: done in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _as_root(packages):
    """Return the words that make a command run as root; raise SetupError when nothing does."""
    listed = " ".join(packages)
    if not shutil.which("apt-get"):
        raise SetupError(f"this machine has no apt-get: install the equivalents of '{listed}' by hand")
    if os.geteuid() == 0:
        return ["env", "DEBIAN_FRONTEND=noninteractive"]
    if not shutil.which("sudo"):
        raise SetupError(f"not root and no sudo: run 'apt-get install {listed}' as root, then try again")
    return ["sudo", "env", "DEBIAN_FRONTEND=noninteractive"]


def install_packages(packages):
    """Install Debian packages with apt-get, as root or through sudo."""
    if not packages:
        return
    prefix = _as_root(packages)
    _run([*prefix, "apt-get", "update"], "reading Debian's package lists")
    install = [*prefix, "apt-get", "install", "-y", "--no-install-recommends", *packages]
    _run(install, f"installing {' '.join(packages)}")


def has_locale(name):
    """Tell whether programs of this machine get the locale ``name``, by asking for it as they do."""
    # In a process of its own: the C library looks for locales once.
    code = f"import locale; locale.setlocale(locale.LC_ALL, {name!r})"
    return not subprocess.run([sys.executable, "-I", "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False).returncode


def install_locale(features):
    """Make LOCALE when ``features`` have "locale" and the machine lacks it."""
    if "locale" not in features or has_locale(LOCALE):
        return
    if not _present("localedef") or not os.path.exists("/usr/share/i18n/locales/en_US"):
        install_packages(["locales"])
    _run([*_as_root(["locales"]), "localedef", "-i", "en_US", "-f", "UTF-8", LOCALE], f"making the locale {LOCALE}")
    if not has_locale(LOCALE):
        raise SetupError(f"localedef made the locale {LOCALE}, but programs do not get it: unset LOCPATH, "
                         "or see what 'locale -a' lists")


def extract_programs(features):
    """Put the programs that ``features`` take out of packages into build/tools/bin, unless they are there."""
    programs = {name: package for feature in features for name, package in EXTRACTED.get(feature, {}).items()}
    for name, package in sorted(programs.items()):
        if not (TOOLS / "bin" / name).exists():
            _extract(name, package)


def _extract(name, package):
    TOOLS.joinpath("bin").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as directory:
        # apt hands the download to a user of its own where it can.
        os.chmod(directory, 0o777)
        try:
            _run(["apt-get", "download", package], f"fetching {package}", cwd=directory)
        except SetupError:
            # A fresh machine has no package lists yet.
            _run([*_as_root([package]), "apt-get", "update"], "reading Debian's package lists")
            _run(["apt-get", "download", package], f"fetching {package}", cwd=directory)
        for archive in Path(directory).glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(archive), directory], f"unpacking {package}")
        found = [path for path in Path(directory).rglob(name) if path.parent.name in ("bin", "sbin") and path.is_file()]
        if not found:
            raise SetupError(f"the package {package} holds no program {name}")
        with open(found[0], "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(found[0], TOOLS / "bin" / name)


def venv_python(extras):
    """Return the Python of build/venv after making sure that it holds the given extras of pyproject.toml."""
    with open(TOP / "pyproject.toml", "rb") as stream:
        optional = tomllib.load(stream)["project"]["optional-dependencies"]
    wanted = [requirement for extra in extras for requirement in optional[extra]]
    venv = BUILD / "venv"
    python = venv / "bin" / "python"
    base = f"{sys.version_info[:2]} {os.path.realpath(sys.base_prefix)}"
    stamps = {extra: hashlib.sha256(repr((base, optional[extra])).encode()).hexdigest()[:16] for extra in extras}
    stamp_files = [venv / f".{extra}-{stamp}" for extra, stamp in stamps.items()]
    if all(path.exists() for path in stamp_files) and python.exists():
        return python
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        install_packages(["python3-venv"])
    if not any(path.exists() for path in stamp_files):
        shutil.rmtree(venv, ignore_errors=True)
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(venv)], f"making a virtual environment in {venv}")
    _run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
        "installing Python packages",
    )
    purelib = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()
    # A path file instead of an editable install: nothing is written into the layer's tree.
    Path(purelib, "meta-composeapps.pth").write_text(f"{LAYER / 'lib'}\n{TOP / 'scripts' / 'lib'}\n")
    for path in stamp_files:
        path.touch()
    return python


@contextlib.contextmanager
def alone():
    """Let one command at a time set the machine up; the next one finds it done."""
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        lock = open(BUILD / ".setup", "w")  # noqa: SIM115
    except PermissionError:
        # Another user's directory, where nothing can be set up.
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another command sets this machine up: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def enter(*features, extras=("host",)):
    """Install what ``features`` and ``extras`` need, then continue under build/venv.

    Returns when this process already runs under the virtual environment; otherwise it
    replaces the process. Ends it with status 1 and one sentence when something is missing
    and cannot be installed.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before any of our requirements is enforced
        sys.exit("this needs Python 3.11 or later: on Debian 12 and Ubuntu 24.04 it is the default python3")
    try:
        with alone():
            install_packages(missing_packages(features))
            install_locale(features)
            extract_programs(features)
            python = venv_python(extras)
    except SetupError as err:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {err}")
    # Byte code goes beside the build, not into the layer that BitBake hashes.
    bytecode = os.path.abspath(BUILD / "pycache")
    if Path(sys.prefix).resolve() == (BUILD / "venv").resolve():
        sys.pycache_prefix = sys.pycache_prefix or bytecode
        os.environ.setdefault("PYTHONPYCACHEPREFIX", bytecode)
    else:
        env = {
            **os.environ,
            "PYTHONPYCACHEPREFIX": bytecode,
            "PATH": f"{TOOLS / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin",
        }
        os.execve(python, [str(python), *sys.argv], env)
