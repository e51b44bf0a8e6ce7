# SPDX-License-Identifier: MIT
"""State O: what was cut off while it was made or removed, and only takes up space.

Collected are write sets, temporary files, layers that were being removed, directories of overlay2 to
which nothing refers and short names that lead nowhere. BuildKit's snapshots look like the latter and
are in its own database: they are left alone while BuildKit has one.
"""

from composeapps.dockerstore import closure, layout

TEMPORARIES = (layout.IMAGE, layout.CONFIGS, layout.LAYERS, layout.MOUNTS, layout.LINKS)


def check(run):
    """Find and collect what was left over."""
    _delete(run, [f"{layout.WRITE_SETS}/{name}" for name in run.root.names(layout.WRITE_SETS)],
            "layers that were not committed", layout.WRITE_SETS)
    paths = [f"{home}/{name}" for home in TEMPORARIES for name in run.root.names(home) if name.startswith(".tmp-")]
    paths += [f"{layout.CONTAINERS}/{container}/{name}" for container in run.containers
              for name in run.root.names(f"{layout.CONTAINERS}/{container}") if name.startswith(".tmp-")]
    for layer in run.layers.values():
        paths += [run.layer_path(layer, name) for name in layer.stray]
        if layer.cached is not None and layer.lost is None:
            paths += [f"{layout.OVERLAY}/{layer.cache}/{name}" for name in layer.cached.stray]
    for mount in run.mounts:
        paths += [f"{layout.MOUNTS}/{mount}/{name}" for name in run.root.names(f"{layout.MOUNTS}/{mount}")
                  if name.startswith(".tmp-")]
    paths = [path for path in paths if run.root.lstat(path) is not None]
    _delete(run, paths, "temporary files", "image/, containers/, overlay2/")
    # Without layerdb nothing tells what is in use.
    if run.root.is_directory(layout.LAYERS):
        _removed_layers(run)
        _orphans(run)
    _links(run)


def _delete(run, paths, what, where):
    if paths:
        finding = run.find("O", f"{len(paths)} {what}", f"were left over ({where})", "removed them")
        run.apply(finding, *[lambda path=path: run.actions.delete(path) for path in paths])


def _removed_layers(run):
    claimed = run.claimed()
    for name in run.root.names(layout.LAYERS):
        if not layout.REMOVING.match(name):
            continue
        path = f"{layout.LAYERS}/{name}"
        finding = run.find("O", f"layer {name[:12]}", "was being removed", "removed the rest")
        steps = []
        try:
            cache = run.root.read(f"{path}/cache-id", layout.MAX_FIELD).strip().decode("ascii", "replace")
        except OSError:
            cache = ""
        if layout.CACHE_ID.match(cache) and cache not in claimed:
            steps = closure.directory_steps(run, cache, keep=False)
        run.apply(finding, *steps, lambda path=path: run.actions.delete(path))


def _orphans(run):
    claimed = run.claimed()
    names = run.root.names(layout.OVERLAY)
    snapshots = run.root.lstat("buildkit/snapshots.db") if run.root.is_directory(layout.BUILDKIT) else None
    present = set(names)
    # A writable layer goes before the inner one: that one tells what it is.
    for name in names:
        if name in claimed or name == "l" or not run.root.is_directory(f"{layout.OVERLAY}/{name}"):
            continue
        if layout.SNAPSHOT.match(name) and snapshots is None:
            keep = False
        elif layout.HEX.match(name):
            # The kernel made work/work when it was mounted to be written to.
            keep = f"{name}-init" in present or run.root.is_directory(f"{layout.OVERLAY}/{name}/work/work")
        elif layout.MOUNT_ID.match(name):
            keep = False
        else:
            continue
        belongs = "a container" if keep or name.endswith("-init") else "no layer"
        finding = run.find("O", f"overlay2/{name[:12]}", f"is of {belongs} that is not there" if keep or
                           name.endswith("-init") else "belongs to no layer",
                           "set it aside" if keep else "removed it")
        run.apply(finding, *closure.directory_steps(run, name, keep))


def _links(run):
    if not run.actions.dry_run:
        run.forget_links()
    used = {layer.cached.link for layer in run.layers.values() if layer.cached is not None}
    stale = []
    present = set(run.root.names(layout.OVERLAY))
    for name, target in run.links.items():
        parts = (target or "").split("/")
        leads = len(parts) == 3 and parts[0] == ".." and parts[1] in present and parts[2] == "diff"
        if not leads and name not in used and not name.startswith(".tmp-"):
            stale.append(f"{layout.LINKS}/{name}")
    _delete(run, sorted(stale), "short names that lead nowhere", layout.LINKS)
