# SPDX-License-Identifier: MIT
"""Containers and their writable layers: states L and M, and D, E, F of their directories in overlay2.

A container's writable layer is user data: as long as it and the layers below it are there, its
metadata is put right around it.
"""

import json

from composeapps.dockerstore import chain, closure, layout, overlay
from composeapps.dockerstore.report import reason

DRIVER = "overlay2"


class Container:
    """What config.v2.json says; ``fault`` is what is wrong with it."""

    __slots__ = ("id", "driver", "image", "image_name", "name", "dead", "fault")

    def __init__(self, identity):
        self.id = identity
        self.driver = self.image = self.image_name = self.name = self.fault = None
        self.dead = False

    def __str__(self):
        name = f" ({layout.shown(self.name.strip('/'))})" if self.name else ""
        return f"container {self.id[:12]}{name}"


class Mount:
    """A directory of layerdb/mounts: the names of the writable layer, the one below it and its parent's chain id.

    A field is None when its file is missing or unreadable; ``faults`` tells which are unreadable.
    """

    __slots__ = ("name", "mount_id", "init_id", "parent", "faults")

    def __init__(self, name):
        self.name = name
        self.mount_id = self.init_id = self.parent = None
        self.faults = {}


def read_containers(root):
    """Return {id: Container} of all directories in containers/ that are named like one."""
    return {name: _read_container(root, name) for name in root.names(layout.CONTAINERS) if layout.HEX.match(name)}


def _read_container(root, name):
    container = Container(name)
    home = f"{layout.CONTAINERS}/{name}"
    try:
        data = root.read(f"{home}/config.v2.json", layout.MAX_DOCUMENT)
        document = _value(data)
        if not isinstance(document, dict) or document.get("ID") != name:
            container.fault = "has a configuration that is empty" if not data else "has a configuration that is damaged"
            return container
        driver, image = document.get("Driver"), document.get("Image")
        container.driver = driver if isinstance(driver, str) else None
        container.name = document.get("Name") if isinstance(document.get("Name"), str) else None
        if isinstance(image, str) and layout.DIGEST.match(image):
            container.image = image[7:]
        config, state = document.get("Config"), document.get("State")
        if isinstance(config, dict) and isinstance(config.get("Image"), str):
            container.image_name = config["Image"]
        if isinstance(state, dict):
            container.dead = bool(state.get("Dead") or state.get("RemovalInProgress"))
        if not isinstance(config, dict) or container.driver is None:
            container.fault = "has a configuration that is damaged"
            return container
        data = root.read(f"{home}/hostconfig.json", layout.MAX_DOCUMENT)
        if not isinstance(_value(data), dict):
            container.fault = f"has a host configuration that is {'damaged' if data else 'empty'}"
    except FileNotFoundError:
        container.fault = "has lost its configuration"
    except OSError as err:
        container.fault = f"has a configuration that {reason(err)}"
    return container


def _value(data):
    try:
        return json.JSONDecoder().raw_decode(data.decode("utf-8", "replace").lstrip())[0]
    except (ValueError, RecursionError):
        return None


def read_mounts(root):
    """Return {name: Mount} of all directories in layerdb/mounts."""
    found = {}
    for name in root.names(layout.MOUNTS):
        path = f"{layout.MOUNTS}/{name}"
        if not root.is_directory(path):
            continue
        mount = found[name] = Mount(name)
        mount.mount_id = _field(root, mount, path, "mount-id", layout.MOUNT_ID)
        mount.init_id = _field(root, mount, path, "init-id", layout.MOUNT_ID)
        parent = _field(root, mount, path, "parent", layout.DIGEST)
        mount.parent = parent[7:] if parent else None
    return found


def _field(root, mount, path, name, pattern):
    try:
        text = root.read(f"{path}/{name}", layout.MAX_FIELD).strip().decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as err:
        mount.faults[name] = reason(err)
        return None
    if not pattern.match(text):
        mount.faults[name] = "is empty" if not text else "is malformed"
        return None
    return text


