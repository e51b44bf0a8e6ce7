# SPDX-License-Identifier: MIT
"""The steps up to an image, each through the command that a user would run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

from composeapps import durable
from composeapps.oci.reference import parse
from demonstration.errors import DemoError


class Chain:
    """Where the demo works.

    Arguments:
        top: the repository.
        build: the directory for products.
    """

    def __init__(self, top, build):
        self.top, self.build = top, build
        self.recipes = build / "demo" / "recipes"

    def command(self, name, *arguments, endpoint=None):
        """Run a command of scripts/ and return its standard output; raises DemoError with its last words."""
        process = self.start(name, *arguments, endpoint=endpoint)
        return self.finish(process, name)

    def start(self, name, *arguments, endpoint=None):
        """Start a command of scripts/ in the background, in a process group of its own."""
        environment = dict(os.environ)
        if endpoint:
            environment["COMPOSEAPPS_ENDPOINTS"] = endpoint
        return subprocess.Popen(
            [sys.executable, str(self.top / "scripts" / name), *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment,
            start_new_session=True)

    @staticmethod
    def finish(process, name):
        """Wait for a started command and return its standard output; raises DemoError with its last words."""
        try:
            out, err = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        if process.returncode:
            words = err.strip().splitlines() or [f"exit status {process.returncode}"]
            raise DemoError(words[-1] if words[-1].startswith(name) else f"{name}: {words[-1]}")
        return out

    @contextmanager
    def in_the_background(self, name, *arguments):
        """Run a command of scripts/ while the body runs; yields a function that waits for its end.

        That function takes one that is called with each line that the command says meanwhile.
        """
        process = self.start(name, *arguments)
        try:
            yield lambda on_line: self._follow(process, name, on_line)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()

    @staticmethod
    def _follow(process, name, on_line):
        """Wait for a started command that writes little to standard output; raises DemoError with its last words."""
        last = f"exit status not 0: try scripts/{name} by itself"
        for line in process.stderr:
            last = line.strip() or last
            on_line(last)
        if process.wait():
            raise DemoError(last if last.startswith(name) else f"{name}: {last}")

    def write_app_files(self, uris):
        """Describe the apps that the user named, for gen-recipes; return the directory."""
        directory = self.build / "demo" / "apps"
        shutil.rmtree(directory, ignore_errors=True)
        durable.make_directories(directory)
        for uri in uris:
            ref = parse(uri, what="app")
            # JSON is YAML, and needs no quoting rules.
            durable.write_file(directory / f"{ref.app_name.replace('/', '-')}.yml", json.dumps({"uri": uri}).encode())
        return directory

    def generate_recipes(self, sources, endpoint):
        """Write the apps' recipes; return the apps' names."""
        arguments = ["--json", "--prune", "--output", str(self.recipes), *map(str, sources)]
        written = json.loads(self.command("gen-recipes", *arguments, endpoint=endpoint))
        return [recipe["name"] for recipe in written["recipes"]]

    def build_image(self, names, endpoint, disk=False, root=None):
        """Build the image that carries the apps; return the path of its description.

        It has partitions for ``disk``, and trusts the factory whose ``root`` (a file) is given.
        """
        arguments = ["--json", "--quiet", "--apps-dir", str(self.recipes), "--preload", " ".join(names)]
        if disk:
            # Beside the image without partitions, whose disk would go otherwise.
            arguments += ["--disk", "--set", "IMAGE_NAME=composeapps-image-disk-${MACHINE}"]
        if root:
            arguments += ["--set", f"COMPOSEAPPS_TUF_ROOT={root}", "--set",
                          "IMAGE_NAME=composeapps-image-signed-${MACHINE}"]
        return json.loads(self.command("build-image", *arguments, endpoint=endpoint))["image"]
