# SPDX-License-Identifier: MIT
"""What the recipes list by hand agrees with the Python package that they are about."""

import ast
import re
import sys
from pathlib import Path

LAYER = Path(__file__).resolve().parents[2] / "meta-composeapps"
LIB = LAYER / "lib"
PACKAGE = LIB / "composeapps"
RECIPE = (LAYER / "recipes-composeapps/composeapps/composeapps_0.1.0.bb").read_text()

# Which of openembedded-core's python3 packages hold what the package imports
# (recipes-devtools/python/python3/python3-manifest.json).
OWNERS = {
    "python3-asyncio": "asyncio concurrent",
    "python3-compression": "bz2 gzip lzma tarfile zipfile zlib",
    "python3-core": "__future__ abc argparse array ast atexit bisect binascii collections contextlib copy "
                    "dataclasses enum errno fcntl fnmatch functools glob grp importlib io itertools locale math "
                    "operator os pathlib platform posixpath pwd re select selectors shutil signal stat string "
                    "struct subprocess sys textwrap time traceback types typing warnings weakref",
    "python3-crypt": "hashlib",
    "python3-ctypes": "ctypes",
    "python3-datetime": "calendar datetime",
    "python3-email": "email",
    "python3-io": "socket ssl tempfile",
    "python3-json": "json",
    "python3-logging": "logging",
    "python3-math": "random",
    "python3-netclient": "base64 hmac http secrets urllib uuid",
    "python3-shell": "shlex",
    "python3-threading": "queue threading",
    "python3-tomllib": "tomllib",
    "python3-pyyaml": "yaml",
}


def _variable(name, text=RECIPE):
    value = re.search(rf'^{re.escape(name)} = "(.*?)"', text, re.MULTILINE | re.DOTALL)
    return value[1].replace("\\\n", " ").split()


def _imports(path):
    """Return the top-level modules, and the modules of the package, that a source file imports."""
    top, own = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            top |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            top.add(node.module.split(".")[0])
            if node.module == "composeapps":
                own |= {alias.name for alias in node.names}
            elif node.module.startswith("composeapps."):
                own.add(node.module.split(".")[1])
    return top, {name for name in own if (PACKAGE / f"{name}.py").exists()}


def test_the_recipe_lists_every_file_of_the_package():
    tree = sorted(str(path.relative_to(LIB)) for path in PACKAGE.rglob("*") if path.is_file() and
                  "__pycache__" not in path.parts)
    assert sorted(_variable("COMPOSEAPPS_SOURCES")) == tree


def test_the_recipe_version_is_that_of_the_package():
    found = re.search(r'^__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert list((LAYER / "recipes-composeapps/composeapps").glob(f"composeapps_{found[1]}.bb"))


def test_the_recipe_depends_on_the_python_packages_that_the_package_imports():
    owner = {module: package for package, modules in OWNERS.items() for module in modules.split()}
    wanted = set()
    for path in PACKAGE.rglob("*.py"):
        for module in _imports(path)[0] - {"composeapps", "bb"}:
            assert module in owner, f"say in OWNERS which package of openembedded-core has {module}"
            assert module == "yaml" or module in sys.stdlib_module_names
            wanted.add(owner[module])
    assert wanted - set(_variable("RDEPENDS:${PN}")) == set()


def test_a_change_of_any_module_that_builds_a_store_rebuilds_the_apps():
    text = (LAYER / "classes-recipe/composeapp.bbclass").read_text()
    needed, waiting = set(), ["preload"]
    while waiting:
        module = waiting.pop()
        if module not in needed:
            needed.add(module)
            waiting += _imports(PACKAGE / f"{module}.py")[1]
    assert set(_variable("COMPOSEAPPS_BUILD_MODULES", text)) == needed


def test_every_user_variable_is_documented():
    text = (LAYER / "conf/composeapps-documentation.conf").read_text()
    documented = set(re.findall(r"^(\w+)\[doc\]", text, re.MULTILINE))
    assigned = set()
    for path in [*LAYER.rglob("*.bb"), *LAYER.rglob("*.bbclass")]:
        assigned |= set(re.findall(r"^(\w+) \?\??= ", path.read_text(), re.MULTILINE))
    assert {name for name in assigned if name.startswith("COMPOSEAPP")} <= documented
