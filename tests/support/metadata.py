# SPDX-License-Identifier: MIT
"""A repository of TUF metadata in memory, in either dialect, which can be made wrong in any way.

The standard's form is that of the specification, the other one (ATS) that of update servers in the line of ATS Garage
and Foundries.io. Nothing is looked at while it is signed: attackers do not look either.
"""

import base64
import copy
import datetime
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
ROLES = ("root", "timestamp", "snapshot", "targets")
_TYPES = {"root": "Root", "timestamp": "Timestamp", "snapshot": "Snapshot", "targets": "Targets"}
DIGEST = "sha256:" + "a" * 64


def text(moment):
    """Return a time as metadata has it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def canonical(value):
    """Return the bytes that signatures cover (OLPC's canonical JSON)."""
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode())
        return b"{" + b",".join(canonical(key) + b":" + canonical(entry) for key, entry in pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, str):
        return b'"' + value.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
    return json.dumps(value).encode()


class Key:
    """An Ed25519 key; the same ``seed`` gives the same one."""

    def __init__(self, seed, ats):
        self.private, self.ats = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest()), ats
        public = self.private.public_key()
        self.public = public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        if ats:
            self.id = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
            self.document = {"keytype": "ED25519", "keyval": {"public": self.public}}
        else:
            self.document = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": self.public}}
            self.id = hashlib.sha256(canonical(self.document)).hexdigest()

    def sign(self, signed):
        """Return this key's signature of parsed metadata, an object as documents list them."""
        raw = self.private.sign(canonical(signed))
        if self.ats:
            return {"keyid": self.id, "method": "ed25519", "sig": base64.b64encode(raw).decode()}
        return {"keyid": self.id, "sig": raw.hex()}


class Repository:
    """A factory's metadata: ``files`` is {name: bytes} of what a server gives; ``requests`` the names it was asked for.

    ``keys`` is {role: [Key]}; ``root``, ``timestamp``, ``snapshot`` and ``targets`` are what is signed next, to be
    changed by a test before it calls ``publish``, ``sign`` or ``put``.
    """

    def __init__(self, dialect="standard", now=NOW, name="", threshold=1):
        self.ats, self.now, self.name = dialect == "ats", now, name
        self.files, self.requests = {}, []
        self.keys = {role: [Key(f"{name}{role}{number}", self.ats) for number in range(threshold)] for role in ROLES}
        self.threshold = threshold
        year, week = datetime.timedelta(days=3650), datetime.timedelta(days=7)
        self.root = self._signed("root", 1, now + year, consistent_snapshot=False)
        self.targets = self._signed("targets", 0, now + datetime.timedelta(days=90), targets={})
        self.snapshot = self._signed("snapshot", 0, now + datetime.timedelta(days=90), meta={})
        self.timestamp = self._signed("timestamp", 0, now + week, meta={})
        self.delegated = {}
        self.put_root()

    def _signed(self, role, version, expires, **more):
        signed = {"_type": _TYPES[role] if self.ats else role, "version": version, "expires": text(expires), **more}
        return signed if self.ats else {**signed, "spec_version": "1.0.31"}

    def key(self, seed):
        """Return a Key in the repository's dialect."""
        return Key(seed, self.ats)

    def document(self, signed, keys):
        """Return the bytes of parsed metadata, signed by keys."""
        return json.dumps({"signatures": [key.sign(signed) for key in keys], "signed": signed}).encode()

    def put_root(self, *others):
        """Sign the root by its own keys and by ``others``, and serve it."""
        self.root["keys"] = {key.id: key.document for role in ROLES for key in self.keys[role]}
        self.root["roles"] = {role: {"keyids": [key.id for key in self.keys[role]], "threshold": self.threshold}
                              for role in ROLES}
        return self.serve_root(*others)

    def serve_root(self, *others):
        """Sign the root as it is now, and serve it."""
        signers = {key.id: key for key in (*self.keys["root"], *others)}.values()
        data = self.document(copy.deepcopy(self.root), signers)
        self.files[f"{self.root['version']}.root.json"] = data
        return data

    def rotate(self, *roles, signers=None):
        """Exchange the keys of roles, with the next root signed by the old and the new keys of the root."""
        old = list(self.keys["root"])
        self.root["version"] += 1
        for role in roles:
            self.keys[role] = [self.key(f"{self.name}{role}{self.root['version']}.{number}")
                               for number in range(self.threshold)]
        return self.put_root(*(old if signers is None else signers))

    def add(self, version, apps=None, tags=("main",), hardware=("qemux86-64",), name="", **custom):
        """List a Target."""
        name = name or f"device-{version}"
        apps = {"shop": f"hub.example.com/factory/shop@{DIGEST}"} if apps is None else apps
        self.targets["targets"][name] = {"length": 0, "hashes": {"sha256": hashlib.sha256().hexdigest()}, "custom": {
            "name": name.rpartition("-")[0], "version": str(version), "hardwareIds": list(hardware),
            "tags": list(tags), "targetFormat": "OSTREE", "createdAt": text(self.now),
            "docker_compose_apps": {app: {"uri": uri} for app, uri in apps.items()}, **custom}}
        return name

    def publish(self, *targets, version=None):
        """Count all versions on, list Targets of these versions, and sign and serve everything."""
        for each in targets:
            self.add(each)
        self.targets["version"] = version or self.targets["version"] + 1
        self.snapshot["version"] = version or self.snapshot["version"] + 1
        self.timestamp["version"] = 1000 * version if version else self.timestamp["version"] + 1
        return self.sign()

    def sign(self):
        """Sign and serve everything but the root as it is now."""
        self.snapshot["meta"] = {}
        for role, (signed, keys) in {**self.delegated, "targets": (self.targets, self.keys["targets"])}.items():
            self.put(role, signed, keys)
            self.snapshot["meta"][f"{role}.json"] = self.entry(self.files[f"{role}.json"], signed["version"])
        self.put("snapshot", self.snapshot, self.keys["snapshot"])
        return self.renew(self.timestamp["version"])

    def renew(self, version=None):
        """Sign and serve the timestamp for the snapshot that is served."""
        snapshot = self.files["snapshot.json"]
        self.timestamp["version"] = version or self.timestamp["version"]
        self.timestamp["meta"] = {"snapshot.json": self.entry(snapshot, json.loads(snapshot)["signed"]["version"])}
        self.put("timestamp", self.timestamp, self.keys["timestamp"])
        return self

    def put(self, role, signed, keys):
        """Sign one document and serve it."""
        self.files[f"{role}.json"] = self.document(copy.deepcopy(signed), keys)

    @staticmethod
    def entry(data, version):
        """Return how a parent vouches for a document's bytes."""
        return {"version": version, "length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}

    def delegate(self, role, *versions, paths=("*",), terminating=False, **more):
        """Delegate to a role that lists Targets of these versions; ``publish`` or ``sign`` comes afterwards."""
        key = self.key(f"{self.name}{role}")
        delegations = self.targets.setdefault("delegations", {"keys": {}, "roles": []})
        delegations["keys"][key.id] = key.document
        delegations["roles"].append({"name": role, "keyids": [key.id], "threshold": 1, "terminating": terminating,
                                     "paths": list(paths)})
        other = Repository("ats" if self.ats else "standard", self.now)
        for version in versions:
            other.add(version, **more)
        other.targets["version"] = 1
        self.delegated[role] = (other.targets, [key])

    def fetch(self, name, limit):
        """Be the server: return a file's bytes, None for none."""
        self.requests.append(name)
        data = self.files.get(name)
        assert data is None or len(data) <= limit, "the device takes no more than it may have"
        return data
