# SPDX-License-Identifier: MIT
"""TUF metadata of two dialects, read into the same classes.

Standard TUF is that of the specification (https://theupdateframework.github.io/specification/), read by python-tuf.
The other is what update servers in the line of ATS Garage and Foundries.io write: ``_type`` capitalised, no
``spec_version``, keys without a scheme whose id is the SHA-256 of the DER SubjectPublicKeyInfo, signatures in base64
with a ``method``. It is rewritten into the standard's form; what its signatures cover is its own canonical form.

Nothing is verified here. Only this module and composeapps.delivery.rules import python-tuf, which takes longer to load
than a check-in that finds nothing new.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.formats import encode_canonical
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError, SerializationError

from composeapps.delivery.trust import LIMITS, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from composeapps.errors import CorruptError
from composeapps.oci.parsing import parse_json

STANDARD, ATS = "standard", "ats"
_ATS_TYPES = {"Root": ROOT, "Timestamp": TIMESTAMP, "Snapshot": SNAPSHOT, "Targets": TARGETS}
# keytype -> {method of a signature}, keytype and scheme of the standard. "rsassa-pss" is what older tools write.
_ATS_KEYS = {
    "ED25519": ({"ed25519"}, "ed25519", "ed25519"),
    "RSA": ({"rsassa-pss-sha256", "rsassa-pss"}, "rsa", "rsassa-pss-sha256"),
}
_METHODS = set().union(*(methods for methods, _type, _scheme in _ATS_KEYS.values()))
_PROBLEMS = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, LibraryError,
             RepositoryError, DeserializationError, SerializationError, binascii.Error)


class Document(NamedTuple):
    """Metadata as it was read.

    ``signed`` is python-tuf's Root, Timestamp, Snapshot or Targets; ``payload`` the bytes that the ``signatures``
    ({key id: Signature}) cover; ``data`` the bytes as they came; ``methods`` {key id: method} where the dialect has it.
    """

    signed: object
    payload: bytes
    signatures: dict
    data: bytes
    dialect: str
    methods: dict = {}

    @property
    def digest(self):
        """The SHA-256 of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


def read(data, role):
    """Return the Document of a role's bytes, whichever dialect it is in.

    Arguments:
        data: the bytes.
        role: ROOT, TIMESTAMP, SNAPSHOT or TARGETS (a delegated role's too): bounds the size, and names it in errors.

    Raises CorruptError for what is no metadata.
    """
    value = parse_json(data, f"the metadata of {role}", LIMITS[role])
    try:
        if value["signed"].get("_type") in _ATS_TYPES and "spec_version" not in value["signed"]:
            return _ats(value, data)
        metadata = Metadata.from_dict(value)
        return Document(metadata.signed, metadata.signed_bytes, metadata.signatures, data, STANDARD)
    except _PROBLEMS as err:
        raise CorruptError(f"the metadata of {role} has not the form of TUF's: {_reason(err)}") from None


def _reason(err):
    return f"'{err.args[0]}' is missing" if isinstance(err, KeyError) and err.args else str(err) or type(err).__name__


def _ats(value, data):
    signed = value["signed"]
    payload = encode_canonical(signed).encode()
    signatures, methods = [], {}
    for entry in value["signatures"]:
        if entry["keyid"] in methods:
            raise ValueError(f"the key {entry['keyid']} signs twice")
        if entry["method"] not in _METHODS:
            raise ValueError(f"the method '{entry['method']}' of a signature is unknown")
        methods[entry["keyid"]] = entry["method"]
        signatures.append({"keyid": entry["keyid"], "sig": base64.b64decode(entry["sig"], validate=True).hex()})
    plain = {**signed, "_type": _ATS_TYPES[signed["_type"]], "spec_version": "1.0.0"}
    if plain["_type"] == ROOT:
        plain["keys"] = {key_id: _key(key_id, key) for key_id, key in signed["keys"].items()}
        plain["roles"] = {name: dict(role) for name, role in signed["roles"].items()
                          if name in (ROOT, TIMESTAMP, SNAPSHOT, TARGETS)}
    if plain["_type"] == TARGETS:
        # What is said of an offline bundle lists none.
        plain.setdefault("targets", {})
    if plain["_type"] == TARGETS and signed.get("delegations"):
        plain["delegations"] = {**signed["delegations"], "keys": {
            key_id: _key(key_id, key) for key_id, key in signed["delegations"]["keys"].items()}}
    if plain["_type"] in (TIMESTAMP, SNAPSHOT):
        plain["meta"] = {name: dict(entry) for name, entry in signed["meta"].items()}
    metadata = Metadata.from_dict({"signed": plain, "signatures": signatures})
    return Document(metadata.signed, payload, metadata.signatures, data, ATS, methods)


def _key(key_id, key):
    """Return a key in the standard's form; raises ValueError for one whose id is not its own."""
    _methods, kind, scheme = _ATS_KEYS[key["keytype"].upper()]
    public = key["keyval"]["public"]
    made = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)) if kind == "ed25519" else load_pem_public_key(
        public.encode())
    own = hashlib.sha256(made.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    if own != key_id:
        raise ValueError(f"the id {key_id} is not that of its key, {own}")
    return {"keytype": kind, "scheme": scheme, "keyval": {"public": public}}


def fits(document, key_id, key):
    """Tell whether the method that a signature names is one of its key's."""
    if document.dialect != ATS:
        return True
    methods = next(methods for methods, kind, _scheme in _ATS_KEYS.values() if kind == key.keytype)
    return document.methods.get(key_id) in methods