def check(run):
    """Check and repair all containers; those that cannot be kept are taken away, with what belongs to them."""
    used = {layer.cached.link: layer.cache for layer in run.layers.values()
            if layer.cached is not None and layer.lost is None}
    owners = {layer.cache for layer in run.layers.values() if layer.cache}
    _doubt(run, owners)
    for container in list(run.containers.values()):
        if container.driver not in (None, DRIVER):
            # Made with another storage driver: dockerd leaves it alone too.
            continue
        mount = run.mounts.get(container.id)
        state, why = ("M", container.fault) if container.fault else _settle(run, container, mount, used)
        if why is not None:
            finding = run.find(state, container, why, "set it aside; the agent makes its apps' containers anew")
            if run.apply(finding, *closure.container_steps(run, container.id, run.mounts.get(container.id), owners)):
                run.containers.pop(container.id, None)
                run.mounts.pop(container.id, None)
    for name, mount in list(run.mounts.items()):
        if name not in run.containers:
            finding = run.find("M", f"mount {layout.shown(name)[:12]}", "belongs to no container and pins its layers",
                               "removed it, its files were set aside")
            if run.apply(finding, *closure.container_steps(run, name, mount, owners)):
                del run.mounts[name]


def _doubt(run, owners):
    """Take back what two mounts say of the same directory, or a mount of a layer's: only one can be right."""
    claims = {}
    for mount in run.mounts.values():
        if mount.mount_id in owners:
            _deny(mount, "mount-id", "names the directory of a layer")
        if mount.init_id in owners:
            _deny(mount, "init-id", "names the directory of a layer")
        if mount.mount_id:
            claims.setdefault(mount.mount_id, []).append(mount)
    for mount_id, claimants in claims.items():
        if len(claimants) > 1:
            # dockerd names the inner layer by the writable one.
            right = [mount for mount in claimants if mount.init_id == f"{mount_id}-init"] or claimants
            for mount in claimants:
                if mount is not right[0]:
                    _deny(mount, "mount-id", "names the directory of another container")
    for mount in run.mounts.values():
        if mount.mount_id and mount.init_id and mount.init_id != f"{mount.mount_id}-init":
            name = mount.init_id.removesuffix("-init")
            if run.root.is_directory(f"{layout.OVERLAY}/{mount.mount_id}-init"):
                _deny(mount, "init-id", "names the directory of another container")
            elif name not in claims and run.root.is_directory(f"{layout.OVERLAY}/{name}"):
                _deny(mount, "mount-id", "does not go with init-id")


def _deny(mount, field, why):
    mount.faults[field] = why
    setattr(mount, field.replace("-", "_"), None)


def _settle(run, container, mount, used):
    """Put right what is wrong around a container's writable layer.

    Returns (state, why the container cannot be kept), (None, None) for one that can.
    """
    if mount is None:
        if container.dead:
            return "M", "was being removed"
        mount = Mount(container.id)
    state = "L" if container.id in run.mounts else "M"
    mount_id = mount.mount_id or _find_mount_id(run, container, mount)
    if mount_id is None:
        return state, "has lost its writable layer's name"
    writable = overlay.read(run.root, mount_id)
    if writable is None or writable.inode is None:
        return "C", f"has lost its writable layer (overlay2/{mount_id[:12]})"
    init_id = mount.init_id or (f"{mount_id}-init" if _wants_init(run, mount, mount_id, writable) else None)
    init = overlay.read(run.root, init_id) if init_id else None
    parent, why = _parent(run, container, mount, init or writable)
    if why:
        return state, why
    if parent is not None and not run.alive(parent):
        layer = run.layers.get(parent)
        return (layer.state if layer else "G") or "G", f"runs on layer {parent[:12]}, which cannot be kept"
    if not _write_mount(run, container, mount, mount_id, init_id, parent, state):
        return state, "has mount metadata that cannot be written"
    run.mounts[container.id] = mount
    lower = run.layers[parent].cached.lowers() if parent is not None else None
    if init_id:
        init = _settle_init(run, container, init_id, init)
        if init is None or not chain.settle(run, container, init, used) or not chain.set_lower(
                run, container, init, lower):
            return "C", "has an inner layer that cannot be made anew"
        lower = init.lowers()
    if not chain.settle(run, container, writable, used) or not chain.set_lower(run, container, writable, lower):
        return "E", "has a writable layer that cannot be put right"
    return None, None


def _wants_init(run, mount, mount_id, writable):
    """Tell whether there is, or was, a layer between a container's image and its writable layer."""
    if "init-id" in mount.faults or run.root.is_directory(f"{layout.OVERLAY}/{mount_id}-init"):
        return True
    return overlay.first_lower(writable, run.links) == f"{mount_id}-init"


