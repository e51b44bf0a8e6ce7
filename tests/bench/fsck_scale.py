# SPDX-License-Identifier: MIT
"""What `composeapps fsck` costs with a large store: CPU time and memory, the first time and later.

The store is synthetic but whole: every layer has files, a tar-split and its place in the chain.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import hostsetup
from bench.figures import BenchError, Figure
from composeapps.dockerstore import heal, layout

IMAGES, LAYERS, FILES = 50, 10, 20
MIB = 1024 * 1024
LIB = Path(__file__).resolve().parents[2] / "meta-composeapps" / "lib"


def make_store(root, images=IMAGES, layers=LAYERS, files=FILES, tell=lambda text: None):
    """Make a data root.

    Arguments:
        root: the directory, which is made.
        images, layers, files: how many images, layers in each, files in each of those.
        tell: called with the number of the image that was made.
    """
    root = Path(root)
    for path in layout.DIRECTORIES:
        (root / path).mkdir(parents=True, exist_ok=True)
    repositories = {}
    for image in range(images):
        parent, lower, diffs = None, "", []
        for number in range(layers):
            data = _tar(image, number, files)
            diff = hashlib.sha256(data).hexdigest()
            parent, lower = _layer(root, data, diff, parent, lower)
            diffs.append(f"sha256:{diff}")
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": [{"created_by": f"step {step} " + "x" * 200} for step in range(layers)],
        }).encode()
        identity = hashlib.sha256(config).hexdigest()
        (root / layout.CONFIGS / identity).write_bytes(config)
        name = f"hub.demo.test/scale/image{image}"
        repositories[name] = {f"{name}:1": f"sha256:{identity}"}
        tell(f"image {image + 1} of {images}")
    (root / layout.REPOSITORIES).write_text(json.dumps({"Repositories": repositories}))


def _tar(image, number, files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for each in range(files):
            info = tarfile.TarInfo(f"usr/share/part{number}/file{each}")
            content = f"{image} {number} {each}\n".encode() * 100
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _layer(root, data, diff, parent, lower):
    """Write a layer; return (its chain id, what its child's file of lower directories says)."""
    chain = layout.chain_id(parent, diff)
    cache = hashlib.sha256(f"cache {chain}".encode()).hexdigest()
    link = hashlib.sha256(f"link {chain}".encode()).hexdigest()[:26].upper()
    home, place = root / layout.LAYERS / chain, root / layout.OVERLAY / cache
    home.mkdir()
    (place / "diff").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(place / "diff", filter="fully_trusted")
    heal.rebuild_tar_split(io.BytesIO(data), f"sha256:{diff}", home / "tar-split.json.gz")
    (home / "diff").write_text(f"sha256:{diff}")
    (home / "size").write_text(str(len(data)))
    (home / "cache-id").write_text(cache)
    (place / "link").write_text(link)
    (root / layout.LINKS / link).symlink_to(f"../{cache}/diff")
    if parent:
        (home / "parent").write_text(f"sha256:{parent}")
        (place / "lower").write_text(lower)
        (place / "work").mkdir()
    return chain, f"l/{link}" + (f":{lower}" if lower else "")


def measure(root):
    """Run fsck on a data root; return (CPU seconds, peak memory in bytes, report)."""
    argv = [sys.executable, "-I", "-X", f"pycache_prefix={hostsetup.BUILD / 'pycache'}", "-c",
            f"import sys; sys.path.insert(0, {str(LIB)!r}); "
            "from composeapps.cli.main import main; raise SystemExit(main())",
            "--store", str(root / "no-store"), "fsck", "--data-root", str(root), "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        out = child.stdout.read()
        _pid, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise BenchError(f"fsck of the synthetic store ended with status {child.returncode}: {out[:500]!r}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, json.loads(out)


def fsck_scale(run):
    """Yield the Figures of fsck with 50 images and 500 layers."""
    root = Path(run.scratch) / "scale"
    with run.progress.step(f"making a store of {IMAGES} images with {LAYERS} layers each"):
        make_store(root)
    with run.progress.step("the first check"):
        first, memory, report = measure(root)
    if report["verified"] != IMAGES * LAYERS:
        raise BenchError(f"the first check read {report['verified']} layers of {IMAGES * LAYERS}")
    yield Figure("fsck, the first time: CPU", first, "s")
    later = []
    with run.progress.step("later checks"):
        for _ in range(max(run.rounds, 3)):
            cpu, peak, report = measure(root)
            if report["known"] != IMAGES * LAYERS:
                raise BenchError(f"a later check knew {report['known']} layers of {IMAGES * LAYERS}")
            later.append(cpu)
            memory = max(memory, peak)
    yield Figure("fsck, later: CPU", sorted(later)[len(later) // 2], "s", bar=0.5, samples={"later": later})
    yield Figure("fsck: peak memory", memory / MIB, "MiB", bar=40)
