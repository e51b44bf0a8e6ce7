# SPDX-License-Identifier: MIT
"""dockerd from Debian's source: as it is, or with patches; each built once and kept."""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from composeapps import durable
from fastlane import trees
from fastlane.errors import BuildError
from fastlane.progress import Progress
from moby import cache, root, series, source

# Several series are worked on in turn, and the stock one is the control of them all.
KEEP = 4
# What Debian's package is built with (debian/rules, ENGINE_BUILDTAGS).
_TAGS = "apparmor seccomp journald"
_PACKAGE = "github.com/docker/docker"
_CACHE = "/cache"
# What is tested in any case: the packages that have to do with how images are stored.
_TESTED = ("./image/...", "./layer", "./pkg/ioutils", "./reference")


@dataclass(frozen=True)
class Built:
    """What was built or tested, and whether that was now.

    Arguments:
        directory: holds dockerd and build.json.
        description: what is in build.json.
        fresh: it was not in the cache.
    """

    directory: Path
    description: dict
    fresh: bool


def patched(progress=None):
    """Return a directory with ``dockerd``, built with the layer's patches, and its ``build.json``; made when missing.

    Arguments:
        progress: a fastlane.progress.Progress, or None for silence.

    Raises BuildError when the root or the source cannot be had, a patch does not fit, or Go finds an error.
    """
    return build(series.of_the_layer(), progress).directory


def stock(progress=None):
    """Return a directory like that of ``patched``, with a dockerd without patches but by the same compiler."""
    return build(series.Series(), progress).directory


def build(chosen, progress=None):
    """Return the Built dockerd for the Series ``chosen``. Raises BuildError, as ``patched`` does."""
    progress = progress or Progress(quiet=True)
    directory = cache.place()
    compiler = root.compiler_root(progress)
    with cache.lock(directory, "source", progress):
        prepared = source.prepared(compiler, progress)
    with cache.lock(directory, "dockerd", progress):
        found = directory / f"dockerd-{_name(prepared, compiler, chosen)}"
        fresh = not found.is_dir()
        if fresh:
            count = len(chosen.patches)
            said = f"with {count} patch{'es' if count > 1 else ''}" if count else "without patches"
            with progress.step(f"compiling dockerd {prepared.upstream} {said}"):
                cache.make(directory, "dockerd", found.name.partition("-")[2],
                           lambda new: _compile(new, compiler, prepared, chosen, progress), KEEP)
        else:
            os.utime(found)
    return Built(found, json.loads((found / "build.json").read_text()), fresh)


def test(chosen, progress=None):
    """Run the Go unit tests of what the Series ``chosen`` touches, and of the stores of images.

    Returns ``[{"package": …, "result": "ok" | "FAIL", "seconds": …}]``; packages without tests are left out.
    Raises BuildError with the names of the tests that fail and their log, and as ``patched`` does.
    """
    progress = progress or Progress(quiet=True)
    directory = cache.place()
    compiler = root.compiler_root(progress)
    with cache.lock(directory, "source", progress):
        prepared = source.prepared(compiler, progress)
    log = directory / "test.log"
    with cache.lock(directory, "dockerd", progress), progress.step("running the unit tests of what is patched"):
        work = _working_copy(prepared, chosen)
        try:
            packages = sorted({*_TESTED, *(name for name in chosen.packages() if not _is_covered(name))})
            status = _go(compiler, prepared, work, ["test", "-tags", _TAGS, *packages], progress, log, work)
        finally:
            trees.remove_tree(work)
    lines = [line.split() for line in log.read_text(errors="replace").splitlines()]
    results = [
        {"package": words[1].removeprefix(f"{_PACKAGE}/"), "result": words[0], "seconds": _seconds(words[2:])}
        for words in lines if len(words) > 1 and words[0] in ("ok", "FAIL") and words[1].startswith(_PACKAGE)]
    if status:
        failed = [words[2] for words in lines if words[:2] == ["---", "FAIL:"]]
        reason = f"these fail: {', '.join(failed)}" if failed else root.last_lines(log, 3)
        raise BuildError(f"dockerd's unit tests: {reason} (log: {log})")
    if not results:
        raise BuildError(f"no unit test of dockerd was run: {root.last_lines(log, 3)} (log: {log})")
    return results


def _is_covered(package):
    return any(package == name or name.endswith("/...") and f"{package}/".startswith(name[:-3]) for name in _TESTED)


def _seconds(words):
    return float(words[0].rstrip("s")) if words and words[0].endswith("s") and words[0] != "s" else None


def _name(prepared, compiler, chosen):
    made_by = cache.key([prepared.tree.parent.name, compiler.parent.name], sys.modules[__name__], source)
    return f"{prepared.version}-{chosen.sha256[:16] if chosen.patches else 'stock'}-{made_by[:8]}"


def _working_copy(prepared, chosen):
    # Always at the same place in the root, where Go's cache knows it.
    work = cache.place() / "work"
    source.copy(prepared, work, chosen)
    return work


def _compile(new, compiler, prepared, chosen, progress):
    log = cache.place() / "compile.log"
    version = {"Version": prepared.upstream, "GitCommit": prepared.commit, "BuildTime": prepared.date,
               "PlatformName": "", "ProductName": "docker", "DefaultProductLicense": ""}
    flags = " ".join(["-s -w", *(f"-X {_PACKAGE}/dockerversion.{name}={value}" for name, value in version.items())])
    work = _working_copy(prepared, chosen)
    try:
        argv = ["build", "-v", "-tags", _TAGS, "-buildmode=pie", "-ldflags", flags, "-o", "/out/dockerd",
                "./cmd/dockerd"]
        if _go(compiler, prepared, work, argv, progress, log, new):
            wrong = [line.strip() for line in log.read_text(errors="replace").splitlines() if ".go:" in line]
            raise BuildError(f"dockerd does not compile: {(wrong or [root.last_lines(log, 2)])[0]} (log: {log})")
    finally:
        trees.remove_tree(work)
    binary = (new / "dockerd").read_bytes()
    durable.write_file(new / "build.json", json.dumps({
        "version": prepared.version,
        "patches": [{"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                    for path in chosen.patches],
        "sha256": hashlib.sha256(binary).hexdigest(),
        "size": len(binary),
    }, indent=1).encode() + b"\n")


def _go(compiler, prepared, work, argv, progress, log, out):
    """Run ``go`` in moby's source; return its exit status. ``work`` stands in for the prepared source's own code."""
    directory, temporary = cache.place() / "gocache", cache.place() / "tmp"
    directory.mkdir(parents=True, exist_ok=True)
    # Go and its tests leave files behind when they are killed; the root is to stay as it is.
    trees.remove_tree(temporary)
    temporary.mkdir(mode=0o1777)
    inside = f"{source.INSIDE}/{source.ENGINE}"
    env = {"GOPATH": f"{source.INSIDE}/_build:/usr/share/gocode", "GO111MODULE": "off", "GOPROXY": "off",
           "GOFLAGS": "-trimpath", "GOCACHE": _CACHE}
    binds = {prepared.tree: Path(source.INSIDE).parent, work: inside, directory: _CACHE, temporary: "/tmp"}
    if out != work:
        binds[out] = "/out"
    try:
        return root.run(compiler, ["go", *argv], progress, log=log, binds=binds, cwd=inside, env=env)
    finally:
        trees.remove_tree(temporary)
