# SPDX-License-Identifier: MIT
"""Read a Python package's source archive in memory, as PyPA's specification "Source distribution format" lays it out.

Nothing is unpacked, so no name in the archive can reach outside of it.
"""

import hashlib
import io
import re
import tarfile
import tomllib
import zlib
from email.errors import MessageError

from packaging.metadata import parse_email

from composeapps.errors import CorruptError, NotFoundError

# Top-level directories that are no part of what gets installed.
NOT_INSTALLED = {"benchmarks", "doc", "docs", "example", "examples", "test", "testing", "tests", "tools"}

_MAX_MEMBER = 16 << 20
_LICENCE = re.compile(r"(?:licen[cs]e|copying)(?:[.-][^/]*)?", re.IGNORECASE)
_TEST_FILE = re.compile(r"(?:.*/)?(?:tests?/.*|test_[^/]*|[^/]*_test|conftest)\.py")


class SourceArchive:
    """A .tar.gz of a Python package.

    :param data: its bytes
    :param filename: its name, for messages
    :raises CorruptError: it is no such archive

    ``top`` is the directory that holds all; ``files`` the paths of its regular files below that.
    """

    def __init__(self, data, filename):
        self.filename = filename
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            # In memory: there is no file to be closed.
            self._tar = tarfile.open(fileobj=io.BytesIO(data), mode="r:gz")  # noqa: SIM115
            members = self._tar.getmembers()
        except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as err:
            raise CorruptError(f"archive {filename} cannot be read: {err}") from None
        tops, self._members = set(), {}
        for member in members:
            parts = member.name.split("/")
            if member.name.startswith("/") or ".." in parts:
                raise CorruptError(f"archive {filename} has a member outside of its directory: {member.name!a}")
            parts = [part for part in parts if part not in ("", ".")]
            tops.update(parts[:1])
            if member.isfile() and len(parts) > 1:
                self._members["/".join(parts[1:])] = member
        if len(tops) != 1:
            raise CorruptError(f"archive {filename} has {len(tops)} top directories: a source distribution has one")
        self.top = tops.pop()
        self.files = sorted(self._members)

    def read(self, path):
        """Return a file's bytes.

        :raises NotFoundError: the archive lacks it
        :raises CorruptError: it is too large to be what it should be, or damaged
        """
        member = self._members.get(path)
        if member is None:
            raise NotFoundError(f"archive {self.filename} has no file '{path}'")
        if member.size > _MAX_MEMBER:
            raise CorruptError(f"archive {self.filename}: '{path}' is longer than {_MAX_MEMBER >> 20} MiB")
        try:
            return self._tar.extractfile(member).read()
        except (tarfile.TarError, OSError, EOFError, zlib.error) as err:
            raise CorruptError(f"archive {self.filename}: '{path}' cannot be read: {err}") from None

    def metadata(self):
        """Return PKG-INFO as ``packaging.metadata.RawMetadata``.

        :raises NotFoundError: there is none
        :raises CorruptError: it cannot be read
        """
        try:
            raw, _unparsed = parse_email(self.read("PKG-INFO"))
        except (MessageError, ValueError) as err:
            raise CorruptError(f"archive {self.filename}: PKG-INFO cannot be read: {err}") from None
        return raw

    def pyproject(self):
        """Return pyproject.toml as a dict, empty when there is none.

        :raises CorruptError: it cannot be read
        """
        if "pyproject.toml" not in self._members:
            return {}
        try:
            return tomllib.loads(self.read("pyproject.toml").decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
            raise CorruptError(f"archive {self.filename}: pyproject.toml cannot be read: {err}") from None

    def licence_files(self):
        """Return the paths of top-level files that are named like a licence's text."""
        return [path for path in self.files if _LICENCE.fullmatch(path)]

    def sources(self, name, modules=None, unused=()):
        """Return {path: bytes} of the Python sources that get installed, tests left out.

        :param name: the package's name
        :param modules: names of the top-level packages and modules; None for every top-level package
            beside tests and documentation, and the module named like the package
        :param unused: paths of files and directories to leave out
        :raises NotFoundError: none is there, or one of ``modules`` or ``unused`` is not
        """
        roots = {}
        for path in self.files:
            inside = path.removeprefix("src/")
            head, slash, _rest = inside.partition("/")
            if slash and inside == f"{head}/__init__.py" and head not in NOT_INSTALLED:
                roots[head] = path.removesuffix("__init__.py")
            elif not slash and inside == f"{re.sub('[-.]+', '_', name)}.py":
                roots[inside.removesuffix(".py")] = path
        if modules is not None:
            roots = {module: self._root(module) for module in modules}
        found = {path: self.read(path) for path in self.files if path.endswith(".py")
                 and any(path == root or root.endswith("/") and path.startswith(root)
                         and not _TEST_FILE.fullmatch(path.removeprefix(root)) for root in roots.values())}
        for left_out in unused:
            inside = [path for path in self.files if path == left_out or path.startswith(f"{left_out}/")]
            if not inside:
                raise NotFoundError(f"archive {self.filename} has no file or directory '{left_out}', "
                                    "which 'unused' names")
            for path in inside:
                found.pop(path, None)
        if not found:
            raise NotFoundError(
                f"archive {self.filename} has no Python package that can be told apart: name it in 'modules'")
        return found

    def _root(self, module):
        for root in ("", "src/"):
            if f"{root}{module}.py" in self._members:
                return f"{root}{module}.py"
            if any(path.startswith(f"{root}{module}/") for path in self.files):
                return f"{root}{module}/"
        raise NotFoundError(f"archive {self.filename} has no module '{module}', which 'modules' names")
