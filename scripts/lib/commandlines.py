# SPDX-License-Identifier: MIT
"""The commands of scripts/, and where the parser of each is."""

import importlib

# Command -> the module whose make_parser returns its Parser; some of them lie in tests/. Not here is composeapps, the
# agent's own command, which composeapps.cli.main knows.
SCRIPTS = {
    "bench": "bench.command",
    "build-dockerd": "moby.command",
    "build-image": "fastlane.command",
    "check-layer": "layercheck.command",
    "compare-compose": "comparecompose",
    "crash-test": "crash.command",
    "demo": "demonstration.command",
    "docs": "reference.command",
    "factory": "gate.command",
    "first-hour": "firsthour.command",
    "flash": "flashing.command",
    "fuzz": "fuzz.command",
    "gen-recipes": "recipes.command",
    "kill-test": "kills.command",
    "provision": "provisioning.command",
    "registry": "hub.command",
    "run-pages": "pagerun.command",
    "run-qemu": "emulator.cli",
    "sbom": "sbom.command",
    "test": "suite",
    "tuf-conformance": "conformance.command",
}


def parser(name):
    """Return the Parser of a command of scripts/."""
    return importlib.import_module(SCRIPTS[name]).make_parser()
