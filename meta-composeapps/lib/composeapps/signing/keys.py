# SPDX-License-Identifier: MIT
"""Keys that sign: in files encrypted by a pass phrase, or elsewhere, named by a URI of securesystemslib.

A key pair is two files: ``NAME.pem``, PKCS #8 as OpenSSL reads it, and ``NAME.pub``, the public half in PEM, by which
is found out whose signature a key makes without its pass phrase. A key in a security module or with a cloud provider
is one JSON file ``NAME.uri`` with ``uri`` and ``public``, the public half in PEM.
"""

import getpass
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME, CryptoSigner, Signer, SSlibKey

from composeapps import durable
from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.oci.parsing import parse_json

PRIVATE, PUBLIC, ELSEWHERE = ".pem", ".pub", ".uri"
KINDS = ("ed25519", "ecdsa", "rsa")
PHRASE_FILE = "COMPOSEAPPS_PASSPHRASE_FILE"
_LARGEST = 64 * 1024
# Of PBKDF2 with SHA-256, as OWASP recommends since 2023; it takes half a second.
_ROUNDS = 600_000
_SHORTEST, _LONGEST = 8, 1000
# A file that it would read is none of what a URI is for here.
_NO_SCHEMES = ("file2", "file", "envvar")


class PassPhrases:
    """Where pass phrases come from: files, one a line, else somebody at the terminal.

    Arguments:
        files: paths; without any, the one that $COMPOSEAPPS_PASSPHRASE_FILE names.
        environ: the environment.
        ask: called with what to ask for, returns a text; None where nobody can be asked.
    """

    def __init__(self, files=(), environ=os.environ, ask=None):
        named = list(files) or list(filter(None, [environ.get(PHRASE_FILE)]))
        self._ask = ask if ask or named or not sys.stdin.isatty() else getpass.getpass
        self.known = [line for path in named for line in _lines(path)]

    def for_key(self, path):
        """Yield the phrases (bytes) to try for a key file, those of files first."""
        yield from self.known
        while self._ask:
            phrase = self._ask(f"pass phrase of {path}: ").encode()
            if not phrase:
                return
            yield phrase

    def new(self, path):
        """Return the phrase (bytes) for a key that is to be made. Raises UsageError."""
        if self.known:
            return _long_enough(self.known[0], path)
        if not self._ask:
            raise UsageError(f"no pass phrase for {path}: give --passphrase-file, set {PHRASE_FILE} to the name of a "
                             "file, or run it at a terminal")
        phrase = _long_enough(self._ask(f"new pass phrase of {path}: ").encode(), path)
        if self._ask("once more: ").encode() != phrase:
            raise UsageError(f"the two pass phrases for {path} differ: nothing was made")
        return phrase


def _long_enough(phrase, path):
    if len(phrase) > _LONGEST:
        raise UsageError(f"the pass phrase of {path} has more than {_LONGEST} characters: take a shorter one")
    if len(phrase) < _SHORTEST:
        raise UsageError(f"the pass phrase of {path} has fewer than {_SHORTEST} characters: take a longer one")
    return phrase


def _lines(path):
    lines = [line for line in _read(path, "pass phrase file").splitlines() if line]
    if not lines:
        raise UsageError(f"pass phrase file {path} is empty: write the phrase into its first line")
    return lines


class Key:
    """A key that may sign, or its public half.

    ``public`` is securesystemslib's, ``id`` its key id; ``path`` the file that was named.
    """

    def __init__(self, path, public, signer=None):
        self.path, self.public, self.id, self._make = Path(path), public, public.keyid, signer
        self._signer = None

    @property
    def can_sign(self):
        """Whether more than the public half is at hand."""
        return self._make is not None

    def signer(self):
        """Return securesystemslib's Signer; the pass phrase is asked for now. Raises ComposeAppsError."""
        if self._signer is None:
            self._signer = self._make()
        return self._signer


def make(path, phrases, kind="ed25519"):
    """Make a key pair and return its Key; a file that is there is never written over.

    Arguments:
        path: of the private half, ``NAME.pem``.
        phrases: the PassPhrases, whose first phrase encrypts it.
        kind: one of KINDS.

    Raises UsageError, StorageError.
    """
    path = _named(path, PRIVATE)
    public_path = path.with_suffix(PUBLIC)
    for each in (path, public_path):
        if each.exists() or each.is_symlink():
            raise UsageError(f"{each} is there already: name another file, or move that away")
    phrase = phrases.new(path)
    private = {"ed25519": ed25519.Ed25519PrivateKey.generate, "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
               "rsa": lambda: rsa.generate_private_key(65537, 3072)}[kind]()
    secret = _encrypted(private, phrase)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with durable.storage_errors(f"making the key {path}"):
        durable.make_directories(path.parent, mode=0o700, above=0o755)
        # The private half last: who finds it finds the other one, too.
        _put(public_path, public, 0o644)
        _put(path, secret, 0o600)
    return find(path, phrases)


