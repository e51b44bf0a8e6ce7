# SPDX-License-Identifier: MIT
"""What gen-recipes can write recipes of: compose apps, and Python packages."""

import os
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from composeapps.app.tree import RegistrySource
from composeapps.errors import UsageError
from composeapps.registry.client import RegistryClient, given_endpoints
from recipes import appconf, pyconf, pyresolve, yamlconf
from recipes.pypi import DEFAULT_INDEX, PackageIndex
from recipes.render import app_path, package_path, render_app, render_package
from recipes.resolve import resolve


@dataclass(frozen=True)
class Entry:
    """One recipe: its ``path`` below the output directory, its ``text``, and for the report the
    ``name``, the ``file`` that it was made from, a few words of ``detail``, ``facts`` for --json."""

    name: str
    file: Path
    path: Path
    text: str
    detail: str
    facts: dict


class Apps:
    """Compose apps; their blobs' digests come from OCI registries."""

    what, a_what = "app", "an app"
    inputs = ("conf", "apps")
    pattern = "composeapp-*/composeapp-*.bb"

    def output(self, top):
        """Return the directory of the recipes, where none is named."""
        return hostsetup.BUILD / "recipes"

    def load(self, paths, named=()):
        """Return the conf of each file, and of each app that the command line names.

        Raises UsageError with a line for each complaint.
        """
        return yamlconf.load_all([*paths, *named], self._conf, "name")

    @staticmethod
    def _conf(item):
        if isinstance(item, tuple):
            return appconf.of_reference(*item)
        return appconf.load(item) if isinstance(item, Path) else appconf.of_reference(item)

    def entries(self, confs, arguments, top, say):
        """Yield (Entry, its warnings) of each conf; ``say`` is called with a line of progress."""
        if arguments.index:
            raise UsageError("--index is where Python packages come from: give it with --python")
        client = RegistryClient(endpoints=given_endpoints(arguments.endpoint))
        source = RegistrySource(client)
        try:
            for conf in confs:
                say(f"{conf.name}: asking {conf.ref.host} for {conf.ref}")
                app = resolve(conf, client, source)
                sizes = ", ".join(f"{platform} {size / 1e6:.1f} MB" for platform, size in app.sizes.items())
                yield Entry(conf.name, conf.path, app_path(conf), render_app(app, top), sizes, {
                    "uri": app.uri, "images": list(app.images), "license": app.license, "platforms": app.sizes,
                    "dangers": list(app.dangers),
                }), app.warnings
        finally:
            client.close()


class PythonPackages:
    """Python packages; source archives and metadata come from PyPI."""

    what, a_what = "Python package", "a Python package"
    inputs = ("conf", "python")
    pattern = "python3-*/python3-*.bb"

    def output(self, top):
        """Return the directory of the recipes, where none is named."""
        return top / "meta-composeapps" / "recipes-python"

    def load(self, paths, named=()):
        """Return the conf of each file. Raises UsageError with a line for each complaint."""
        if named:
            raise UsageError("--app and --target name compose apps: they do not go with --python")
        return yamlconf.load_all(paths, pyconf.load, "recipe", self.what)

    def entries(self, confs, arguments, top, say):
        """Yield (Entry, its warnings) of each conf; ``say`` is called with a line of progress."""
        if arguments.endpoint:
            raise UsageError("--endpoint is of registries of apps: name the index of Python packages with --index")
        index = PackageIndex(arguments.index or os.environ.get("PIP_INDEX_URL") or DEFAULT_INDEX)
        try:
            for conf in confs:
                say(f"{conf.name}: asking {index.url} for {conf.version}")
                package = pyresolve.resolve(conf, index, confs)
                yield Entry(conf.recipe, conf.path, package_path(conf), render_package(package, top), package.license, {
                    "package": conf.name, "version": conf.version, "sha256": package.sha256,
                    "license": package.license, "inherit": package.inherit, "rdepends": list(package.rdepends),
                }), package.warnings
        finally:
            index.close()
