# SPDX-License-Identifier: MIT
"""The structure of layers: states B to G of the report's list, found and repaired, parents first.

A layer that cannot be repaired is marked lost with all that is built on it; closure.py takes
them away.
"""

from composeapps.dockerstore import content, layers, layout, overlay

# dockerd refuses to register a deeper layer (layer_store.go) or to mount one (overlay.go).
MAX_DEPTH = 128
MAX_CANDIDATES = 64


def check(run):
    """Check the layers' structure."""
    for layer in list(run.layers.values()):
        if "." in layer.faults:
            finding = run.find("B", layer, f"is not a directory in layerdb: {layer.faults['.']}", "set aside")
            run.apply(finding, lambda layer=layer: run.actions.set_aside(run.layer_path(layer)))
            del run.layers[layer.chain]
    _remake_missing(run)
    for layer in run.layers.values():
        _prove(run, layer)
    ordered = layers.in_order(run.layers)
    _check_parents(run, ordered)
    _check_cache_ids(run, ordered)
    used = {}
    for layer in ordered:
        if layer.lost is None:
            _check_fields(run, layer)
            _check_directory(run, layer, used)
        elif layer.cache:
            layer.cached = overlay.read(run.root, layer.cache)
    # A parent that was lost on the way takes its descendants with it.
    _check_parents(run, ordered)


def _remake_missing(run):
    """Begin missing layers anew that others or containers are built on, where a store has all that is needed."""
    waiting = [layer.parent for layer in run.layers.values()] + [mount.parent for mount in run.mounts.values()]
    while waiting:
        chain = waiting.pop()
        if chain is None or chain in run.layers or chain not in run.proof:
            continue
        diff, parent = run.proof[chain]
        if not run.blobs.has_layer(diff):
            continue
        layer = layers.Layer(chain)
        layer.faults = dict.fromkeys(("diff", "parent", "cache-id", "size", "tar-split.json.gz"), "is missing")
        finding = run.find("G", layer, "is missing, and something is built on it", "began it anew, from the store")
        if run.apply(finding, lambda chain=chain: run.actions.mkdir(f"{layout.LAYERS}/{chain}", 0o755)):
            run.layers[chain] = layer
            waiting.append(parent)


def lose_descendants(run):
    """Mark what is built on layers that were lost."""
    _check_parents(run, layers.in_order(run.layers))


def _lose(layer, state, why):
    if layer.lost is None:
        layer.state, layer.lost = state, why


def _prove(run, layer):
    """Write diff and parent again where an image proves them."""
    names = [name for name in ("diff", "parent") if name in layer.faults]
    if not names:
        return
    problem = f"has metadata that cannot be used: {names[0]} {layer.faults[names[0]]}"
    proof = run.proof.get(layer.chain)
    if proof is None:
        _lose(layer, "B", problem)
        return
    layer.diff, layer.parent = proof
    layer.suspect = True
    finding = run.find("B", layer, problem, "wrote it anew from an image's list of layers")
    steps = [lambda: run.actions.write(run.layer_path(layer, "diff"), f"sha256:{layer.diff}".encode())]
    if layer.parent is None:
        steps.append(lambda: run.actions.set_aside(run.layer_path(layer, "parent")))
    else:
        steps.append(lambda: run.actions.write(run.layer_path(layer, "parent"), f"sha256:{layer.parent}".encode()))
    if not run.apply(finding, *steps):
        _lose(layer, "B", problem)


def _check_parents(run, ordered):
    depths = {}
    for layer in ordered:
        depths[layer.chain] = depths.get(layer.parent, 0) + 1
        if layer.lost is not None or layer.parent is None:
            continue
        parent = run.layers.get(layer.parent)
        if parent is None:
            _lose(layer, "G", f"has no parent: layer {layer.parent[:12]} is missing")
        elif parent.lost is not None:
            _lose(layer, parent.state, f"is built on layer {layer.parent[:12]}, which cannot be kept")
        elif depths[layer.chain] > MAX_DEPTH:
            _lose(layer, "G", f"is built on more than {MAX_DEPTH} layers, which dockerd cannot mount")


