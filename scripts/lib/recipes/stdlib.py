# SPDX-License-Identifier: MIT
"""Which parts of openembedded-core's split Python a package's sources import."""

import ast
import functools
from pathlib import Path

import yaml

from composeapps.errors import CorruptError

CORE = "core"


def packages_of(sources):
    """Return the parts, without the prefix "python3-" and without ``CORE``, that sources import.

    Counted is every import statement, also one inside a function, since it may be run; not those
    for type checkers alone. What is no module of the standard library is passed over.

    :param sources: {path: bytes} of Python files
    :raises CorruptError: a source is not Python
    """
    found = set()
    for path, content in sources.items():
        try:
            tree = ast.parse(content, filename=path)
        except (SyntaxError, ValueError, RecursionError) as err:
            raise CorruptError(f"{path} is not Python source that can be read: {err}") from None
        visitor = _Imports()
        visitor.visit(tree)
        found = found.union(*map(packages_with, visitor.names))
    return found - {CORE}


def packages_with(module):
    """Return the parts that a module of the standard library needs; ``CORE`` for any other name."""
    known = _modules()
    parts = module.split(".")
    while parts:
        if packages := known.get(".".join(parts)):
            return packages
        parts.pop()
    return {CORE}


@functools.cache
def _modules():
    table = yaml.safe_load(Path(__file__).with_name("stdlib-packages.yml").read_text(encoding="utf-8"))
    found = {}
    for package, modules in table.items():
        for module in modules:
            found.setdefault(module, set()).add(package)
    return found


class _Imports(ast.NodeVisitor):
    """Collects the absolute names that a module imports."""

    def __init__(self):
        self.names = set()

    def visit_Import(self, node):
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node):
        if not node.level:
            # Which of them are submodules only the import would tell: a longer name falls back to the shorter.
            self.names |= {f"{node.module}.{alias.name}" for alias in node.names}

    def visit_If(self, node):
        test = node.test
        name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
        for statement in node.orelse if name == "TYPE_CHECKING" else [*node.body, *node.orelse]:
            self.visit(statement)
