# SPDX-License-Identifier: MIT
"""Merging compose files, and services with those that they extend, by docker compose's rules.

Mappings are merged key by key, lists joined, all else replaced, but for the places below. Values are not
interpolated, so two entries of a list that only their variables make the same both stay.
"""

from composeapps.app.filerefs import bind_source
from composeapps.app.yamltext import RESET, Tagged
from composeapps.errors import UsageError

# Places in a service, with what is done there when both sides have something.
_REPLACED = {("command",), ("entrypoint",), ("healthcheck", "test")}
_KEY_VALUE = {("annotations",), ("labels",), ("environment",), ("sysctls",), ("extra_hosts",), ("deploy", "labels")}
_LISTS = {("dns",), ("dns_opt",), ("dns_search",), ("env_file",), ("label_file",), ("tmpfs",)}
# Networks, and services that are depended on, may be a list of names or a mapping.
_NAMES = {("networks",): None, ("depends_on",): {"condition": "service_started", "required": True}}


def merge(base, other, what):
    """Return two parsed compose files as one, in which ``other`` goes before ``base``; both are used up.

    Raises UsageError naming the place that cannot be merged.
    """
    return _mappings(base, other, (), what)


def merge_service(base, other, name, what):
    """Return a service with what it takes over from ``base``, the one that it extends; both are used up."""
    return _mappings(base, other, ("services", name), what)


def settle(value):
    """Return a value without docker compose's own tags: a reset one is gone, an overriding one stands."""
    if isinstance(value, Tagged):
        return None if value.tag == RESET else settle(value.value)
    if isinstance(value, dict):
        return {key: settle(entry) for key, entry in value.items() if not _is_reset(entry)}
    if isinstance(value, list):
        return [settle(entry) for entry in value if not _is_reset(entry)]
    return value


def _is_reset(value):
    return isinstance(value, Tagged) and value.tag == RESET


def _mappings(base, other, path, what):
    result = dict(base)
    for key, entry in other.items():
        if key not in result or isinstance(entry, Tagged):
            # Kept with its tag, which counts for the next that is merged as well.
            result[key] = entry
        else:
            result[key] = _merge(result[key], entry, (*path, key), what)
    return result


def _merge(base, other, path, what):
    if isinstance(base, Tagged):
        if base.tag == RESET:
            return other
        base = base.value
    service = path[2:] if path[:1] == ("services",) else None
    if service in _REPLACED or base is None or path[-1].startswith("x-") and other is not None:
        return other
    if other is None:
        return base
    if service in _NAMES and (isinstance(base, list) or isinstance(other, list)):
        base, other = (_named(side, _NAMES[service], path, what) for side in (base, other))
    if service in _KEY_VALUE or (path[0] in ("networks", "volumes") and path[2:] == ("labels",)):
        return _key_values(base, other, path, what)
    if service in _LISTS:
        base, other = ([side] if isinstance(side, (str, dict)) else side for side in (base, other))
    if service == ("logging",) and isinstance(base, dict) and isinstance(other, dict) and (
            base.get("driver", other.get("driver")) != other.get("driver", base.get("driver"))):
        return other
    if service and service[:1] == ("ulimits",) and len(service) == 2 and not (
            isinstance(base, dict) and isinstance(other, dict)):
        return other
    if path[0] == "networks" and path[2:] == ("ipam", "config") and base and other:
        raise UsageError(f"{what}: {_show(path)} is given twice, which is not merged here: give it in one place")
    if isinstance(base, dict) and isinstance(other, dict):
        return _mappings(base, other, path, what)
    if isinstance(base, list) and isinstance(other, list):
        return _unique([*base, *other], service)
    if isinstance(base, (dict, list)) or isinstance(other, (dict, list)):
        raise UsageError(f"{what}: {_show(path)} is given twice, in forms that do not go together")
    return other


def _named(value, entry, path, what):
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{what}: {_show(path)} is neither a mapping nor a list of names")
    return {name: dict(entry) if entry else None for name in value}


