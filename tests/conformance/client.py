# SPDX-License-Identifier: MIT
"""The device's verifier behind the command line that TUF's conformance suite calls.

The protocol is that of CLIENT-CLI.md in https://github.com/theupdateframework/tuf-conformance. What is believed is kept
as on a device, below ``.device`` in the directory of the metadata, and copied to where the suite looks for it.
"""

import argparse
import datetime
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

from composeapps import durable
from composeapps.delivery import refresh
from composeapps.delivery.stored import Stored
from composeapps.delivery.trust import NothingHereError, TrustError
from composeapps.errors import ComposeAppsError, CorruptError


class Client:
    """A device whose metadata is in ``directory`` (a Path), and whose factory's is at ``url``."""

    def __init__(self, directory, url):
        self._directory, self._url = directory, url
        self._now = datetime.datetime.now(datetime.UTC)
        self._stored = Stored(directory / ".device", directory / ".seeds", notify=print)

    def init(self, root):
        """Take the root that is trusted from the beginning."""
        seeds = self._directory / ".seeds"
        seeds.mkdir()
        # Whatever its version: the suite looks at it when it is used.
        (seeds / "1.root.json").write_bytes(root)
        self._show("root", root)

    def update(self):
        """Bring all top-level roles up to date, and show what is believed; return the Chain."""
        try:
            root = self._stored.root()
            refresh.trusted_root(root, self._now)
            newer = refresh.Roots(self._stored, self._now).walk(root, self._fetch)
            chain = refresh.Chain(self._stored, newer or root, self._fetch, self._now, print)
            data = self._fetch("timestamp.json", refresh.LIMITS["timestamp"])
            if data is None:
                raise NothingHereError("there is no timestamp.json")
            chain.timestamp(data)
            chain.snapshot()
            chain.top()
        finally:
            self._copy()
        return chain

    def download(self, paths, base, place):
        """Get files of the repository, each as its metadata says."""
        chain = self.update()
        for path in paths:
            try:
                found = chain.find(path)
            finally:
                self._copy()
            if found is None:
                raise CorruptError(f"there is no target {path}")
            self._get(found, path, base, place)

    def _get(self, found, path, base, place):
        target = place / quote(path, safe="")
        if target.exists() and self._fits(found, target.read_bytes()):
            return
        before, slash, last = path.rpartition("/")
        digest = next(iter(found.hashes.values()))
        data = self._open(f"{base.rstrip('/')}/{before}{slash}{digest}.{last}", found.length)
        if data is None or not self._fits(found, data):
            raise CorruptError(f"the target {path} is not what its metadata says")
        durable.write_file(target, data)

    @staticmethod
    def _fits(found, data):
        from tuf.api.exceptions import LengthOrHashMismatchError

        try:
            found.verify_length_and_hashes(data)
        except LengthOrHashMismatchError:
            return False
        return True

    def _copy(self):
        self._show("root", self._stored.root())
        for role in self._stored.roles():
            data = self._stored.document(role)
            if data is not None:
                self._show(quote(role, safe=""), data)

    def _show(self, role, data):
        (self._directory / f"{role}.json").write_bytes(data)

    def _fetch(self, name, limit):
        return self._open(f"{self._url.rstrip('/')}/{name}", limit)

    @staticmethod
    def _open(url, limit):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                data = answer.read(limit + 1)
        except urllib.error.HTTPError as err:
            if err.code in (403, 404):
                return None
            raise
        if len(data) > limit:
            raise TrustError("length", f"{url} has more than the {limit} bytes allowed")
        return data


def main(argv=None):
    """Run one command of the suite; return its exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    args = parser.parse_args(argv)
    client = Client(args.metadata_dir, args.metadata_url)
    try:
        if args.command == "init":
            client.init(args.root.read_bytes())
        elif args.command == "refresh":
            client.update()
        else:
            client.download(args.target_name, args.target_base_url, args.target_dir)
    except (ComposeAppsError, OSError) as err:
        print(f"{type(err).__name__}: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
