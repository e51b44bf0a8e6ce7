# SPDX-License-Identifier: MIT
"""What the checks of one run share: the store's model, the steps, the report."""

import os
import re
import time

from composeapps.dockerstore import layers, layout, overlay
from composeapps.dockerstore.report import Finding, reason

_REMAPPED = re.compile(r"(\d{1,10})\.(\d{1,10})\Z")


class Run:
    """One run.

    Arguments:
        root: the Root.
        actions: the Actions.
        report: the Report.
        blobs: the Blobs.
        time_limit: seconds for reading layers' files, None for no limit.

    ``layers`` is {chain id: Layer}, ``images`` {image id: Image}, ``mounts`` {name: Mount}, ``containers``
    {id: Container}: what is damaged for good is marked there first and taken away at the end.
    """

    def __init__(self, root, actions, report, blobs, time_limit=None, full=False, notify=lambda text: None):
        self.root, self.actions, self.report, self.blobs = root, actions, report, blobs
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.full, self.notify = full, notify
        self.layers, self.images, self.mounts, self.containers = {}, {}, {}, {}
        self.ledger, self.pending = {}, {}
        self._proof = self._links = None
        # With userns-remap dockerd's data root is a directory named by the first user and group id.
        remapped = _REMAPPED.match(os.path.basename(root.path))
        self.id_offset = (int(remapped[1]), int(remapped[2])) if remapped else (0, 0)

    def find(self, state, thing, problem, repair=None):
        """Note damage; return the Finding."""
        finding = Finding(state, str(thing), problem, repair)
        if self.actions.dry_run:
            finding.done = None
        self.report.findings.append(finding)
        return finding

    def apply(self, finding, *steps):
        """Carry out the steps (functions without arguments) of a repair; tell whether all went well."""
        if self.actions.dry_run:
            return True
        finding.done = False
        for step in steps:
            try:
                step()
            except (OSError, ValueError) as err:
                finding.repair = f"{finding.repair} failed: {reason(err)}"
                return False
        finding.done = True
        return True

    def expired(self):
        """Tell whether the time for reading layers' files is over."""
        return self.deadline is not None and time.monotonic() > self.deadline

    @property
    def links(self):
        """{short name: target} of ``overlay2/l``."""
        if self._links is None:
            self._links = overlay.links(self.root)
        return self._links

    def forget_links(self):
        """Read ``links`` again when it is next asked for."""
        self._links = None

    @property
    def proof(self):
        """{chain id: (diff id, parent)} of every layer that an image here or in the stores is known to have."""
        if self._proof is None:
            known = [image.diffs for image in self.images.values() if image.diffs]
            self._proof = layers.proven([*known, *self.blobs.diff_ids().values()])
        return self._proof

    def claimed(self):
        """Return the names of the directories of overlay2 that layers or mounts use."""
        names = {layer.cache for layer in self.layers.values() if layer.cache}
        for mount in self.mounts.values():
            names.update(name for name in (mount.mount_id, mount.init_id) if name)
        return names

    def alive(self, chain):
        """Tell whether there is a layer of this chain id that can be kept."""
        layer = self.layers.get(chain)
        return layer is not None and layer.lost is None

    def layer_path(self, layer, name=""):
        """Return the path of a layer's metadata."""
        return f"{layout.LAYERS}/{layer.chain}/{name}" if name else f"{layout.LAYERS}/{layer.chain}"
