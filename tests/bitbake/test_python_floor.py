# SPDX-License-Identifier: MIT
"""What BitBake imports runs on the oldest Python that BitBake runs on, and needs nothing but that Python."""

import ast
import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from composeapps import sources
from support.apps import compose_text, make_app, push_app
from support.images import make_image, push_image, sha256

LAYER = Path(__file__).resolve().parents[2] / "meta-composeapps"
# BitBake 2.18's own floor.
FLOOR = "3.9"
ENTRIES = ("bbfetch", "store.preload", "sources")
_FUNCTION = re.compile(
    r"^(?:def .*?\(d\):|(?:fakeroot )?python(?: [\w:${}-]+)? ?\(\) ?\{)\n(?:[ \t]+.*\n|\n)+", re.MULTILINE)


def _imported():
    """Return the package's files that BitBake imports."""
    return sorted({path for entry in ENTRIES for path in sources.needed_by(entry)})


def _vermin(*paths):
    """Return vermin's status and output for files or directories."""
    program = Path(sys.executable).with_name("vermin")
    done = subprocess.run(
        [sys.executable, program, "--no-config-file", "--no-tips", "--eval-annotations", "--violations",
         f"--target={FLOOR}-", *map(str, paths)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _unions(path):
    """Yield the lines with an annotation ``X | Y`` that Python evaluates, which needs 3.10."""
    tree = ast.parse(Path(path).read_text())
    if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        return
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if annotation is not None and any(isinstance(part, ast.BinOp) for part in ast.walk(annotation)):
                yield f"{path}:{node.lineno}"


def _functions_of(path):
    """Return the Python functions of a recipe or class as the text of a module."""
    found = []
    for match in _FUNCTION.finditer(path.read_text()):
        head, body = match[0].split("\n", 1)
        found.append(f"{head if head.startswith('def') else f'def f{len(found)}(d):'}\n{body}")
    return "\n".join(found)


def test_what_bitbake_imports_keeps_to_the_floor():
    status, said = _vermin(*_imported())
    assert status == 0, said
    assert [line for path in _imported() for line in _unions(path)] == [], "from __future__ import annotations"


def test_the_python_of_recipes_and_classes_keeps_to_the_floor(tmp_path):
    count = 0
    for path in [*LAYER.rglob("*.bbclass"), *LAYER.rglob("*.bb"), *LAYER.rglob("*.bbappend")]:
        if text := _functions_of(path):
            count += 1
            (tmp_path / f"{path.name.replace('.', '_')}.py").write_text(text)
    assert count >= 4
    status, said = _vermin(tmp_path)
    assert status == 0, said


@pytest.mark.parametrize("text", [
    "import hashlib\nhashlib.file_digest(None, 'sha256')\n",
    "match 1:\n    case 1:\n        pass\n",
    "import tomllib\n",
    "zip((), (), strict=True)\n",
])
def test_what_is_younger_is_seen(tmp_path, text):
    (tmp_path / "young.py").write_text(text)
    status, said = _vermin(tmp_path / "young.py")
    assert status == 1 and "young.py" in said and re.search(r"require.* 3\.1[0-9]", said), said


@pytest.mark.parametrize("text", ["class A:\n    a: int | None = None\n", "def f() -> int | None: ...\n",
                                  "def f(a: list[int | str]): ...\n"])
def test_a_union_that_is_evaluated_is_seen(tmp_path, text):
    path = tmp_path / "young.py"
    path.write_text(text)
    assert len(list(_unions(path))) == 1
    path.write_text("from __future__ import annotations\n" + text)
    assert list(_unions(path)) == []


@functools.cache
def _oldest():
    """Return the path of a Python of the floor's version, None where there is none."""
    for path in (shutil.which(f"python{FLOOR}"), *Path.home().glob(f".pyenv/versions/{FLOOR}.*/bin/python3")):
        # pyenv puts programs on PATH that only say that they are not chosen.
        if path and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
            return str(path)
    return None


# BitBake's own library and the fetcher of this layer: fetch each URL, unpack all, build the store of the app.
_BUILD = """
import os, sys, types
for name in ("hashserv", "hashserv.client", "prserv"):
    sys.modules[name] = types.ModuleType(name)
import bb.data, bb.fetch2
import composeapps.bbfetch, composeapps.sources, composeapps.store.preload as preload
place, endpoint, uri, image, *urls = sys.argv[1:]
os.mkdir(place + "/downloads")
d = bb.data.init()
for key, value in {"DL_DIR": place + "/downloads", "OCI_ENDPOINTS": endpoint, "PATH": "/usr/bin:/bin", "HOME": place,
                   "PERSISTENT_DIR": place}.items():
    d.setVar(key, value)
fetch = bb.fetch2.Fetch(urls, d)
fetch.download()
fetch.unpack(place)
preload.build_store(place + "/store", uri, [image], "linux/amd64")
preload.merge_store([place + "/store"], place + "/merged", place + "/factory.json")
assert composeapps.sources.needed_by("store.preload")
assert "yaml" not in sys.modules
print("%d.%d" % sys.version_info[:2], composeapps.store.store.Store(place + "/merged").list_apps()[0])
"""


@pytest.mark.skipif(not _oldest(), reason=f"no Python {FLOOR} here (python{FLOOR} on PATH, or pyenv's)")
def test_that_python_fetches_an_app_and_builds_its_store(tmp_path, registry, factory_name):
    import bb

    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "bb").symlink_to(Path(bb.__file__).parent)
    repository = f"{registry.host}/{factory_name}"
    image = push_image(registry, f"{repository}/web:1", make_image())
    app = make_app(compose_text({"web": image}), {"site.conf": "listen 80\n"})
    uri = push_app(registry, f"{repository}/shop:1", app)
    urls = [f"oci://{name};digest={digest}{more}" for name, _, digest, more in (
        (*uri.partition("@"), ";platform=linux/amd64"), (*image.partition("@"), ";platform=linux/amd64"),
        (f"{repository}/shop", "@", sha256(app.bundle_index), ";type=blob"))]
    done = subprocess.run(
        [_oldest(), "-c", _BUILD, str(tmp_path), registry.endpoint, uri, image, *urls],
        env={"PYTHONPATH": f"{libraries}:{LAYER / 'lib'}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [FLOOR, uri]
