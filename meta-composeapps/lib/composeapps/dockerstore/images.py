# SPDX-License-Identifier: MIT
"""Image configurations, tags, and what pulls remember: states H, I, J and K."""

import hashlib
import json
import re

from composeapps.dockerstore import layout
from composeapps.dockerstore.blobs import diff_ids_of
from composeapps.dockerstore.report import reason

_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_TAGGED = re.compile(r"[a-z0-9][a-z0-9._/:-]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


class Image:
    """An image's configuration: ``diffs`` its layers' diff ids, None when it does not say; ``fault`` what is wrong."""

    __slots__ = ("id", "diffs", "top", "fault", "state")

    def __init__(self, identity):
        self.id = identity
        self.diffs = self.top = self.fault = self.state = None

    def __str__(self):
        return f"image {self.id[:12]}"

    def accept(self, data):
        """Take the configuration's content, which has the right digest."""
        self.diffs = diff_ids_of(data)
        for chain, _diff, _parent in layout.chain(self.diffs or ()):
            self.top = chain


def read_all(root):
    """Return {image id: Image} of the configurations."""
    found = {}
    for name in root.names(layout.CONFIGS):
        if not layout.HEX.match(name):
            continue
        image = found[name] = Image(name)
        try:
            data = root.read(f"{layout.CONFIGS}/{name}", layout.MAX_DOCUMENT)
        except OSError as err:
            image.fault = reason(err)
            continue
        if hashlib.sha256(data).hexdigest() != name:
            image.fault = "is empty" if not data else "does not match its digest"
        else:
            image.accept(data)
    return found


def restore(run):
    """Write damaged configurations again where a store has them (I); mark the others."""
    for image in run.images.values():
        if image.fault is None:
            continue
        data = run.blobs.config(image.id)
        problem = f"has a configuration that {image.fault}"
        if data is not None:
            finding = run.find("I", image, problem, "wrote it anew from the store")
            path = f"{layout.CONFIGS}/{image.id}"
            if run.apply(finding, lambda path=path, data=data: run.actions.write(path, data, 0o600)):
                image.accept(data)
                image.fault = None
                continue
        image.state, image.fault = "I", problem


def check_layers(run):
    """Mark the images whose layers are missing or lost (H)."""
    for image in run.images.values():
        if image.fault is None and image.top is not None and not run.alive(image.top):
            layer = run.layers.get(image.top)
            image.state = (layer.state if layer else None) or "H"
            image.fault = "is built on layers that cannot be kept" if layer else "has lost its layers"


def lost(run):
    """Return the Images that cannot be kept."""
    return [image for image in run.images.values() if image.fault is not None]


def check_tags(run):
    """Check repositories.json (J); drop the tags of images that are gone."""
    gone = {image.id for image in lost(run)}
    try:
        data = run.root.read(layout.REPOSITORIES, layout.MAX_DOCUMENT)
        repositories = parse_repositories(data)
        problem = None if repositories is not None else "is empty" if not data else "is not what dockerd wrote"
    except FileNotFoundError:
        repositories, problem = {}, "is missing" if run.images else None
    except OSError as err:
        repositories, problem = None, reason(err)
    if problem is not None:
        rebuilt = _known_tags(run, gone)
        # dockerd makes a missing one; the agent loads an image again that has lost its tag.
        if problem == "is missing" and not rebuilt:
            return
        count = sum(map(len, rebuilt.values()))
        finding = run.find("J", "the list of tags", f"{problem} ({layout.REPOSITORIES})",
                           f"wrote it anew with the {count} tags that are known")
        steps = [lambda: run.actions.set_aside(layout.REPOSITORIES)]
        if rebuilt:
            steps.append(lambda: _write(run, rebuilt))
        run.apply(finding, *steps)
        return
    kept, dropped = {}, []
    for repository, references in repositories.items():
        for reference, image in (references or {}).items():
            identity = image.removeprefix("sha256:")
            if layout.HEX.match(identity) and (identity in gone or identity not in run.images):
                dropped.append(reference)
            else:
                kept.setdefault(repository, {})[reference] = image
    if dropped:
        names = ", ".join(layout.shown(name) for name in sorted(dropped)[:5]) + (", …" if len(dropped) > 5 else "")
        finding = run.find("H", "the list of tags", f"names images that are not there ({names})",
                           "took those tags out; the images can be loaded again")
        run.apply(finding, lambda: _write(run, kept))


def _write(run, repositories):
    data = json.dumps({"Repositories": repositories}, separators=(",", ":"), sort_keys=True).encode()
    run.actions.write(layout.REPOSITORIES, data, 0o600)


def parse_repositories(data):
    """Return {repository: {reference: image}}, or None for what would keep dockerd from starting."""
    try:
        text = data.decode("utf-8", "replace").lstrip(" \t\r\n")
        # dockerd reads the first value and no further.
        document, _end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if document is None:
        return {}
    if not isinstance(document, dict):
        return None
    repositories = {}
    for key, value in document.items():
        # encoding/json takes a field's name in any case.
        if key.lower() == "repositories" and value is not None:
            if not isinstance(value, dict):
                return None
            repositories = value
    for references in repositories.values():
        if references is not None and not (isinstance(references, dict) and
                                           all(isinstance(image, str) for image in references.values())):
            return None
    return repositories


def _known_tags(run, gone):
    tags = run.blobs.tags()
    for container in run.containers.values():
        name = container.image_name
        if container.image and name and _TAGGED.match(name) and not name.startswith("sha256:"):
            tags.setdefault(name, container.image)
    found = {}
    for tag, image in sorted(tags.items()):
        if image in run.images and image not in gone:
            # dockerd keeps the short form of its own registry's names.
            tag = tag.removeprefix("docker.io/").removeprefix("library/")
            found.setdefault(tag.rpartition(":")[0], {})[tag] = f"sha256:{image}"
    return found


def check_memory(run):
    """Remove what pulls remember and cannot be read (K), and metadata of images that are not there (O)."""
    for home, fits in ((layout.DIFFID_BY_DIGEST, _is_digest), (layout.METADATA_BY_DIFFID, _is_list)):
        bad = []
        for name in run.root.names(home):
            path = f"{home}/{name}"
            try:
                if not name.startswith(".tmp-") and fits(run.root.read(path, 1024 * 1024)):
                    continue
            except OSError:
                pass
            bad.append(path)
        if bad:
            finding = run.find("K", "what dockerd remembers of registries", f"is unreadable in {len(bad)} files "
                               f"({home})", "removed them")
            run.apply(finding, *[lambda path=path: run.actions.delete(path) for path in bad])
    for name in run.root.names(layout.METADATA):
        path = f"{layout.METADATA}/{name}"
        if name not in run.images:
            finding = run.find("O", "metadata", f"of an image that is not there was left over ({path[-64:][:12]})",
                               "removed it")
            run.apply(finding, lambda path=path: run.actions.delete(path))
        elif run.images[name].fault is None:
            _check_time(run, name, f"{path}/lastUpdated")


def _check_time(run, name, path):
    try:
        data = run.root.read(path, layout.MAX_FIELD)
    except FileNotFoundError:
        return
    except OSError:
        data = b"?"
    if data and not _TIME.match(data):
        finding = run.find("K", f"image {name[:12]}", "has metadata that is unreadable (lastUpdated)", "removed it")
        run.apply(finding, lambda: run.actions.delete(path))


def _is_digest(data):
    return bool(layout.DIGEST.match(data.decode("ascii", "replace").strip()))


def _is_list(data):
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return document is None or (isinstance(document, list) and all(isinstance(each, dict) for each in document))
