# SPDX-License-Identifier: MIT
"""One look at dockerd: what it lists of containers, images and networks, asked for once and handed on.

A command that finds everything as it should be asks ``/containers/json``, ``/images/json`` and the like once
each, however many apps and services there are. The lists tell of a container its name, labels, image,
networks, mounts and, while it runs, its state and health. They do not tell, so that it is inspected:

- of one that does not just run: its exit status, restart policy, and when it was started and ended;
- whose IPC, processes or volumes it shares (``inspect`` of ``described_all``);
- the layers of an image;
- of any, when it was started and how often again: the health gate watches for that (composeapps.engine.events).

A list may lag behind a container's own state for a moment after a change: dockerd writes the end of a container
to the disk before it lists it. So what was ended lately, as ``/events`` tells, is inspected, too, and what waits for a
change does not wait by a Look.

A Look knows what goes through it: of the app whose container was changed it asks dockerd anew, by a list of that
app's alone, and inspects the container. Who changes dockerd on another way, by docker compose above all, says so
with ``changed``, or with ``forget`` when it may be anything. While a command works on one app others may change by
themselves: who comes to an app after such work says so with ``doubt``. How long anything took decides nothing.
"""

import bisect
import contextlib
import posixpath
from _thread import allocate_lock, start_new_thread  # threading takes time to load

from composeapps.engine import client
from composeapps.engine.labels import PROJECT, SERVICE, WORKING_DIR
from composeapps.errors import EngineError
from composeapps.patterns import Pattern

# For so many seconds the list is not believed of what ended.
_LATELY = 60
# What no change of containers makes untrue.
_OF_IMAGES = ("images", "images by name", "image ids", "image", "data root")
# What is asked about all apps at once.
_OF_ALL = {("containers", None), ("networks", None), ("ended", None)}
# dockerd's text on a container that runs.
_UP = Pattern(r"Up [^()]*(?: \((?:health: )?(starting|healthy|unhealthy)\))?")


def at(engine):
    """Return a Look at a dockerd: ``engine`` itself if it is one."""
    return engine if isinstance(engine, Look) else Look(engine)


def behind(engine):
    """Return the Engine of a Look, or an Engine itself: who waits for a change asks that."""
    return engine.engine if isinstance(engine, Look) else engine


