# SPDX-License-Identifier: MIT
"""fsck itself: a damaged store is repaired, and the power fails while it is."""

import os

from crash.dockertree import DockerTree
from crash.errors import CrashError
from crash.place import run_agent
from crash.workloads.base import Workload, sync

# Exit statuses of fsck that tell what it found: nothing, repaired, and damage left over.
FSCK_CLEAN, FSCK_REPAIRED, FSCK_LEFT = 0, 10, 4


class Repair(Workload):
    """``composeapps fsck`` over a store with several kinds of damage at once."""

    name = "repair"
    preloaded = 3
    repairs = True
    size = {"count": 3, "small": 12, "large": 1}

    def prepare(self, place):
        super().prepare(place)
        damage(place)

    def fill_daemon(self, place):
        super().fill_daemon(place)
        image = place.image_of(sorted(place.world.apps)[0]).image_id
        for name in ("first", "second"):
            place.docker.create(image, name)

    def record(self, place):
        status, _, said = run_fsck(place)
        if status != FSCK_REPAIRED:
            raise CrashError(f"fsck did not repair what was damaged on purpose: status {status}, {said.strip()[-600:]}")


def run_fsck(place):
    """Run ``composeapps fsck`` over the disk; return (exit status, standard output, standard error)."""
    return run_agent("fsck", "--data-root", str(place.layout.docker), "--store", str(place.layout.store), "--json",
                     check=False)


def damage(place):
    """Do to dockerd's data root what power cuts do, several kinds at once, as the place's seed has it."""
    draw, tree = place.draw("damage"), DockerTree(place.layout.docker)
    chains = sorted(tree.layers)
    draw.shuffle(chains)
    kinds = [_empty_files, _lose_field, _empty_link, _lose_lower, _lose_name, _spoil_config, _empty_mount,
             _leave_orphan]
    for number, kind in enumerate(draw.sample(kinds, 4)):
        kind(tree, tree.layers[chains[number % len(chains)]], draw)
    sync(place.layout.root)


def _home(tree, layer):
    return tree.overlay / layer.cache_id


def _empty_files(tree, layer, draw):
    """State A."""
    files = sorted(path for path in (_home(tree, layer) / "diff").rglob("*")
                   if path.is_file() and not path.is_symlink())
    for path in draw.sample(files, min(4, len(files))):
        os.truncate(path, 0)


def _lose_field(tree, layer, draw):
    """State B."""
    name = draw.choice(("diff", "cache-id", "size"))
    os.truncate(tree.layerdb / "sha256" / layer.chain.partition(":")[2] / name, 0)


def _empty_link(tree, layer, draw):
    """State D."""
    os.truncate(_home(tree, layer) / "link", 0)


def _lose_lower(tree, layer, draw):
    """State E; a base layer has none to lose."""
    (_home(tree, layer) / "lower").unlink(missing_ok=True)


def _lose_name(tree, layer, draw):
    """State F."""
    (tree.overlay / "l" / (_home(tree, layer) / "link").read_text()).unlink(missing_ok=True)


def _spoil_config(tree, layer, draw):
    """State I."""
    name = draw.choice(sorted(tree.images)).partition(":")[2]
    os.truncate(tree.imagedb / "content/sha256" / name, 10)


def _empty_mount(tree, layer, draw):
    """State L."""
    mount = draw.choice(sorted((tree.layerdb / "mounts").iterdir()))
    os.truncate(mount / draw.choice(("mount-id", "init-id", "parent")), 0)


def _leave_orphan(tree, layer, draw):
    """State O."""
    (tree.overlay / f"{draw.getrandbits(256):064x}" / "diff").mkdir(parents=True)