def _check_cache_ids(run, ordered):
    owners = {}
    for layer in ordered:
        if layer.cache:
            owners.setdefault(layer.cache, []).append(layer)
    mounts = {name for mount in run.mounts.values() for name in (mount.mount_id, mount.init_id)}
    for cache, claimants in owners.items():
        if len(claimants) > 1 or cache in mounts:
            right = [layer for layer in claimants if layer.lost is None and content.problem(run, layer) is None]
            for layer in claimants:
                if layer not in right[:1]:
                    layer.faults["cache-id"] = f"names {cache[:12]}, which belongs to something else"
                    layer.cache = None
    missing = [layer for layer in ordered if layer.lost is None and (
        layer.cache is None or not run.root.is_directory(f"{layout.OVERLAY}/{layer.cache}"))]
    if not missing:
        return
    free = _candidates(run)
    for layer in missing:
        _find_directory(run, layer, free)


def _find_directory(run, layer, free):
    """Give a layer that has no directory the one of ``free`` that has its files, or a name for a new one."""
    state = "B" if layer.cache is None else "C"
    problem = (f"has metadata that cannot be used: cache-id {layer.faults['cache-id']}" if state == "B" else
               f"has lost its files: overlay2/{layer.cache[:12]} is missing")
    found = None
    if "tar-split.json.gz" not in layer.faults:
        found = next((name for name in free if content.problem(run, layer, name) is None), None)
    if found is not None:
        free.remove(found)
        finding = run.find(state, layer, problem, f"its files are in overlay2/{found[:12]}")
    elif layer.cache is not None:
        return
    elif run.blobs.has_layer(layer.diff):
        # Derived from the layer, so that a run that is repeated after a power cut takes the same.
        found = layout.chain_id(layer.chain, layer.diff)
        finding = run.find(state, layer, problem, "took a new directory")
    else:
        _lose(layer, state, problem)
        return
    layer.cache = found
    if not run.apply(finding, lambda: run.actions.write(run.layer_path(layer, "cache-id"), found.encode())):
        _lose(layer, state, problem)


def _candidates(run):
    claimed = run.claimed()
    names = [name for name in run.root.names(layout.OVERLAY)
             if layout.CACHE_ID.match(name) and name not in claimed and not name.endswith("-init")]
    return names[:MAX_CANDIDATES]


def _check_fields(run, layer):
    if "descriptor.json" in layer.faults:
        problem = f"has metadata that cannot be used: descriptor.json {layer.faults['descriptor.json']}"
        # Only tells where the layer was pulled from.
        finding = run.find("B", layer, problem, "set it aside, layers need none")
        if not run.apply(finding, lambda: run.actions.set_aside(run.layer_path(layer, "descriptor.json"))):
            _lose(layer, "B", problem)
    if "tar-split.json.gz" in layer.faults and not run.blobs.has_layer(layer.diff):
        _lose(layer, "B", f"has metadata that cannot be used: tar-split.json.gz {layer.faults['tar-split.json.gz']}")


def _check_directory(run, layer, used):
    cache = overlay.read(run.root, layer.cache)
    if cache is None or cache.inode is None:
        cache = _rebuild(run, layer, cache)
    if cache is None or layer.lost is not None:
        return
    layer.cached, layer.inode = cache, cache.inode
    if not settle(run, layer, cache, used):
        _lose(layer, "D", "has no short name and cannot be given one")
        return
    parent = run.layers.get(layer.parent) if layer.parent else None
    # Lost parents were sorted out before.
    lower = parent.cached.lowers() if parent and parent.cached and parent.lost is None else None
    if parent is not None and lower is None:
        _lose(layer, parent.state or "G", f"is built on layer {layer.parent[:12]}, which cannot be kept")
        return
    if not set_lower(run, layer, cache, lower):
        _lose(layer, "E", "has the wrong lower directories and they cannot be set right")


