# SPDX-License-Identifier: MIT
"""dockerd by itself: loading, pulling, containers, removing."""

import io
import json
import tarfile

from composeapps.store.store import Store
from crash.namespaces import HOME
from crash.workloads.base import VOLUME, Workload
from support import registries
from support.images import push_blob, push_manifest


class Load(Workload):
    """``docker load`` of all images, each as a stream with all its layers."""

    name = "load"
    preloaded = 0

    def record(self, place):
        for facts in place.world.images:
            place.docker.load(_archive(place, facts))


class LoadDirect(Workload):
    """A load as the agent does it: dockerd reads the layers from the store, or gets links to its blobs."""

    name = "load-direct"

    def record(self, place):
        for name in sorted(place.world.apps):
            place.load(name)


class Pull(Workload):
    """``docker pull`` from a registry."""

    name = "pull"

    def record(self, place):
        with registries.open_registry(HOME / "registry") as registry:
            for name in sorted(place.world.apps):
                repository, digest = _push(place, registry, name)
                place.docker.pull(repository, digest)


class Containers(Workload):
    """Containers are made, started, stopped and removed; one of them writes into a named volume."""

    name = "containers"
    preloaded = 2

    def record(self, place):
        docker, facts = place.docker, place.world.images
        draw = place.draw("containers")
        script = "while true; do echo again >> /data/log; /bin/busybox usleep 20000; done"
        writer = docker.create(facts[0].image_id, "writer", ["/bin/busybox", "sh", "-c", script],
                               [f"{VOLUME}:/data"])
        docker.start(writer)
        for number in range(5):
            container = docker.create(facts[number % 2].image_id, f"worker{number}")
            docker.start(container)
            docker.wait(container)
            if draw.random() < 0.6:
                docker.remove(container)
        docker.stop(writer)

    def finish(self, place):
        return [] if VOLUME in place.docker.volumes() else [f"dockerd no longer knows the volume {VOLUME}"]


class Remove(Workload):
    """Images are removed and loaded again, and what no container uses is pruned."""

    name = "remove"
    preloaded = 3

    def record(self, place):
        names = sorted(place.world.apps)
        keep = place.docker.create(place.image_of(names[0]).image_id, "keeper")
        place.docker.start(keep)
        place.docker.wait(keep)
        place.docker.remove_image(place.image_of(names[1]).image_id, force=True)
        place.load(names[1])
        place.docker.prune_images()
        place.load(names[2])


DockerdWorkloads = (Load, LoadDirect, Pull, Containers, Remove)


def _archive(place, facts):
    """Return the bytes of what ``docker save`` would make of an image in the store, but for its compressed layers."""
    store = Store(place.layout.store)
    manifest = json.loads(store.read("sha256:" + facts.reference.partition("@sha256:")[2]))
    blobs = [manifest["config"], *manifest["layers"]]
    names = [blob["digest"].partition(":")[2] for blob in blobs]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in dict.fromkeys(names):
            tar.add(store.blobs / name, name)
        repository = facts.reference.partition("@")[0]
        item = {"Config": names[0], "RepoTags": [f"{repository}:crash"], "Layers": names[1:]}
        data = json.dumps([item]).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _push(place, registry, name):
    """Bring an app's image from the factory store into a registry; return (repository, digest) for a pull."""
    store, reference = Store(place.factory), place.image_of(name).reference
    digest = "sha256:" + reference.partition("@sha256:")[2]
    content = store.read(digest)
    manifest = json.loads(content)
    for blob in (manifest["config"], *manifest["layers"]):
        push_blob(registry, f"crash/{name}", b"".join(store.chunks(blob["digest"])))
    push_manifest(registry, f"crash/{name}", "latest", manifest["mediaType"], content)
    # dockerd takes a registry on the loopback without TLS.
    return f"{registry.address}/crash/{name}", digest
