# SPDX-License-Identifier: MIT
"""A gate for vulnerabilities, by the report of grype (``grype sbom:FILE -o json``).

Of that report this reads "matches", each with "vulnerability" {"id", "severity", "fix" {"state"}} and "artifact"
{"name", "version"}.
"""

import json
from pathlib import Path

from composeapps.errors import CorruptError, UsageError

SEVERITIES = ("negligible", "low", "medium", "high", "critical")


def problems(path, least, allowed=(), fixed_only=False):
    """Return the matches of a report that keep a release back, as [(id, severity, package, version)], the worst first.

    Arguments:
        path: the report.
        least: the severity, of SEVERITIES, from which on a match counts. One that is not known counts always.
        allowed: identifiers that do not count.
        fixed_only: count only those for which there is a fixed version.

    Raises UsageError, CorruptError for what is no report: it is never taken for one that found nothing.
    """
    try:
        matches = json.loads(Path(path).read_bytes())["matches"]
        if not isinstance(matches, list):
            raise TypeError
        found = {_match(each) for each in matches}
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptError(f"{path} is no report of grype: make it by 'grype sbom:FILE -o json'") from None
    counts = [each[:4] for each in found if each[0] not in allowed and _rank(each[1]) >= _rank(least)
              and (each[4] or not fixed_only)]
    return sorted(counts, key=lambda each: (-_rank(each[1]), each))


def _match(value):
    vulnerability, artifact = value["vulnerability"], value["artifact"]
    state = (vulnerability.get("fix") or {}).get("state", "")
    texts = (vulnerability["id"], vulnerability.get("severity") or "unknown", artifact["name"], artifact["version"])
    return (*map(str, texts), state == "fixed")


def _rank(severity):
    text = severity.lower()
    return SEVERITIES.index(text) if text in SEVERITIES else len(SEVERITIES)


def allowed(path):
    """Return the identifiers of a file, one a line, # before comments. Raises UsageError."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"{path} cannot be read: {getattr(err, 'strerror', None) or 'it is not UTF-8'}") from None
    return {line.partition("#")[0].strip() for line in lines} - {""}
