# SPDX-License-Identifier: MIT
"""Publish the demo apps: make their images, push them, publish each app of conf/demo."""

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from composeapps.app.publish import publish
from composeapps.oci.reference import parse
from composeapps.registry.client import RegistryClient, parse_endpoints
from factory.debpackages import PackageSource
from factory.demoimages import ARCHITECTURES, IMAGES, RELEASE_IMAGES, SUITE
from factory.imagebuild import build_images
from factory.localregistry import DEMO_HOST, LocalRegistry
from factory.push import push_layout
from hub.kept import KeptRegistry

FACTORY = f"{DEMO_HOST}/demo"
TAG = "latest"


@dataclass(frozen=True)
class DemoApp:
    """A published demo app: its name and its pinned reference."""

    name: str
    uri: str


@contextmanager
def demo_registry(build, keep=False):
    """Have the registry of this machine run for the demo; gives its endpoint, ``host=url``.

    :param build: the directory for products, where what it holds is kept
    :param keep: whether it lasts, as with scripts/registry up; else one that is not up already ends with the block
        and with this process, however that ends
    :raises RegistryError: it does not start
    """
    kept = KeptRegistry(build)
    if keep or kept.state().pid:
        yield kept.up().endpoint
        return
    # A second process on the same files does no harm, should it come up meanwhile: they are content-addressed.
    with LocalRegistry(kept.storage, log=Path(build) / "demo" / "registry.log") as registry:
        yield registry.endpoint


def publish_demo(endpoint, top, build, refresh=False, progress=lambda text: None):
    """Make the demo images and publish the demo apps; what is there already costs nothing.

    :param endpoint: ``host=url`` of the registry, ``LocalRegistry.endpoint``
    :param top: the repository, whose conf/demo has a directory for each app
    :param build: the directory for products; images are kept in its cache/
    :param refresh: look for newer Debian packages
    :param progress: called with a line of text when a step begins
    :returns: DemoApps, in the order of their names
    :raises ComposeAppsError: packages or the registry cannot be reached, or an app is bad
    """
    with _pushed(IMAGES, endpoint, build, refresh, progress) as client:
        published = []
        for directory in sorted(path for path in (Path(top) / "conf" / "demo").iterdir() if path.is_dir()):
            target = parse(f"{FACTORY}/{directory.name}:{TAG}")
            progress(f"publishing app {target}")
            published.append(DemoApp(directory.name, str(publish(directory, target, client).ref)))
        return published


def publish_releases(endpoint, top, build, app, refresh=False, progress=lambda text: None):
    """Publish the later releases of a demo app: its directory with the files of conf/releases/APP-N laid over it.

    :param app: the app's name
    :returns: DemoApps, in the order of their numbers; the other arguments and errors are those of ``publish_demo``
    """
    top = Path(top)
    with _pushed(RELEASE_IMAGES, endpoint, build, refresh, progress) as client:
        published = []
        for changes in sorted((top / "conf" / "releases").glob(f"{app}-*")):
            number = changes.name.rpartition("-")[2]
            target = parse(f"{FACTORY}/{app}:{number}")
            progress(f"publishing app {target}")
            with tempfile.TemporaryDirectory(dir=build, prefix=f"{changes.name}-") as directory:
                for layer in (top / "conf" / "demo" / app, changes):
                    shutil.copytree(layer, directory, dirs_exist_ok=True)
                published.append(DemoApp(changes.name, str(publish(directory, target, client).ref)))
        return published


@contextmanager
def _pushed(images, endpoint, build, refresh, progress):
    """Make images and push them; gives the RegistryClient."""
    cache = Path(build) / "cache"
    source = PackageSource(cache / "apt" / SUITE, SUITE, ARCHITECTURES)
    layouts = build_images(images, source, cache / "images", refresh, progress)
    client = RegistryClient(endpoints=parse_endpoints(endpoint))
    try:
        for name, layout in sorted(layouts.items()):
            ref = parse(f"{FACTORY}/{name}:{TAG}")
            progress(f"pushing image {ref}")
            push_layout(client, ref, layout)
        yield client
    finally:
        client.close()