def _key_values(base, other, path, what):
    """Merge what may be a mapping or a list of KEY=VALUE; a list with anything."""
    if isinstance(base, dict) and isinstance(other, dict) and path[2:] != ("extra_hosts",):
        return {**base, **other}
    lists = []
    for side in (base, other):
        if isinstance(side, dict):
            if any(isinstance(entry, (dict, list)) for entry in side.values()):
                raise UsageError(f"{what}: {_show(path)} is given twice, in forms that do not go together")
            # docker compose fills in variables in a list's keys, in a mapping's it does not.
            side = [_pair(key.replace("$", "$$"), entry) for key, entry in side.items()]
        elif isinstance(side, str):
            side = [side]
        elif not isinstance(side, list):
            raise UsageError(f"{what}: {_show(path)} is neither a mapping nor a list")
        lists += side
    return _unique(lists, path[2:] if path[0] == "services" else ("labels",))


def _pair(key, value):
    return key if value is None else f"{key}={scalar_text(value)}"


def scalar_text(value):
    """Return how docker compose writes a scalar where it takes one for a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    return str(value)


def _float_text(value):
    """Return a float as Go prints it: the fewest digits, with an exponent from a million on."""
    sign = "-" if str(value).startswith("-") else ""
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, rest = mantissa.partition(".")
    digits = (whole + rest).lstrip("0")
    exponent = int(power or 0) + len(whole) - 1 - (len(whole + rest) - len(digits)) if digits else 0
    digits = digits.rstrip("0") or "0"
    if -5 < exponent < 6:
        if exponent < 0:
            return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
        digits = digits.ljust(exponent + 1, "0")
        return sign + digits[:exponent + 1] + (f".{digits[exponent + 1:]}" if digits[exponent + 1:] else "")
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"


def _unique(entries, service):
    """Return a list in which a later entry takes the place of an earlier one with the same key."""
    key_of = _KEYS.get(service)
    if service in _KEY_VALUE:
        # A host may have several addresses.
        key_of = _itself if service == ("extra_hosts",) else _name
    if key_of is None:
        return entries
    found = {}
    for number, entry in enumerate(entries):
        key = key_of(entry)
        found[(number,) if key is None else key] = entry
    return list(found.values())


def _name(entry):
    return entry.partition("=")[0] if isinstance(entry, str) else None


def _itself(entry):
    return entry if isinstance(entry, str) else None


def _target(entry):
    """Return where a volume is mounted, None when only docker compose knows."""
    if isinstance(entry, dict):
        target = entry.get("target")
    else:
        entry = str(entry)
        source = bind_source(entry) or entry.partition(":")[0]
        # A single letter is taken for a drive of Windows.
        rest = entry[len(source) + 1:] if len(source) > 1 else "$"
        target = rest.partition(":")[0] if rest else source
    return None if not isinstance(target, str) or "$" in target else target


def _port(entry):
    if not isinstance(entry, dict):
        return str(entry)
    parts = [entry.get("host_ip", "0.0.0.0"), entry.get("published"), entry.get("target"), entry.get("protocol", "tcp")]
    return None if any("$" in str(part) for part in parts) else tuple(map(repr, parts))


def _path(entry):
    return entry.get("path") if isinstance(entry, dict) else _itself(entry)


def _mounted(entry):
    """Return where a config or a secret is put, as far as it is the same for a short and a long entry."""
    if isinstance(entry, dict):
        return str(entry.get("target") or entry.get("source"))
    return _itself(entry)


_KEYS = {
    ("cap_add",): _itself, ("cap_drop",): _itself, ("dns",): _itself, ("dns_opt",): _itself, ("dns_search",): _itself,
    ("env_file",): _path, ("expose",): lambda entry: str(entry), ("links",): _itself, ("ports",): _port,
    ("profiles",): _itself, ("tmpfs",): _itself, ("volumes",): _target, ("configs",): _mounted,
    ("secrets",): _mounted,
}


def _show(path):
    return ".".join(str(part) for part in path)
