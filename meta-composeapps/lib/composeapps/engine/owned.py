# SPDX-License-Identifier: MIT
"""Which containers are an app's: those whose label names the app's directory, whatever their project is called."""

from composeapps.engine.labels import ONE_OFF, PROJECT, SERVICE, WORKING_DIR, label, number
from composeapps.errors import EngineError

# So many characters of a container's last words are told.
_WORDS = 300


def listed(engine, directory):
    """Return all containers of the app in a directory, as dockerd lists them, those of ``docker compose run`` too."""
    return engine.containers(f"{WORKING_DIR}={directory}")


def containers(engine, directory, inspect=(), only=None):
    """Return {service: [container, …]} of the app in a directory, as dockerd describes each, by their numbers.

    Arguments:
        engine: the Engine, or a Look, for which the list is enough of what runs.
        directory: the app's.
        inspect: services of which a Look is not to be content with the list; None for all.
        only: services of which containers are wanted; None for all.

    Those of ``docker compose run`` are nobody's, and left out. Each has dockerd's short text on its state
    under "Said". Raises EngineError.
    """
    found = {}
    entries = [entry for entry in listed(engine, directory)
               if only is None or (entry.get("Labels") or {}).get(SERVICE) in only]
    # The list lags behind a container's own state for a moment after each change.
    for entry, container in zip(entries, engine.described_all(entries, inspect), strict=True):
        if container is not None and label(container, ONE_OFF).lower() != "true":
            found.setdefault(label(container, SERVICE), []).append({**container, "Said": entry.get("Status") or ""})
    return {service: sorted(each, key=number) for service, each in found.items()}


def projects(engine, directory):
    """Return the names of the compose projects of an app's containers, sorted."""
    labels = [container.get("Labels") or {} for container in listed(engine, directory)]
    return sorted({each[PROJECT] for each in labels if each.get(PROJECT)})


def last_words(engine, container):
    """Return "; its last words: …" for a container that said something, or of which dockerd does, else ""."""
    error = (container["State"].get("Error") or "").strip()
    return f"; its last words: {error[:_WORDS]}" if error else last_line(engine, container["Id"])


def last_line(engine, identifier):
    """Return "; its last words: …" with the last line that a container wrote, "" where there is none."""
    try:
        lines = [line.strip() for line in engine.logs(identifier, 5) if line.strip()]
    except EngineError:
        lines = []
    return f"; its last words: {lines[-1][:_WORDS]}" if lines else ""
