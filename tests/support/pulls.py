# SPDX-License-Identifier: MIT
"""What the tests of pulling share: apps with layers worth resuming, impatient clients, a Progress that remembers."""

import functools
import random

from composeapps.oci.reference import parse_pinned
from composeapps.pull.progress import Progress
from composeapps.pull.pull import fetch, survey
from composeapps.registry.client import RegistryClient
from composeapps.registry.credentials import Credentials
from composeapps.registry.patience import Patience
from support.apps import publish
from support.images import make_image, tar

# As stubborn as a device's, with pauses that a test can afford.
QUICK = Patience(tries=4, longest=0.02, stubborn=True)


def blob_image(*sizes, seed=0):
    """Return an image with a layer of about ``size`` incompressible bytes for each of ``sizes``."""
    layers = [tar({f"data{seed}-{n}": random.Random(f"{seed} {n} {size}").randbytes(size)})
              for n, size in enumerate(sizes)]
    return make_image(layers=layers)


def publish_app(registry, name, *sizes, seed=0, tag="1", files=None):
    """Publish an app of one service; return its pinned Reference."""
    images = {"web": blob_image(*sizes, seed=seed)}
    return parse_pinned(publish(registry, f"{registry.host}/{name}:{tag}", images, files))


def client_for(registry, url=None, **options):
    """Return what makes an impatient client of ``registry``, which is reached at ``url``; always the same one."""
    options = {"patience": QUICK, "timeout": 5, "credentials": Credentials([], {}), "environ": {},
               "receive_buffer": 64 * 1024, **options}
    endpoints = {registry.host: url or registry.url}
    return functools.cache(lambda: RegistryClient(endpoints, **options))


def no_network():
    """Stands for a client where none is to be made."""
    raise AssertionError("the network is not to be used")


class Notes(Progress):
    """Remembers what it is told."""

    def __init__(self):
        self.retries, self.notes, self.finished, self.received = [], [], [], {}

    def expect(self, blobs, received=None):
        self.received = {blob.descriptor.digest: (received or {}).get(blob.descriptor.digest, 0) for blob in blobs}

    def advance(self, digest, count):
        self.received[digest] += count

    def done(self, digest):
        self.finished.append(digest)

    def retry(self, digest, reason, seconds):
        self.retries.append((digest, reason, seconds))

    def note(self, text):
        self.notes.append(text)


def pull(ref, store, client, progress=None, parallel=3, verify=False, bandwidth=0):
    """Survey and fetch; return the App."""
    found = survey(ref, store, client, verify=verify, keep=True)
    return fetch(found, store, client, progress or Notes(), parallel, bandwidth)


def layers(app):
    """Return the Descriptors of an app's layers, the largest first."""
    found = {layer.digest: layer for image in app.images.values() for layer in image.variants[0].document.layers}
    return sorted(found.values(), key=lambda layer: -layer.size)


def is_whole(store, ref):
    """Tell whether the store lists the app, and has all of it undamaged."""
    return ref in store.list_apps() and survey(ref, store, no_network, verify=True).missing == ()