def _find_mount_id(run, container, mount):
    """Return the name of the writable layer of a container whose metadata does not tell it, or None."""
    if mount.init_id and mount.init_id.endswith("-init"):
        return mount.init_id.removesuffix("-init")
    names = set(run.root.names(layout.OVERLAY))
    claimed = run.claimed()
    free = [name for name in names if layout.HEX.match(name) and name not in claimed and f"{name}-init" in names]
    top = mount.parent or _image_top(run, container)
    fitting = []
    for name in free:
        init = overlay.read(run.root, f"{name}-init")
        layer = run.layers.get(top)
        if init and layer and layer.lost is None and overlay.first_lower(init, run.links) == layer.cache:
            fitting.append(name)
    return fitting[0] if len(fitting) == 1 else None


def _image_top(run, container):
    image = run.images.get(container.image)
    if image is not None and image.diffs is not None:
        return image.top
    diffs = run.blobs.diff_ids().get(container.image) if container.image else None
    tops = [each for each, _diff, _parent in layout.chain(diffs or ())]
    return tops[-1] if tops else None


def _parent(run, container, mount, lowest):
    """Return (chain id of the layer that a container runs on or None, why that cannot be told)."""
    below = overlay.first_lower(lowest, run.links) if lowest else None
    chains = [layer.chain for layer in run.layers.values() if layer.cache == below] if below else []
    if mount.parent is not None and (not chains or mount.parent in chains):
        return mount.parent, None
    top = _image_top(run, container)
    if mount.parent is not None and top not in chains:
        return mount.parent, None
    if chains:
        # Where the mount says something else, the image decides.
        return chains[0], None
    if top is not None:
        return top, None
    image = run.images.get(container.image)
    if image is not None and image.diffs == [] and "parent" not in mount.faults:
        # An image without layers: nothing is below.
        return None, None
    if lowest is not None and lowest.lower is None and not mount.faults:
        return None, None
    return None, "has lost the name of the layer that it runs on"


def _write_mount(run, container, mount, mount_id, init_id, parent, state):
    wanted = {"mount-id": mount_id, "init-id": init_id, "parent": f"sha256:{parent}" if parent else None}
    present = {"mount-id": mount.mount_id, "init-id": mount.init_id,
               "parent": f"sha256:{mount.parent}" if mount.parent else None}
    wrong = [name for name, value in wanted.items() if value != present[name] or name in mount.faults]
    if not wrong:
        return True
    problem = ", ".join(f"{name} {mount.faults.get(name) or ('is wrong' if present[name] else 'is missing')}"
                        for name in wrong)
    finding = run.find(state, container, f"has mount metadata that cannot be used: {problem}", "wrote it anew")
    path = f"{layout.MOUNTS}/{container.id}"
    steps = [lambda: run.actions.mkdir(path, 0o755)]
    for name in wrong:
        if wanted[name] is None:
            steps.append(lambda name=name: run.actions.set_aside(f"{path}/{name}"))
        else:
            steps.append(lambda name=name: run.actions.write(f"{path}/{name}", wanted[name].encode()))
    if not run.apply(finding, *steps):
        return False
    mount.mount_id, mount.init_id, mount.parent = mount_id, init_id, parent
    mount.faults.clear()
    return True


def _settle_init(run, container, init_id, init):
    """Make the layer between image and container anew when it is gone; all it holds are empty mount points."""
    if init is not None and init.inode is not None:
        return init
    path = f"{layout.OVERLAY}/{init_id}"
    finding = run.find("C", container, f"has lost its inner layer (overlay2/{init_id[:12]}…-init)", "made it anew")
    steps = [lambda: run.actions.mkdir(path, 0o710), lambda: run.actions.mkdir(f"{path}/diff", 0o755, run.id_offset),
             lambda: run.actions.mkdir(f"{path}/work", 0o700, run.id_offset),
             lambda: run.actions.write(f"{path}/committed", b"", 0o600)]
    if not run.apply(finding, *steps):
        return None
    if not run.actions.dry_run:
        return overlay.read(run.root, init_id)
    init = init or overlay.Cache(init_id)
    init.inode, init.work = 0, True
    return init
