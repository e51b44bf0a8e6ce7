# SPDX-License-Identifier: MIT
"""Restorable compose apps: publish, fetch, store, preload, check and run.

One package for three places. BitBake imports it through ``addpylib``, so every
module that is imported here or by a class is stdlib-only; the host and the
device install the same files. Modules with heavier needs (PyYAML) import them
where they are used.
"""

__version__ = "0.1.0"

# The compose file's name in an app's directory, in its bundle and in the store.
COMPOSE_FILE = "docker-compose.yml"

# Modules that BitBake imports when it parses the layer's configuration.
BBIMPORTS = ["bbfetch"]