def _encrypted(private, phrase):
    """Return a key as PEM that a pass phrase (bytes) encrypts.

    By openssl: what cryptography writes itself is PBKDF2 of 2,048 rounds, which is tried through at leisure.
    """
    plain = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as pipe:
            pipe.write(phrase + b"\n")
        done = subprocess.run(
            ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256", "-iter", str(_ROUNDS),
             "-passout", f"fd:{reading}"], input=plain, capture_output=True, pass_fds=[reading], check=False)
    except FileNotFoundError:
        raise NotFoundError("there is no program openssl, which encrypts keys: install it (Debian: openssl)") from None
    finally:
        os.close(reading)
    if done.returncode or b"BEGIN ENCRYPTED PRIVATE KEY" not in done.stdout:
        raise UsageError(f"openssl could not encrypt the key: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _put(path, data, mode):
    with durable.prepared(path, data, mode) as temporary:
        os.link(temporary, path)
        temporary.unlink()
    durable.fsync_directory(path.parent)


def note_elsewhere(path, uri, public_file):
    """Write the file for a key that lies elsewhere, and return its Key.

    Arguments:
        path: ``NAME.uri``.
        uri: securesystemslib's, ``hsm:…``, ``awskms:…``, ``gcpkms:…``, ``azurekms:…``, ``vault:…`` for example.
        public_file: a PEM file with the public half.

    Raises UsageError, StorageError.
    """
    path = _named(path, ELSEWHERE)
    _scheme(uri)
    text = _read(public_file, "public key")
    _public(text, public_file)
    if path.exists():
        raise UsageError(f"{path} is there already: name another file, or move that away")
    with durable.storage_errors(f"writing {path}"):
        durable.make_directories(path.parent, mode=0o700, above=0o755)
        _put(path, json.dumps({"uri": uri, "public": text.decode()}, indent=2).encode() + b"\n", 0o600)
    return find(path, PassPhrases())


def _scheme(uri):
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

    scheme = uri.partition(":")[0]
    known = sorted(set(SIGNER_FOR_URI_SCHEME) - set(_NO_SCHEMES))
    if scheme not in known:
        raise UsageError(f"'{scheme}:' is no place for keys that is known: {', '.join(known)}; a key in a file is "
                         "named by the file")
    return scheme


def _named(path, suffix):
    path = Path(path)
    if path.suffix != suffix:
        raise UsageError(f"{path} is to be the name of a key file, with {suffix} at its end")
    return path


def find(path, phrases):
    """Return the Key of a file: NAME.pem, NAME.uri, or NAME.pub for the public half alone.

    Arguments:
        path: the file.
        phrases: the PassPhrases for later, and for now where NAME.pub is missing.

    Raises NotFoundError, UsageError, CorruptError.
    """
    path = Path(path)
    if path.suffix == PUBLIC:
        return Key(path, _public(_read(path, "public key"), path))
    if path.suffix == ELSEWHERE:
        value = parse_json(_read(path, "key"), f"key {path}")
        uri, text = value.get("uri"), value.get("public")
        if not isinstance(uri, str) or not isinstance(text, str):
            raise CorruptError(f"key {path} does not have 'uri' and 'public': make it anew with 'target key'")
        _scheme(uri)
        public = _public(text.encode(), path)
        return Key(path, public, lambda: _elsewhere(path, uri, public, phrases))
    beside = path.with_suffix(PUBLIC)
    if not path.is_file():
        raise NotFoundError(f"key {path} does not exist: 'composeapps target key {path}' makes one")
    if beside.is_file():
        public = _public(_read(beside, "public key"), beside)
        return Key(path, public, lambda: _from_file(path, phrases, public))
    signer = _from_file(path, phrases)
    return Key(path, signer.public_key, lambda: signer)


def find_all(files, directories, phrases):
    """Return the Keys of files, and of all key files in directories, each once.

    Raises NotFoundError, UsageError, CorruptError.
    """
    paths = [Path(path) for path in files]
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise NotFoundError(f"{directory} is no directory with keys")
        paths += sorted(path for path in directory.iterdir() if path.suffix in (PRIVATE, ELSEWHERE))
    found = {}
    for path in paths:
        key = find(path, phrases)
        if key.id not in found or not found[key.id].can_sign:
            found[key.id] = key
    return list(found.values())


def _public(data, path):
    try:
        return SSlibKey.from_crypto(load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm):
        raise CorruptError(f"{path} has no public key in PEM that signatures are made with: ed25519, ECDSA or RSA"
                           ) from None


def _from_file(path, phrases, public=None):
    data = _read(path, "key")
    private = _decrypted(path, data, phrases)
    try:
        return CryptoSigner(private, public)
    except (ValueError, SigningError):
        other = f" {path.with_suffix(PUBLIC)}" if public else ""
        raise CorruptError(f"key {path} does not go with its public half{other}: name the right pair") from None


def _decrypted(path, data, phrases):
    try:
        private = load_pem_private_key(data, None)
    except TypeError:
        tried = 0
        for phrase in phrases.for_key(path):
            tried += 1
            try:
                return load_pem_private_key(data, phrase)
            except ValueError:
                continue
        raise UsageError(f"the pass phrase of key {path} is wrong: nothing was signed" if tried else
                         f"no pass phrase for key {path}: give --passphrase-file, set {PHRASE_FILE} to the name of a "
                         "file, or run it at a terminal") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CorruptError(f"{path} is no private key in PEM, or is damaged") from None
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise UsageError(f"key {path} is not encrypted and others can read it: encrypt it, 'openssl pkcs8 -topk8', or "
                         "take their permissions away, 'chmod 600'")
    return private


def _elsewhere(path, uri, public, phrases):
    def secret(what):
        return next(phrases.for_key(f"{path} ({what})"), b"").decode()

    try:
        return Signer.from_priv_key_uri(uri, public, secret)
    except Exception as err:
        # Each place has errors of its own, those of libraries that only it needs.
        raise UsageError(f"key {path}: {uri.partition(':')[0]}: cannot be used: {err or type(err).__name__}") from None


def _read(path, what):
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{what} {path} does not exist") from None
    except OSError as err:
        raise UsageError(f"{what} {path} cannot be read: {err.strerror}") from None
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is too large for a {what}")
    return data


def is_known(key):
    """Tell whether a key of metadata is of a kind that this program can check."""
    return (key.keytype, key.scheme) in KEY_FOR_TYPE_AND_SCHEME