def _rebuild(run, layer, cache):
    """Make a directory for a layer whose files are to be taken from a store; None when there are none."""
    what = "is missing" if cache is None else "lacks its files"
    problem = f"has lost its files: overlay2/{layer.cache[:12]} {what}"
    if not run.blobs.has_layer(layer.diff):
        _lose(layer, "C", problem)
        return None
    finding = run.find("C", layer, problem, "made the directory anew, to be filled from the store")
    path = f"{layout.OVERLAY}/{layer.cache}"
    steps = [lambda: run.actions.mkdir(path, 0o710), lambda: run.actions.mkdir(f"{path}/diff", 0o755, run.id_offset)]
    if not run.apply(finding, *steps):
        _lose(layer, "C", problem)
        return None
    layer.suspect = True
    if run.actions.dry_run:
        cache = cache or overlay.Cache(layer.cache)
        cache.link = cache.link or overlay.new_link(cache.name, run.links)
        cache.target, cache.inode, cache.work = cache.wanted_target, 0, True
        parent = run.layers.get(layer.parent) if layer.parent else None
        cache.lower = parent.cached.lowers() if parent and parent.cached else None
        return cache
    return overlay.read(run.root, layer.cache)


def settle(run, thing, cache, used):
    """See to it that a directory has a short name of its own that leads to it; tell whether it has.

    Arguments:
        thing: what the directory belongs to, for the report.
        cache: its Cache, which is brought up to date.
        used: {short name: directory} of those seen before.
    """
    taken = cache.link is not None and (
        used.get(cache.link, cache.name) != cache.name
        or (cache.target is not None and cache.target != cache.wanted_target and _leads_to_its_own(run, cache)))
    if cache.link is None or taken:
        names = [name for name in overlay.names_of(cache.name, run.links) if used.get(name, cache.name) == cache.name]
        link = names[0] if names else overlay.new_link(cache.name, run.links)
        what = "is that of another directory" if taken else "is missing"
        finding = run.find("D", thing, f"has a short name that {what} (overlay2/{cache.name[:12]}/link)",
                           "wrote it anew")
        steps = [lambda: run.actions.symlink(f"{layout.LINKS}/{link}", cache.wanted_target),
                 lambda: run.actions.write(f"{layout.OVERLAY}/{cache.name}/link", link.encode())]
        if not run.apply(finding, *steps):
            return False
        cache.link, cache.target = link, cache.wanted_target
        run.links[link] = cache.target
    elif cache.target != cache.wanted_target:
        what = "is missing" if cache.link not in run.links else "leads elsewhere"
        finding = run.find("F", thing, f"has a short name whose link {what} (overlay2/l/{cache.link})",
                           "made it anew")
        if not run.apply(finding, lambda: run.actions.symlink(f"{layout.LINKS}/{cache.link}", cache.wanted_target)):
            return False
        cache.target = run.links[cache.link] = cache.wanted_target
    used[cache.link] = cache.name
    return True


def _leads_to_its_own(run, cache):
    """Tell whether the short name that a Cache has belongs to another directory, which has it too."""
    parts = cache.target.split("/")
    if len(parts) != 3 or parts[0] != ".." or parts[2] != "diff" or not layout.CACHE_ID.match(parts[1]):
        return False
    other = overlay.read(run.root, parts[1])
    return other is not None and other.link == cache.link


def set_lower(run, thing, cache, lower):
    """See to it that a directory names its lower directories (None: has none); tell whether it does."""
    path = f"{layout.OVERLAY}/{cache.name}"
    if cache.lower != lower:
        what = "is missing" if cache.lower is None else "is empty" if not cache.lower else "is wrong"
        if lower is None:
            finding = run.find("E", thing, f"has lower directories although nothing is below it ({path[:21]}/lower)",
                               "set the list aside")
            step = lambda: run.actions.set_aside(f"{path}/lower")  # noqa: E731
        else:
            finding = run.find("E", thing, f"has a list of lower directories that {what} ({path[:21]}/lower)",
                               "wrote it anew")
            step = lambda: run.actions.write(f"{path}/lower", lower.encode())  # noqa: E731
        if not run.apply(finding, step):
            return False
        cache.lower = lower
    if lower is not None and not cache.work:
        finding = run.find("C", thing, f"lacks its work directory ({path[:21]}/work)", "made it anew")
        if not run.apply(finding, lambda: run.actions.mkdir(f"{path}/work", 0o700, run.id_offset)):
            return False
        cache.work = True
    return True
