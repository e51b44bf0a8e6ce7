# SPDX-License-Identifier: MIT
"""Asking docker compose what it makes of a compose file, to compare that with what was published of it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from composeapps.app.compose import CONFIG_HASH
from composeapps.errors import UsageError

# The plugin also works as a program of its own; distributions put it in different places.
PLUGINS = ("/usr/libexec/docker/cli-plugins/docker-compose", "/usr/lib/docker/cli-plugins/docker-compose",
           "/usr/local/lib/docker/cli-plugins/docker-compose")
# Seconds; it asks nobody for anything.
_TIME = 60


class InvalidError(UsageError):
    """docker compose itself does not take a compose file."""


class DifferentError(UsageError):
    """docker compose makes something else of a pinned file than of what it was made of."""


def find(*more):
    """Return the program that is docker compose (text), None when there is none.

    Arguments:
        more: paths to look at besides those where distributions put it.
    """
    found = shutil.which("docker-compose")
    return found or next((str(path) for path in (*more, *PLUGINS) if Path(path).exists()), None)


def find_for_publishing():
    """Return the docker compose of this user, None when there is none that can be asked."""
    program = find(os.path.expanduser("~/.docker/cli-plugins/docker-compose"))
    if program is None:
        return None
    status, out, _ = _run([program, "version", "--short"])
    # The first one, which was another program, has another way to be asked.
    return None if status or out.strip().startswith("1.") else program


def config(program, app_dir, files, has_environment=True, named=True):
    """Return what docker compose makes of compose files (a mapping), every profile included.

    Arguments:
        program: docker compose's path.
        app_dir: the project's directory.
        files: the compose files (Paths).
        has_environment: fill in variables from the directory's .env.
        named: the files give the project its name.

    Raises InvalidError with docker compose's own words when it refuses them, UsageError when it does not answer.
    """
    argv = [program, "--project-directory", str(app_dir), "--profile", "*"]
    argv += [] if named else ["--project-name", "app"]
    argv += [] if has_environment else ["--env-file", os.devnull]
    for path in files:
        argv += ["--file", str(path)]
    status, out, err = _run([*argv, "config", "--format", "json"])
    if status:
        words = [line.strip() for line in err.splitlines() if line.strip() and "level=warning" not in line]
        raise InvalidError(f"docker compose refuses {files[0]}: {'; '.join(words[-3:]) or f'exit status {status}'}: "
                           "correct it, or publish with --unchecked what a newer docker compose takes")
    try:
        value = json.loads(out)
        if isinstance(value, dict):
            return value
    except (ValueError, RecursionError):
        pass
    raise UsageError(f"docker compose answers something that is no JSON about {files[0]}")


def _run(argv):
    # What the caller has set is nothing that a device has.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", check=False, timeout=_TIME)
    except subprocess.TimeoutExpired:
        raise UsageError(f"{argv[0]} does not end: publish with --unchecked") from None
    except OSError as err:
        raise UsageError(f"{argv[0]} cannot be run: {err.strerror}: publish with --unchecked") from None
    return done.returncode, done.stdout, done.stderr


def difference(source, pinned, images):
    """Compare what docker compose makes of a source and of the pinned file; return a sentence, None when equal.

    Arguments:
        source, pinned: what ``config`` returned.
        images: {service: its pinned image}.
    """
    wrong = next((name for name, service in (pinned.get("services") or {}).items()
                  if service.get("image") != images.get(name)), None)
    if wrong is not None:
        return f"the pinned service '{wrong}' has not the image {images.get(wrong)}"
    found = _difference(_comparable(source), _comparable(pinned), "")
    if found is None:
        return None
    place, before, after = found
    return f"docker compose makes {before} of {place} in the compose file, and {after} in the pinned one"


def _comparable(value):
    """Return a project without what pinning changes."""
    services = {}
    for name, service in (value.get("services") or {}).items():
        services[name] = {key: entry for key, entry in service.items() if key not in ("build", "develop", "image")}
        labels = {key: entry for key, entry in (service.get("labels") or {}).items() if key != CONFIG_HASH}
        services[name]["labels"] = labels
    return {**value, "services": services}


def _difference(before, after, place):
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            found = _difference(before.get(key), after.get(key), f"{place}.{key}" if place else key)
            if found:
                return found
        return None
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return next((found for number, pair in enumerate(zip(before, after, strict=True))
                     if (found := _difference(*pair, f"{place}[{number}]"))), None)
    same = before == after and type(before) is type(after)
    return None if same else (place, _shown(before), _shown(after))


def _shown(value):
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:100] + "…"
