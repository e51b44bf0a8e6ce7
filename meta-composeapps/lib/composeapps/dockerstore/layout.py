# SPDX-License-Identifier: MIT
"""Where dockerd keeps what below its data root, with the overlay2 graph driver.

Read in moby 25 to 29 (layer/filestore.go, daemon/graphdriver/overlay2, image/fs.go,
reference/store.go, distribution/metadata, daemon/container.go, volume/local)::

    overlay2/l/<link>                    symbolic link to ../<cache id>/diff
    overlay2/<cache id>/                 diff/  link  [lower  work/  committed  merged/]
    image/overlay2/layerdb/sha256/<chain>/   diff  size  cache-id  tar-split.json.gz  [parent  descriptor.json]
    image/overlay2/layerdb/mounts/<name>/    mount-id  [init-id  parent]
    image/overlay2/layerdb/tmp/              write sets that were not committed
    image/overlay2/imagedb/content/sha256/<image>        the image's configuration, named by its SHA-256
    image/overlay2/imagedb/metadata/sha256/<image>/      parent, lastUpdated, builtLocally
    image/overlay2/repositories.json                     the tags
    image/overlay2/distribution/…                        what pulls remember of registries
    containers/<id>/                     config.v2.json  hostconfig.json  …
    volumes/<name>/                      _data/  [opts.json]
    volumes/metadata.db, network/files/local-kv.db, buildkit/*.db, content/metadata.db    bbolt
    containerd/daemon/io.containerd.metadata.v1.bolt/meta.db    bbolt of a containerd that dockerd started

All paths here are relative to the data root. A chain id is the SHA-256 of "<parent's chain id>
<diff id>", each with its ``sha256:``; that of a layer without a parent is its diff id.
"""

import hashlib
import re

OVERLAY = "overlay2"
LINKS = "overlay2/l"
IMAGE = "image/overlay2"
LAYERS = "image/overlay2/layerdb/sha256"
MOUNTS = "image/overlay2/layerdb/mounts"
WRITE_SETS = "image/overlay2/layerdb/tmp"
CONFIGS = "image/overlay2/imagedb/content/sha256"
METADATA = "image/overlay2/imagedb/metadata/sha256"
REPOSITORIES = "image/overlay2/repositories.json"
DIFFID_BY_DIGEST = "image/overlay2/distribution/diffid-by-digest/sha256"
METADATA_BY_DIFFID = "image/overlay2/distribution/v2metadata-by-diffid/sha256"
CONTAINERS = "containers"
VOLUMES = "volumes"
BUILDKIT = "buildkit"

# In the order in which they are made: what lies in another comes after it.
DIRECTORIES = (
    "overlay2", "overlay2/l", "image", "image/overlay2", "image/overlay2/layerdb", LAYERS, MOUNTS, WRITE_SETS,
    "image/overlay2/imagedb", "image/overlay2/imagedb/content", CONFIGS, "image/overlay2/imagedb/metadata", METADATA,
    "image/overlay2/distribution", "image/overlay2/distribution/diffid-by-digest", DIFFID_BY_DIGEST,
    "image/overlay2/distribution/v2metadata-by-diffid", METADATA_BY_DIFFID, "containers", "volumes", "network",
    "network/files", "buildkit",
)

# The agent's own, below the data root so that they share the store's fate.
OWN = "composeapps-fsck"
LEDGER = "composeapps-fsck/ledger"
PENDING = "composeapps-fsck/pending"
REPORT = "composeapps-fsck/report.json"
LOST = "lost+fsck"
# What a layer is healed in, beside its files (placer.py).
HEALING = "composeapps-heal"

NETWORK_DATABASE = "network/files/local-kv.db"
VOLUME_DATABASE = "volumes/metadata.db"
CONTENT_DATABASE = "content/metadata.db"
CONTAINERD_DATABASE = "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db"

HEX = re.compile(r"[0-9a-f]{64}\Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
# A cache id is random hex, or what BuildKit called a snapshot that became a layer.
CACHE_ID = re.compile(r"(?!l\Z)[A-Za-z0-9][A-Za-z0-9_.-]{0,200}\Z")
LINK = re.compile(r"[A-Z0-9]{1,128}\Z")
MOUNT_ID = re.compile(r"[0-9a-f]{64}(-init)?\Z")
SNAPSHOT = re.compile(r"[0-9a-z]{25}\Z")
REMOVING = re.compile(r"[0-9a-f]{64}-.*-removing\Z")

MAX_FIELD = 4096
MAX_LOWER = 64 * 1024
MAX_DOCUMENT = 16 * 1024 * 1024


def chain_id(parent, diff):
    """Return the chain id, 64 hex digits, of a layer.

    Arguments:
        parent: the parent's chain id, 64 hex digits, or None.
        diff: the layer's diff id, 64 hex digits.
    """
    if parent is None:
        return diff
    return hashlib.sha256(f"sha256:{parent} sha256:{diff}".encode()).hexdigest()


def chain(diffs):
    """Yield (chain id, diff id, parent's chain id) of each of an image's layers, lowest first."""
    parent = None
    for diff in diffs:
        current = chain_id(parent, diff)
        yield current, diff, parent
        parent = current


def shown(name):
    """Return a name of any bytes as it can be printed."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
