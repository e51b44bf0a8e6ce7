# SPDX-License-Identifier: MIT
"""A JSON schema as rows of a table."""

import json
from pathlib import Path
from typing import NamedTuple


class Field(NamedTuple):
    """A member of the document: the ``path`` to it, its ``type`` in words, its ``text``, and [(value, text)]."""

    path: str
    type: str
    text: str
    values: list


def fields(path):
    """Return the Fields of the document that a schema file describes, outer ones before what is in them."""
    schema = json.loads(Path(path).read_text())
    return list(_members(schema, schema, ""))


def _members(schema, value, place):
    for name, member in value.get("properties", {}).items():
        text = member.get("description", "")
        member = _resolved(schema, member)
        where = f"{place}{name}"
        others = [each for each in member.get("oneOf", ()) if each.get("type") != "null"]
        inner = _resolved(schema, others[0]) if others else member
        constants = [each for each in member.get("oneOf", ()) if "const" in each]
        yield Field(where, _type(schema, member), text or member.get("description", ""),
                    [(each["const"], each.get("description", "")) for each in constants])
        if inner.get("type") == "array":
            yield from _members(schema, _resolved(schema, inner["items"]), f"{where}[].")
        else:
            yield from _members(schema, inner, f"{where}.")


def _resolved(schema, value):
    if "$ref" in value:
        return {**schema["$defs"][value["$ref"].rpartition("/")[2]],
                **{key: each for key, each in value.items() if key != "$ref"}}
    return value


def _type(schema, value):
    value = _resolved(schema, value)
    if "oneOf" in value:
        kinds = [_type(schema, each) for each in value["oneOf"]]
        return " or ".join(dict.fromkeys(sorted(kinds, key=lambda kind: kind == "null")))
    if "const" in value:
        return "text" if isinstance(value["const"], str) else str(value["const"])
    if "enum" in value:
        return ", ".join(f'"{each}"' for each in value["enum"])
    kind = value.get("type", "")
    if isinstance(kind, list):
        return " or ".join(_WORDS.get(each, each) for each in kind)
    if kind == "array":
        return f"list of {_PLURALS[_resolved(schema, value['items']).get('type')]}"
    if kind == "integer" and "maximum" in value:
        return f"number, {value['minimum']} to {value['maximum']}"
    return _WORDS.get(kind, kind)


_WORDS = {"string": "text", "integer": "number", "boolean": "true or false", "object": "object", "null": "null"}
_PLURALS = {"string": "texts", "object": "objects"}
