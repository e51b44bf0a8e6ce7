# SPDX-License-Identifier: MIT
"""dockerd's images of apps that are gone from the store.

Only what an agent loaded for such an app is removed: the tag ``repository:hex7`` of an image that
is the app's by its config's digest or by its digest reference, and only while no container, running
or not, is made from it. A name that somebody else gave to the same image stays, and the image
with it. What is to be removed is noted first, in ``<state_dir>/stale-images.json``, because the
app's directory, which names it, goes before; a dockerd that is down loses it at the next pruning.
"""

import contextlib
import json
import os

from composeapps import beneath, durable
from composeapps.engine import look
from composeapps.engine.names import digest_of, tag_of
from composeapps.errors import EngineError
from composeapps.oci.digests import is_digest
from composeapps.oci.reference import parse_pinned
from composeapps.store.inventory import chains


class StaleImages:
    """The images to remove.

    Arguments:
        states: the StateDirectory.
        lost: {pinned reference: ImageFacts} of the images of apps that go.
        kept: {pinned reference: ImageFacts} of those of apps that stay.

    Once they were counted ``references`` has {name in dockerd: pinned reference} of what may be removed, and ``sizes``
    {pinned reference: bytes} of the layers that no other image has; what some of them share counts for one.
    """

    def __init__(self, states, lost, kept):
        self._file = states.root / "stale-images.json"
        self._facts, self._kept, self.references, self.sizes = lost, kept, {}, {}
        self._wanted = {**self._noted(), **{uri: sorted(filter(None, facts.configs)) for uri, facts in lost.items()}}
        for uri in kept:
            self._wanted.pop(uri, None)

    def note(self):
        """Write down what is to be removed; raises OSError."""
        if self._wanted:
            durable.make_directories(self._file.parent)
            durable.write_file(self._file, json.dumps(self._wanted, indent=1).encode() + b"\n")
        else:
            self._file.unlink(missing_ok=True)

    def _noted(self):
        try:
            value = json.loads(beneath.read_regular(self._file))
            return {uri: [c for c in configs if is_digest(c)] for uri, configs in value.items()
                    if isinstance(configs, list) and parse_pinned(uri)}
        except Exception:  # noqa: BLE001 - a note that cannot be read costs space, nothing else
            return {}

    def count(self, engine, report):
        """Add what would be removed to a prune.Report. Raises nothing: a dockerd that fails keeps its images."""
        engine = look.at(engine)
        try:
            removable = self._removable(engine)
            report.images += sorted(removable)
            self.sizes = self._unpacked(engine, removable)
            report.docker_bytes += sum(self.sizes.values())
        except EngineError as err:
            report.of_dockerd.append(f"{err}; its images stay until the next 'composeapps prune'")
            return
        if not report.docker_bytes:
            return
        with contextlib.suppress(OSError, EngineError):
            device = os.stat(engine.data_root()).st_dev
            report.freed_on[device] = report.freed_on.get(device, 0) + report.docker_bytes

    def remove(self, engine, report):
        """Remove the images; ``report.images`` is then what was removed. Raises OSError for the note alone."""
        done, left, engine = [], {}, look.at(engine)
        # What was looked at before may have changed since.
        engine.forget()
        try:
            removable = self._removable(engine)
            used = _used(engine)
            for name, (uri, identifier) in removable.items():
                try:
                    engine.remove("images", name)
                    done.append(name)
                    self._remove_digest(engine, uri, identifier)
                except EngineError as err:
                    left[uri] = self._wanted[uri]
                    report.of_dockerd.append(f"image {name} stays: {err}")
            for uri, configs in self._wanted.items():
                if any(identifier in used for identifier in self._found(engine, uri)):
                    left[uri] = configs
        except EngineError as err:
            left = self._wanted
            report.of_dockerd.append(f"{err}; its images stay until the next 'composeapps prune'")
        report.images = sorted(done)
        self._wanted = left
        self.note()

    def _remove_digest(self, engine, uri, identifier):
        """Remove the name by digest, where dockerd keeps one; the image goes with its last name."""
        found, own = engine.image(identifier), digest_of(parse_pinned(uri))
        if found is not None and found.get("RepoDigests") == [own] and not found.get("RepoTags"):
            engine.remove("images", uri)

    def _removable(self, engine):
        """Return {name in dockerd: (pinned reference, image ID)} of what may be removed now."""
        used, removable = _used(engine), {}
        for uri in self._wanted:
            for identifier, name in self._found(engine, uri).items():
                if identifier not in used:
                    removable[name] = (uri, identifier)
                    self.references[name] = uri
        return removable

    def _found(self, engine, uri):
        """Return {image ID: name} of an app's image in dockerd: none, or the one that has its tag and is it."""
        ref = parse_pinned(uri)
        name = tag_of(ref)
        found = engine.listed_image(name)
        if found is None:
            return {}
        same = found["Id"] in self._wanted.get(uri, ()) or digest_of(ref) in (found.get("RepoDigests") or [])
        return {found["Id"]: name} if same else {}

    def _unpacked(self, engine, removable):
        """Return {pinned reference: bytes} of the layers that no other image in dockerd has."""
        from composeapps.space import check as space

        if not removable:
            return {}
        gone = {identifier for _uri, identifier in removable.values()}
        names = {}
        for image in engine.images():
            names.setdefault(image["Id"], set()).update(
                name for name in image.get("RepoTags") or [] if name != "<none>:<none>")
        gone = {identifier for identifier in gone if names.get(identifier, set()) <= set(removable)}
        others, sizes, seen = set(), {}, set()
        # What the images of apps that stay consist of need not be asked for.
        known = {config: [[content for _digest, _size, content in variant] for variant in facts.variants]
                 for facts in self._kept.values() for config in facts.configs}
        for identifier in set(names) - gone:
            if identifier in known and all(map(all, known[identifier])):
                for contents in known[identifier]:
                    others.update(chains(contents))
            else:
                others.update(chains(((engine.image(identifier) or {}).get("RootFS") or {}).get("Layers") or []))
        for uri in {uri: None for uri, identifier in removable.values() if identifier in gone and uri in self._facts}:
            facts, size = self._facts[uri], 0
            for variant in facts.variants:
                contents = [content for _digest, _size, content in variant]
                for name, (digest, packed, _content) in zip(chains(contents), variant, strict=True):
                    if name not in others and name not in seen:
                        seen.add(name)
                        size += facts.measured.get(digest, packed * space.UNPACKED) + space.LAYER_FILES
            sizes[uri] = size
        return sizes


def identifiers(found, engine):
    """Return the IDs in dockerd of the images that an Inventory names."""
    result, engine = set(), look.at(engine)
    for uri, facts in found.images.items():
        result.update(filter(None, facts.configs))
        ref = parse_pinned(uri)
        image = engine.listed_image(tag_of(ref))
        if image is not None and digest_of(ref) in (image.get("RepoDigests") or []):
            result.add(image["Id"])
    return result


def _used(engine):
    return {container["ImageID"] for container in engine.containers()}