class Look:
    """What a dockerd lists, asked for once until something changes. It may be shared by threads.

    Arguments:
        engine: the Engine, which does all that is not said here.

    In ``kept`` those who share the Look keep what they found out and what does not change by what they do.
    Every method raises EngineError as the Engine's do.
    """

    def __init__(self, engine):
        self.engine, self._known, self._lock = engine, {}, allocate_lock()
        # Directories and projects of which the lists of all are out of date, containers that were changed here, and
        # what dockerd told of images that it listed otherwise, or not.
        self._apart, self._touched, self._told, self._learned = set(), set(), {}, set()
        # {label: keys of ``_known`` that end with it}, and {ID: what a list told of a container or a network}.
        self._of_label, self._entries = {}, {}
        # Directories of the apps that may have containers which the answer of ``mounts`` lacks.
        self._made = set()
        self.kept = {}

    def __getattr__(self, name):
        return getattr(self.engine, name)

    @property
    def load_way(self):
        """The Engine's, which loading sets."""
        return self.engine.load_way

    @load_way.setter
    def load_way(self, way):
        self.engine.load_way = way

    def forget(self, images=True):
        """Forget all, or all but ``images``: the next question is put to dockerd."""
        with self._lock:
            # An answer that is under way goes where nobody looks any more.
            self._known = {} if images else {key: slot for key, slot in self._known.items() if key[0] in _OF_IMAGES}
            self._apart, self._of_label, self._entries, self._made = set(), {}, {}, set()
            if images:
                self._told, self._learned = {}, set()

    def changed(self, directory, project=""):
        """Take note that containers of the app in a directory were made, or it or its compose project was changed."""
        with self._lock:
            self._made.add(f"{WORKING_DIR}={directory}")
        self._outdate(directory, project)

    def doubt(self, directory):
        """Let the next question about an app's containers be put to dockerd, unless none was yet."""
        if self._known.keys() & _OF_ALL:
            self._outdate(directory, "")

    def _outdate(self, directory, project):
        """Let the next question about an app's containers, or its project's networks, be put to dockerd."""
        with self._lock:
            for label in filter(None, (directory and f"{WORKING_DIR}={directory}",
                                       project and f"{PROJECT}={project}")):
                self._apart.add(label)
                for key in self._of_label.pop(label, ()):
                    self._known.pop(key, None)

    def ahead(self, *questions):
        """Begin to ask several things side by side; who wants an answer waits for it, and meets its error.

        Arguments:
            questions: methods of this Look that take no argument.
        """
        for question in questions:
            start_new_thread(self._ask_ahead, (question,))

    @staticmethod
    def _ask_ahead(question):
        with contextlib.suppress(EngineError):
            question()

    def ended(self, label=None):
        """Return the IDs of the containers with a label of which the list is not believed, since they ended lately."""
        return self._once(("ended", label), lambda: self.engine.recently_ended(_LATELY, label)) | self._touched

    def containers(self, label=None):
        """Return what Engine.containers does; a ``label`` is the app's directory or its project (``key=value``)."""
        if label is None and self._apart:
            self.forget(images=False)
        return self._labelled("containers", self._listed, label)

    def networks(self, label=None):
        """Return what Engine.networks does."""
        return self._labelled("networks", self._listed_networks, label)

    def first_list(self):
        """Return what dockerd listed of all containers when it was asked first.

        Of those that were changed since ``containers`` tells by their labels.
        """
        return self._once(("containers", None), self._listed)

    def mounts(self):
        """Return the paths of the host that containers have mounted, running or not: [(path, whether to write), …].

        They are normalized and sorted. Those of containers that have gone in the last seconds may be among them.
        """
        # What is started or stopped has the mounts that it had, so that only apps with new containers are looked at.
        listed = self.first_list()
        found = self._once(("mounts",), lambda: sorted(_mounts(listed)))
        while self._made:
            with contextlib.suppress(KeyError):
                label = self._made.pop()
                for mount in _mounts(self.containers(label)):
                    bisect.insort(found, mount)
        return found

    def images(self):
        """Return what Engine.images does, and what ``learn`` found."""
        listed = self._once(("images",), self.engine.images)
        if not self._told:
            return listed
        told = {found["Id"]: found for found in self._told.values() if found}
        return [*(image for image in listed if image["Id"] not in told), *told.values()]

    def image_ids(self):
        """Return the IDs of the images that ``images`` returns, a set."""
        listed = self._once(("images",), self.engine.images)
        return self._once(("image ids",), lambda: {image["Id"] for image in listed}) | self._learned

    def listed_image(self, name):
        """Return what dockerd lists of an image, by ID or by a name as dockerd writes it; None when it lists none.

        Of one that was loaded through this Look it returns what ``learn`` found.
        """
        if name in self._told:
            return self._told[name]
        images = self._once(("images",), self.engine.images)
        return self._once(("images by name",), lambda: _by_name(images)).get(name)

    def learn(self, name):
        """Return what dockerd tells now of an image, None when it has none, and let ``listed_image`` tell the same."""
        found = self.engine.image(name)
        self._told.update(dict.fromkeys(_names_of(found), found) if found else {name: None})
        if found:
            self._learned.add(found["Id"])
        return found

    def image(self, name):
        """Return what Engine.image does."""
        return self._once(("image", name), lambda: self.engine.image(name))

    def image_id(self, name):
        """Return what Engine.image_id does."""
        return (self.listed_image(name) or self.image(name) or {}).get("Id")

    def data_root(self):
        """Return what Engine.data_root does; it stays what it is."""
        return self._once(("data root",), self.engine.data_root)

    def described_all(self, entries, inspect=()):
        """Return what dockerd tells of containers that it lists, as far as their states, labels and names go.

        Arguments:
            entries: the containers, as they are listed.
            inspect: services of which more than that is to be known; None for all.

        There is None for one that is gone. Those that are inspected are so a few at a time.
        """
        found = {entry["Id"]: None if inspect is None or _label(entry, SERVICE) in inspect else _running(entry)
                 for entry in entries}
        for where in {self._place_of(entry) for entry in entries if found[entry["Id"]]}:
            found.update(dict.fromkeys(self.ended(where) & found.keys()))
        lacking = [entry for entry in entries if not found[entry["Id"]]]
        found.update(zip((entry["Id"] for entry in lacking), client.each(self._inspected, lacking), strict=True))
        return [found[entry["Id"]] for entry in entries]

    def _inspected(self, entry):
        identifier, where = entry["Id"], self._place_of(entry)
        return self._once(("container", identifier, where), lambda: self.engine.container(identifier))

    def _place_of(self, entry):
        """Return the label by which an app's containers are asked for apart from all others, None for others."""
        label = f"{WORKING_DIR}={_label(entry, WORKING_DIR)}"
        return label if label in self._apart else None

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
        """Do what Engine.remove does; networks and containers by their IDs."""
        if kind in ("containers", "networks"):
            return self._change(self.engine.remove, kind, name, of=name, **options)
        try:
            return self.engine.remove(kind, name, **options)
        finally:
            if kind == "images":
                self.forget()

    def _change(self, action, container, *arguments, of=None, **options):
        of = of or container
        self._touched.add(of)
        try:
            return action(container, *arguments, **options)
        finally:
            entry = self._entries.get(of)
            if entry and (_label(entry, WORKING_DIR) or _label(entry, PROJECT)):
                self._outdate(_label(entry, WORKING_DIR), _label(entry, PROJECT))
            else:
                self.forget()

    def _listed(self, label=None):
        """Return what Engine.containers does, and remember by which ID each goes."""
        return self._noted(self.engine.containers(label))

    def _listed_networks(self, label=None):
        return self._noted(self.engine.networks(label))

    def _noted(self, entries):
        self._entries.update((entry.get("Id"), entry) for entry in entries)
        return entries

    def _once(self, key, ask):
        with self._lock:
            slot = self._known.get(key)
            if slot is None:
                slot = self._known[key] = _Slot()
                self._of_label.setdefault(key[-1], []).append(key)
        tries = slot.tries
        with slot.lock:
            if not slot.done:
                # Who waited for another one's question waited long enough.
                if slot.tries != tries:
                    raise slot.error
                try:
                    slot.value = ask()
                except EngineError as err:
                    slot.error, slot.tries = err, slot.tries + 1
                    raise
                slot.done = True
            return slot.value

    def _labelled(self, kind, ask, label):
        if label in self._apart:
            return self._once((kind, label), lambda: ask(label))
        entries = self._once((kind, None), ask)
        if not label:
            return entries
        key, sign, value = label.partition("=")
        found = self._once((kind, "by label", key), lambda: _by_label(entries, key))
        return found.get(value, []) if sign else [entry for each in found.values() for entry in each]


class _Slot:
    """An answer, the lock of who asks for it, and how often that failed, the last time with which error."""

    def __init__(self):
        self.lock, self.done, self.value = allocate_lock(), False, None
        self.tries, self.error = 0, None


def _label(entry, key):
    return (entry.get("Labels") or {}).get(key) or ""


def _mounts(containers):
    return {(posixpath.normpath(mount.get("Source") or "/"), bool(mount.get("RW"))) for container in containers
            for mount in container.get("Mounts") or () if mount.get("Type") == "bind"}


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
        found.update(dict.fromkeys(_names_of(image), image))
    return found


def _names_of(image):
    return image["Id"], *(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())


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
