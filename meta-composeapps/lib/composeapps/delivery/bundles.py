# SPDX-License-Identifier: MIT
"""An offline bundle: what a factory signed and the apps' blobs, in a directory, on a stick for example.

::

    tuf/                     the metadata, by the names that a server gives it
    tuf/bundle-targets.json  signed by the targets role: for which tag and hardware it is, which Targets it has
    apps/                    a store: apps/ and blobs/sha256/

The layout and ``x-fio-offline-bundle`` are those of Foundries.io's bundles (fioctl, aktualizr-lite). What a stick says
is held against the same rules as what a server says. That its timestamp has ended since counts for nothing: for how
long the bundle may be used is what ``bundle-targets.json`` says.
"""

import datetime
from pathlib import Path
from typing import NamedTuple

from composeapps import beneath
from composeapps.delivery import clock, refresh
from composeapps.delivery.trust import LIMITS, TARGETS, TIMESTAMP, TrustError, to_text
from composeapps.errors import CorruptError, NotFoundError, UsageError

_EARLIEST = datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)
NAME, FIELD = "bundle-targets.json", "x-fio-offline-bundle"


class Bundle:
    """The bundle in a directory, or in one tar archive; ``store`` is where the store of one in a directory lies.

    Raises NotFoundError when there is none, CorruptError for an archive that cannot be read.
    """

    def __init__(self, directory):
        self.directory, self._archive = Path(directory), None
        self._tuf, self.store = self.directory / "tuf", self.directory / "apps"
        if self.directory.is_file():
            from composeapps.pull.tarstore import Archive

            try:
                self._archive = Archive(self.directory)
            except OSError as err:
                raise UsageError(f"{directory} cannot be read: {err.strerror}") from None
        if not (self._archive.size_of(f"tuf/{NAME}") if self._archive else (self._tuf / NAME).is_file()):
            raise NotFoundError(f"{directory} is no bundle: it has no tuf/{NAME}")

    def client(self):
        """Return what gives a pull the blobs; raises UsageError when there is no store."""
        from composeapps.pull.fromstore import StoreClient
        from composeapps.pull.tarstore import TarStore

        return StoreClient(self.store, TarStore(self._archive, "apps") if self._archive else None)

    def fetch(self, name, limit):
        """Return a file of the metadata (bytes), None for none, as composeapps.delivery.refresh asks for it."""
        path = self._tuf / name
        try:
            with self._archive.open(f"tuf/{name}") if self._archive else beneath.open_regular(path) as stream:
                data = stream.read(limit + 1)
        except (FileNotFoundError, KeyError):
            return None
        except OSError as err:
            raise UsageError(f"{path} cannot be read: {err.strerror}") from None
        if len(data) > limit:
            raise CorruptError(f"{path} has more than the {limit} bytes allowed")
        return data


class Offer(NamedTuple):
    """What a bundle may give: ``targets`` (of composeapps.delivery.selection), until ``until`` (UTC); ``tag`` and
    ``hardware_ids`` say for whom; ``lacking`` is the Target whose layers it leaves out, ``platforms`` whose blobs it
    has, () and "" for not said."""

    targets: tuple
    until: datetime.datetime
    tag: str
    hardware_ids: tuple
    platforms: tuple
    lacking: str


def believe(bundle, stored, notify=lambda text: None, at=None):
    """Return the Offer of a bundle; what was believed before stays when the bundle's metadata is older.

    Arguments:
        bundle: the Bundle.
        stored: the stored.Stored.
        notify: called with sentences about what is passed over.
        at: the time (UTC), the clock's by default.

    Whether it is for this device is for the caller to ask of the Offer. Raises what ``refresh.refresh`` raises.
    """
    from composeapps.delivery import dialects, rules

    now = at or clock.now(stored.signed())
    data = bundle.fetch("timestamp.json", LIMITS[TIMESTAMP])
    if data is None:
        raise CorruptError(f"{bundle.directory} has no tuf/timestamp.json: make the bundle again")
    timestamp = dialects.read(data, TIMESTAMP).signed
    if timestamp.type != TIMESTAMP:
        raise CorruptError(f"tuf/timestamp.json of {bundle.directory} is of the type {timestamp.type}")
    # Nothing of it is verified yet: it may say the year 1, before which there is no time.
    made = min(now, max(timestamp.expires, _EARLIEST) - datetime.timedelta(seconds=1))
    seen = stored.seen(TIMESTAMP)
    if seen and timestamp.version < seen.version:
        notify(f"the metadata of {bundle.directory} is older than what is known: what is known counts")
        targets = refresh.known(stored)
        refresh.Roots(stored, made).walk(stored.root(), bundle.fetch)
    else:
        targets = refresh.refresh(stored, bundle.fetch, notify, made).targets
    root = refresh.trusted_root(stored.root(), now)
    if rules.expired(root, now):
        raise TrustError("root-alive", f"the factory's root {root.signed.version} ended at "
                         f"{to_text(root.signed.expires)}, and the bundle has no newer one")
    document = dialects.read(bundle.fetch(NAME, LIMITS[TARGETS]) or b"", TARGETS)
    rules.believe(rules.Case(document, TARGETS, TARGETS, root, now), [
        rule for rule in rules.RULES if rule.name in ("type", "dialect", "signed")])
    if rules.expired(document, now):
        raise TrustError("alive", f"the bundle {bundle.directory} was good until {to_text(document.signed.expires)}, "
                         f"and now is {to_text(now)}: make another one")
    return _offer(bundle, document.signed, targets)


def _offer(bundle, signed, targets):
    said = signed.unrecognized_fields.get(FIELD)
    if not isinstance(said, dict) or not isinstance(said.get("tag"), str) or not _texts(said.get("targets")):
        raise CorruptError(f"tuf/{NAME} of {bundle.directory} does not say which Targets it has, and for which tag")
    names, hardware = set(_texts(said["targets"])), _texts(said.get("hardwareIds"))
    chosen = tuple(target for target in targets if target.name in names and said["tag"] in target.tags
                   and (not hardware or set(hardware) & set(target.hardware_ids)))
    lacking = said.get("lacking")
    return Offer(chosen, signed.expires, said["tag"], hardware, _texts(said.get("platforms")),
                 lacking if isinstance(lacking, str) else "")


def _texts(value):
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()
