# SPDX-License-Identifier: MIT
"""One look at dockerd: what it lists of containers, images and networks, asked for once and handed on.

A command that finds everything as it should be asks ``/containers/json``, ``/images/json`` and the like once
each, however many apps and services there are. The lists tell of a container its name, labels, image,
networks, mounts and, while it runs, its state and health. They do not tell, so that it is inspected:

- of one that does not just run: its exit status, restart policy, and when it was started and ended;
- whose IPC, processes or volumes it shares (``inspect`` of ``described``);
- the layers of an image;
- of any, when it was started and how often again: the health gate asks dockerd itself.

A list may lag behind a container's own state for a moment after a change: dockerd writes the end of a container
to the disk before it lists it. So what was ended lately, as ``/events`` tells, is inspected, too. Whatever is
about to be changed is asked again, what waits for a change does not wait by a Look, and a Look forgets all that
it knows with every change that goes through it; who changes dockerd on another way calls ``forget``.
"""

import re
from _thread import allocate_lock  # threading takes time to load

from composeapps.engine.labels import SERVICE

# For so many seconds the list is not believed of what ended.
_LATELY = 60
# dockerd's text on a container that runs.
_UP = re.compile(r"Up [^()]*(?: \((?:health: )?(starting|healthy|unhealthy)\))?")


def at(engine):
    """Return a Look at a dockerd: ``engine`` itself if it is one."""
    return engine if isinstance(engine, Look) else Look(engine)


class Look:
    """What a dockerd lists, asked for once until something changes. It may be shared by threads.

    Arguments:
        engine: the Engine, which does all that is not said here.

    Every method raises EngineError as the Engine's do.
    """

    def __init__(self, engine):
        self.engine, self._known, self._lock = engine, {}, allocate_lock()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    @property
    def load_way(self):
        """The Engine's, which loading sets."""
        return self.engine.load_way

    @load_way.setter
    def load_way(self, way):
        self.engine.load_way = way

    def forget(self):
        """Forget all: the next question is put to dockerd."""
        # An answer that is under way goes into the old mapping.
        self._known = {}

    def containers(self, label=None):
        """Return what Engine.containers does."""
        return self._labelled("containers", self.engine.containers, label)

    def networks(self, label=None):
        """Return what Engine.networks does."""
        return self._labelled("networks", self.engine.networks, label)

    def images(self):
        """Return what Engine.images does."""
        return self._once("images", self.engine.images)

    def listed_image(self, name):
        """Return what dockerd lists of an image, by ID or by a name as dockerd writes it; None when it lists none."""
        images = self.images()
        return self._once("images by name", lambda: _by_name(images)).get(name)

    def image(self, name):
        """Return what Engine.image does."""
        return self._once(("image", name), lambda: self.engine.image(name))

    def image_id(self, name):
        """Return what Engine.image_id does."""
        return (self.listed_image(name) or self.image(name) or {}).get("Id")

    def described(self, entry, inspect=()):
        """Return what dockerd tells of a container that it lists, as far as its state, its labels and its name go.

        Arguments:
            entry: the container, as it is listed.
            inspect: services of which more than that is to be known.

        Returns None when it is gone.
        """
        found = None if (entry.get("Labels") or {}).get(SERVICE) in inspect else _running(entry)
        if found and entry["Id"] in self._once("ended", lambda: self.engine.recently_ended(_LATELY)):
            found = None
        return found or self._once(("container", entry["Id"]), lambda: self.engine.container(entry["Id"]))

    def stop(self, container):
        """Do what Engine.stop does."""
        self._change(self.engine.stop, container)

    def start(self, container):
        """Do what Engine.start does."""
        self._change(self.engine.start, container)

    def unpause(self, container):
        """Do what Engine.unpause does."""
        self._change(self.engine.unpause, container)

    def rename(self, container, name):
        """Do what Engine.rename does."""
        self._change(self.engine.rename, container, name)

    def remove(self, kind, name, **options):
        """Do what Engine.remove does."""
        return self._change(self.engine.remove, kind, name, **options)

    def load(self, manifest, blobs):
        """Do what Engine.load does."""
        self._change(self.engine.load, manifest, blobs)

    def _change(self, action, *arguments, **options):
        try:
            return action(*arguments, **options)
        finally:
            self.forget()

    def _once(self, key, ask):
        known = self._known
        with self._lock:
            if key not in known:
                known[key] = ask()
            return known[key]

    def _labelled(self, kind, ask, label):
        entries = self._once(kind, ask)
        if not label:
            return entries
        key, sign, value = label.partition("=")
        found = self._once((kind, key), lambda: _by_label(entries, key))
        return found.get(value, []) if sign else [entry for each in found.values() for entry in each]


def _by_label(entries, key):
    found = {}
    for entry in entries:
        value = (entry.get("Labels") or {}).get(key)
        if value is not None:
            found.setdefault(value, []).append(entry)
    return found


def _by_name(images):
    found = {}
    for image in images:
        known = found.get(image["Id"])
        if known is not None:
            # dockerd's containerd store lists an image once for each name, each time with all of its names or not.
            image = {**image, **{key: [*(known.get(key) or ()), *(image.get(key) or ())]  # noqa: PLW2901
                                 for key in ("RepoTags", "RepoDigests")}}
        for name in (image["Id"], *(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())):
            found[name] = image
    return found


def _running(entry):
    """Return what inspecting a listed container would tell, as far as the list does; None unless it just runs."""
    said = _UP.fullmatch(entry.get("Status") or "") if entry.get("State") == "running" else None
    # Of several names those with another container's in front are links to this one.
    name = next((name for name in entry.get("Names") or () if name.count("/") == 1), None)
    if said is None or name is None:
        return None
    return {
        "Id": entry["Id"], "Name": name, "Image": entry.get("ImageID"), "Config": {"Labels": entry.get("Labels")},
        "State": {"Status": "running", "Running": True, **({"Health": {"Status": said[1]}} if said[1] else {})},
        "HostConfig": entry.get("HostConfig"), "NetworkSettings": entry.get("NetworkSettings"),
    }
