# SPDX-License-Identifier: MIT
"""What the recipes list by hand agrees with the Python package that they are about."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from composeapps import sources

LAYER = Path(__file__).resolve().parents[2] / "meta-composeapps"
LIB = LAYER / "lib"
PACKAGE = LIB / "composeapps"
RECIPE = (LAYER / "recipes-composeapps/composeapps/composeapps_0.1.0.bb").read_text()

# Which of openembedded-core's python3 packages hold what the package imports
# (recipes-devtools/python/python3/python3-manifest.json).
OWNERS = {
    "python3-asyncio": "asyncio concurrent",
    "python3-compression": "bz2 gzip lzma tarfile zipfile zlib",
    "python3-core": "__future__ _thread abc argparse array ast atexit bisect binascii collections contextlib copy "
                    "dataclasses enum errno fcntl fnmatch functools gc glob grp importlib io itertools locale math "
                    "operator os pathlib platform posixpath pwd re select selectors shutil signal stat string "
                    "struct subprocess sys textwrap time traceback types typing warnings weakref",
    "python3-crypt": "hashlib",
    "python3-ctypes": "ctypes",
    "python3-datetime": "calendar datetime",
    "python3-email": "email",
    "python3-io": "_socket socket ssl tempfile",
    "python3-json": "json",
    "python3-logging": "logging",
    "python3-math": "random",
    "python3-netclient": "base64 hmac http secrets urllib uuid",
    "python3-shell": "shlex",
    "python3-threading": "queue threading",
    "python3-tomllib": "tomllib",
    "python3-pyyaml": "yaml",
    "python3-cryptography": "cryptography",
    "python3-securesystemslib": "securesystemslib",
    "python3-tuf": "tuf",
}
# What only images with signed delivery have: only these modules import it.
VERIFIERS = {"composeapps/delivery/dialects.py", "composeapps/delivery/rules.py"}


# The package's rooms, and its modules that are in none. Each may import from those in later lines alone.
ROOMS = (
    "__main__ bbfetch",
    "cli",
    "signing",
    "delivery",
    "update status",
    "switching",
    "space disk pull",
    "installed",
    "engine records dockerstore",
    "store",
    "app registry",
    "oci",
    "beneath durable keys patterns programs sizes sources tarheader threads",
    "errors",
)


def _variable(name, text=RECIPE):
    value = re.search(rf'^{re.escape(name)} = "(.*?)"', text, re.MULTILINE | re.DOTALL)
    return value[1].replace("\\\n", " ").split()


def _imports(path):
    """Return the top-level modules that a source file imports."""
    top = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            top |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            top.add(node.module.split(".")[0])
    return top


def _rooms_imported(path):
    """Return the rooms that a source file of the package imports from, also where it does so only when it runs."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "composeapps":
            # What is no module is a constant of the package.
            found |= {alias.name for alias in node.names if (PACKAGE / alias.name).is_dir()
                      or (PACKAGE / f"{alias.name}.py").is_file()}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.removeprefix("composeapps.").split(".")[0] if node.module.startswith("composeapps.")
                      else "")
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("composeapps.")}
    return found - {""}


def test_imports_go_one_way_through_the_rooms():
    level = {room: number for number, rooms in enumerate(ROOMS) for room in rooms.split()}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room != "__init__":
            assert room in level, f"say in ROOMS where '{room}' stands"
            wrong += [f"{path.relative_to(PACKAGE)} imports from {other}" for other in _rooms_imported(path) - {room}
                      if level[other] <= level[room]]
    assert not wrong, wrong


def test_the_package_knows_all_of_its_files():
    tree = sorted(str(path.relative_to(LIB)) for path in PACKAGE.rglob("*") if path.is_file() and
                  "__pycache__" not in path.parts)
    assert sources.files() == tree


def test_what_signs_for_a_factory_is_not_on_devices():
    left_out = set(sources.files()) - set(sources.device_files())
    assert {"composeapps/signing/keys.py", "composeapps/cli/target.py"} <= left_out
    assert all((PACKAGE / each).exists() for each in sources.FACTORY_SIDE)
    assert "sources.device_files()" in RECIPE
    # What stays needs none of it.
    for path in sources.device_files():
        assert "signing" not in _rooms_imported(LIB / path), path


def test_without_that_room_the_commands_are_not_there(tmp_path):
    for name in sources.device_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(LIB / name)
    # The links are not followed for the package's own place.
    code = "from composeapps.cli import main; print(*main.COMMANDS)"
    told = subprocess.run([sys.executable, "-B", "-c", code], env={"PYTHONPATH": str(tmp_path)}, text=True, check=True,
                          capture_output=True).stdout.split()
    assert "pull" in told and "target" not in told
    told = subprocess.run([sys.executable, "-B", "-c", code], env={"PYTHONPATH": str(LIB)}, text=True, check=True,
                          capture_output=True).stdout.split()
    assert "target" in told


def test_the_recipe_version_is_that_of_the_package():
    found = re.search(r'^__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert list((LAYER / "recipes-composeapps/composeapps").glob(f"composeapps_{found[1]}.bb"))


def test_the_recipe_depends_on_the_python_packages_that_the_package_imports():
    owner = {module: package for package, modules in OWNERS.items() for module in modules.split()}
    wanted, verifying = set(), set()
    for name in sources.device_files():
        for module in _imports(LIB / name) - {"composeapps", "bb"}:
            assert module in owner, f"say in OWNERS which package of openembedded-core has {module}"
            if name in VERIFIERS and module not in sys.stdlib_module_names:
                verifying.add(owner[module])
                continue
            assert module == "yaml" or module in sys.stdlib_module_names, name
            wanted.add(owner[module])
    assert wanted - set(_variable("RDEPENDS:${PN}")) == set()
    assert verifying | {"${PN}"} == set(_variable("RDEPENDS:${PN}-delivery"))


def test_all_modules_that_building_a_store_imports_are_found():
    """Python itself says what it has loaded, and what is imported only when it is used is found as well."""
    code = "import sys, composeapps.store.preload\nfor name, module in sys.modules.items():\n" \
           "    if name.startswith('composeapps'): print(module.__file__)"
    loaded = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(LIB)}, text=True, check=True,
                            capture_output=True).stdout.split()
    needed = sources.needed_by("store.preload")
    assert set(loaded) <= set(needed) < {str(path) for path in PACKAGE.rglob("*.py")}
    assert str(PACKAGE / "app/compose.py") in needed


def test_every_user_variable_is_documented():
    text = (LAYER / "conf/composeapps-documentation.conf").read_text()
    documented = set(re.findall(r"^(\w+)\[doc\]", text, re.MULTILINE))
    assigned = set()
    for path in [*LAYER.rglob("*.bb"), *LAYER.rglob("*.bbclass")]:
        assigned |= set(re.findall(r"^(\w+) \?\??= ", path.read_text(), re.MULTILINE))
    assert {name for name in assigned if name.startswith("COMPOSEAPP")} <= documented
