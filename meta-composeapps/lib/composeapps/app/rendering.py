# SPDX-License-Identifier: MIT
"""Docker Apps' parameters: filling them into the texts of a compose file, and leaving out what is not enabled."""

import re

from composeapps.errors import UsageError

# An escaped dollar, ${name}, ${name:-default} and the like, or $name. Names have dots; a default ends where
# another variable begins, so that no text takes longer than its length.
_VARIABLE = re.compile(
    r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_.]*)(:?[-?+](?:[^}$]|\$(?!\{))*)?\}|([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*))")
# Parameters are not nested deeper: what a name without braces may be is tried up to so many words.
_DEEPEST = 128
ENABLED = "x-enabled"
# What of a service may name another one that it cannot do without.
_NEEDS = ("network_mode", "ipc", "pid")


def flat(value, prefix=""):
    """Yield (dotted name, value) of nested parameters; the entries of a list are numbered."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(entry, (dict, list)):
            yield from flat(entry, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", entry


def used(value):
    """Return the names of the variables in the texts of a parsed compose file."""
    names = set()

    def note(text, _in_list):
        for escaped, braced, _rest, bare in _VARIABLE.findall(text):
            if braced:
                names.add(braced)
            elif not escaped:
                # How far such a name goes depends on what there is.
                words = bare.split(".")
                names.update(".".join(words[:count]) for count in range(1, min(len(words), _DEEPEST) + 1))
        return text

    _each_text(value, note)
    return names


def fill(value, values, strict):
    """Return (a compose file with its parameters filled in, the names of those without a value).

    Arguments:
        value: the compose file, parsed.
        values: {dotted name: value}.
        strict: a variable without a default is a parameter; otherwise it stays for the device.
    """
    missing = set()

    def replacement(found):
        escaped, braced, rest, bare = found.groups()
        if escaped:
            return found[0]
        name, after = (braced, "") if braced else _longest(bare, values)
        if name in values:
            return _text(values[name]) + after
        if rest and rest.lstrip(":").startswith("-") and "." in name:
            return rest.lstrip(":")[1:].replace("$", "$$")
        if strict and not rest:
            missing.add(name)
        return found[0]

    def one(text, in_list):
        whole = _VARIABLE.fullmatch(text)
        given = values.get(whole[2] or whole[4]) if whole else None
        if isinstance(given, int) and not isinstance(given, bool) and not in_list:
            # A number stays one where it is all there is; the lists of compose files are of texts.
            return given
        return _VARIABLE.sub(replacement, text)

    return _each_text(value, one), missing


def _longest(name, values):
    """Split a name without braces into the longest one that is a parameter, else its first word, and what follows."""
    words = name.split(".")
    for count in range(min(len(words), _DEEPEST), 0, -1):
        head = ".".join(words[:count])
        if head in values or count == 1:
            return head, name[len(head):]
    return name, ""


def _each_text(value, change, in_list=False):
    if isinstance(value, dict):
        return {key: _each_text(entry, change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_each_text(entry, change, in_list=True) for entry in value]
    return change(value, in_list) if isinstance(value, str) and "$" in value else value


def _text(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # docker compose reads the result, and would take a dollar for a variable.
    return str(value).replace("$", "$$")


def enabled(value, what):
    """Return a compose file without the services that ``x-enabled`` switches off.

    Nothing waits for these any more. Raises UsageError for an ``x-enabled`` that is neither true nor false, a service
    that cannot do without one that is off, and when none is left.
    """
    services = value["services"]
    on = {name: _is_true(service.get(ENABLED, True), f"{what}: {ENABLED} of service '{name}'")
          for name, service in services.items()}
    if not any(on.values()):
        raise UsageError(f"{what}: {ENABLED} switches all of the services off")
    off = {name for name, is_on in on.items() if not is_on}
    left = {}
    for name, service in services.items():
        if name in off:
            continue
        for needed in _needed(service) & off:
            raise UsageError(f"{what}: service '{name}' cannot do without '{needed}', which {ENABLED} switches off: "
                             "give the parameter another value with --set NAME=VALUE")
        left[name] = {key: _without(entry, off) if key == "depends_on" else entry
                      for key, entry in service.items() if key != ENABLED}
        if left[name].get("depends_on", True) in ({}, []):
            del left[name]["depends_on"]
    return {**value, "services": left}


def _is_true(value, what):
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, int)):
        text, off = str(value).strip().lower(), False
        while text.startswith("!"):
            text, off = text[1:].strip(), not off
        if text in ("1", "true"):
            return not off
        if text in ("", "0", "false"):
            return off
    raise UsageError(f"{what} is {value!a}, neither true nor false")


def _without(entry, off):
    if isinstance(entry, dict):
        return {name: condition for name, condition in entry.items() if name not in off}
    return [name for name in entry if name not in off] if isinstance(entry, list) else entry


def _needed(service):
    """Return the names of the services whose containers a service uses."""
    names = {str(service.get(key)).partition("service:")[2] for key in _NEEDS if
             str(service.get(key)).startswith("service:")}
    for key in ("links", "volumes_from"):
        entries = service.get(key)
        names |= {str(entry).partition(":")[0] for entry in entries} if isinstance(entries, list) else set()
    return names
