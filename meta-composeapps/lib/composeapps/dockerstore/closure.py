# SPDX-License-Identifier: MIT
"""Taking away what cannot be repaired, with all that is built on it.

Order: containers, tags, image configurations, layers from the top to the bottom; in each of them what
is referred to goes before what refers to it is forgotten. A run that is killed at any place leaves
states that the next run knows (L, M, C, O) and finishes. overlay2/ and overlay2/l stay: Docker 29
takes another image store when it finds them empty.

Layers of which a restorable store has the blob are deleted; everything else is set aside. Volumes
are not touched.
"""

from composeapps.dockerstore import images, layers, layout, overlay


def container_steps(run, name, mount, owners):
    """Return the steps that take a container away: its writable layer, its directory, its mount metadata.

    Arguments:
        name: the container's id, or the mount's name.
        mount: its Mount or None.
        owners: names of the directories in overlay2 that belong to layers.
    """
    steps = []
    others = {each for other in run.mounts.values() if other.name != name for each in (other.mount_id, other.init_id)}
    writable = mount.mount_id if mount else None
    init = (mount.init_id or (f"{writable}-init" if writable else None)) if mount else None
    for each in (writable, init):
        if each and each not in owners and each not in others:
            steps += directory_steps(run, each, keep=each == writable)
    if layout.HEX.match(name):
        steps.append(lambda: run.actions.set_aside(f"{layout.CONTAINERS}/{name}"))
    steps.append(lambda: run.actions.delete(f"{layout.MOUNTS}/{name}"))
    return steps


def directory_steps(run, name, keep):
    """Return the steps that take a directory of overlay2 away.

    Arguments:
        keep: set it aside, unless there is nothing in it.
    """
    path = f"{layout.OVERLAY}/{name}"
    cache = overlay.read(run.root, name)
    steps = []
    if cache is not None and cache.link is not None and cache.target == cache.wanted_target:
        steps.append(lambda: run.actions.delete(f"{layout.LINKS}/{cache.link}"))
    if keep and run.root.names(f"{path}/diff"):
        steps.append(lambda: run.actions.set_aside(path))
    else:
        steps.append(lambda: run.actions.delete(path))
    return steps


def remove(run):
    """Take lost image configurations and layers away; containers and tags are gone already."""
    for image in images.lost(run):
        finding = run.find(image.state, image, image.fault, "set it aside; it can be loaded again")
        steps = [lambda image=image: run.actions.set_aside(f"{layout.CONFIGS}/{image.id}"),
                 lambda image=image: run.actions.delete(f"{layout.METADATA}/{image.id}")]
        if run.apply(finding, *steps):
            run.images.pop(image.id, None)
    kept = {layer.cache for layer in run.layers.values() if layer.cache and layer.lost is None}
    for mount in run.mounts.values():
        kept.update((mount.mount_id, mount.init_id))
    for layer in reversed(layers.in_order(run.layers)):
        if layer.lost is None:
            continue
        stored = layer.diff is not None and run.blobs.has_layer(layer.diff)
        repair = "removed it; the store has it" if stored else "set it aside"
        finding = run.find(layer.state, layer, layer.lost, repair)
        own = layer.cache if layer.cache and layer.cache not in kept else None
        if run.apply(finding, *_layer_steps(run, layer, own, stored)):
            del run.layers[layer.chain]


def _layer_steps(run, layer, directory, stored):
    path = run.layer_path(layer)
    if not stored:
        steps = directory_steps(run, directory, keep=True) if directory else []
        return [*steps, lambda: run.actions.set_aside(path)]
    # The name under which dockerd itself collects a layer whose removal was cut off.
    removing = f"{layout.LAYERS}/{layer.chain}-fsck-removing"
    steps = [lambda: run.actions.delete(removing), lambda: run.actions.rename(path, removing)]
    if directory:
        steps += directory_steps(run, directory, keep=False)
    return [*steps, lambda: run.actions.delete(removing)]
