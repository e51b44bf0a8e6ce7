# SPDX-License-Identifier: MIT
"""Words of others in our messages: no control characters, no secrets, not endless."""

LONGEST = 300


def clean(text, limit=LONGEST):
    """Return a text of somebody else's as one line of at most ``limit`` characters that a terminal can be given."""
    text = text[:limit + 1]
    shown = "".join(char if char.isprintable() else " " for char in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[:limit - 1] + "…"


def scrub(text, secrets):
    """Return ``text`` with each of the ``secrets`` (texts) hidden."""
    for secret in sorted((each for each in secrets if each), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
