# SPDX-License-Identifier: MIT
"""What a manufacturer gets of a disk: its map, compressed, with sums, and a manifest that says what it is.

``NAME.release.json`` is one JSON object: "format" (1), "image" and "machine", "files" {name: {"size", "sha256"}},
"layers" {name: {"revision", "changed"}} of git, "apps" {name: pinned reference}, "contents" (recipes and Debian
packages with versions) and, where there is one, "sbom" (the name of a file in "files"). NAME.SHA256SUMS has the same
sums as sha256sum(1) reads them. A signature is OpenSSH's (``ssh-keygen -Y sign``, PROTOCOL.sshsig), of the manifest, in
NAME.release.json.sig: everybody has ssh-keygen, and its keys may lie in hardware.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path

from composeapps import beneath, durable
from fastlane import filesystems
from fastlane.errors import BuildError

NAMESPACE = "composeapps-release"
FORMAT = 1
_LONGEST = 16 << 20


def make(description, layers, key=None, more=()):
    """Make the files of a release beside a finished disk.

    Arguments:
        description: the description's path, IMAGE-MACHINE.json.
        layers: {name: directory} of the layers that it was built from.
        key: the private key's file with which the manifest is signed, or that of a public key whose private one
            ssh-agent has; None for no signature.
        more: further files of the release, in the same directory; one that ends with .spdx.json is its SBOM.

    The disk itself is not part of it: it is there compressed. Returns the manifest's path; the manifest, and then its
    signature, is replaced last. Raises BuildError.
    """
    path = Path(description)
    told, directory, name = json.loads(path.read_text()), path.parent, path.stem
    disk = directory / told["disk"]
    try:
        return _make(told, directory, name, disk, layers, key, [Path(each) for each in more])
    except OSError as err:
        raise BuildError(f"the release cannot be written: {err.strerror} ({err.filename or directory})") from None


def _make(told, directory, name, disk, layers, key, more):
    files = [_made(directory / f"{disk.name}.zst", "zstd", "-q", "-f", "-T0", "-6", "-o", None, disk),
             _made(directory / f"{disk.name}.bmap", "bmaptool", "create", "-o", None, disk), *more]
    sums = {each.name: {"size": each.stat().st_size, "sha256": digest(each)} for each in files}
    durable.write_file(directory / f"{name}.SHA256SUMS",
                       "".join(f"{found['sha256']}  {file}\n" for file, found in sums.items()).encode())
    sbom = [each.name for each in more if each.name.endswith(".spdx.json")]
    manifest = {
        "format": FORMAT, "image": name, "machine": told["machine"], "files": sums,
        "layers": {layer: revision(place) for layer, place in sorted(layers.items())},
        "apps": told["apps"], "contents": told["contents"], **({"sbom": sbom[0]} if sbom else {}),
    }
    path = directory / f"{name}.release.json"
    signature = path.with_name(f"{path.name}.sig")
    # Never one that is another manifest's.
    signature.unlink(missing_ok=True)
    durable.write_file(path, json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
    if key:
        durable.write_file(signature, sign(path, key))
    return path


def _made(target, program, *words):
    """Have a program make a file, under its name when it is whole."""
    temporary = target.with_name(f".{target.name}.new")
    try:
        filesystems.run(program, *(temporary if word is None else word for word in words))
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        durable.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def digest(path):
    """Return the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def revision(directory):
    """Return {"revision", "changed"} of a directory in a git repository: the commit, "" for none, and whether files of
    it differ from that.
    """
    def git(*words):
        done = subprocess.run(["git", "-C", str(directory), *words], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)
        return done.stdout.strip() if not done.returncode else None

    try:
        commit = git("rev-parse", "HEAD") or ""
        return {"revision": commit, "changed": bool(commit and git("status", "--porcelain", "--", "."))}
    except OSError:
        return {"revision": "", "changed": False}


def sign(path, key):
    """Return the signature of a file's bytes. Raises BuildError."""
    if not Path(key).is_file():
        raise BuildError(f"the key {key} is no file: 'ssh-keygen -t ed25519 -f FILE' makes one")
    done = _ssh_keygen("sign", "-f", str(key), data=_read(path))
    if done.returncode:
        raise BuildError(f"the manifest cannot be signed: {_last(done)}")
    return done.stdout


def check(path, files):
    """See that files are those of a manifest, by name and sum. Raises BuildError naming the first that is not."""
    try:
        manifest = json.loads(_read(path))
        sums = {name: each["sha256"] for name, each in manifest["files"].items()}
        known = manifest["format"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BuildError(f"{path} is no manifest of a release") from None
    if known != FORMAT:
        raise BuildError(f"{path} has format {known}, and this program knows format {FORMAT}: use that of the release")
    for each in map(Path, files):
        # Plain names are links to the files of one build.
        name = os.path.basename(os.path.realpath(each))
        try:
            found = digest(each)
        except OSError as err:
            raise BuildError(f"{each} cannot be read: {err.strerror}") from None
        if sums.get(name, sums.get(each.name)) != found:
            raise BuildError(f"{each} is not the file that {path} names")


def _read(path):
    """Return the bytes of a manifest. Raises BuildError for what is too long for one, or no file."""
    try:
        with beneath.open_regular(path) as stream:
            data = stream.read(_LONGEST + 1)
    except OSError as err:
        raise BuildError(f"{path} cannot be read: {err.strerror}") from None
    if len(data) > _LONGEST:
        raise BuildError(f"{path} is no manifest of a release")
    return data


def verify(path, signers, who):
    """See that a manifest is signed by somebody.

    Arguments:
        path: the manifest; the signature is beside it.
        signers: a file of allowed signers (ssh-keygen(1), "ALLOWED SIGNERS").
        who: the signer's name there.

    Raises BuildError.
    """
    done = _ssh_keygen("verify", "-f", str(signers), "-I", who, "-s", f"{path}.sig", data=_read(path))
    if done.returncode:
        raise BuildError(f"{path} is not signed by {who}: {_last(done)}")


def _ssh_keygen(what, *words, data):
    try:
        return subprocess.run(["ssh-keygen", "-Y", what, "-n", NAMESPACE, *words], input=data, capture_output=True,
                              check=False)
    except FileNotFoundError:
        raise BuildError("ssh-keygen is not installed: install Debian's package openssh-client") from None


def _last(done):
    return ((done.stderr + done.stdout).decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
