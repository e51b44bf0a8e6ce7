# SPDX-License-Identifier: MIT
"""Read the small YAML files that become recipes, one file a recipe, each checked against a JSON schema.

Every complaint is a sentence that begins with FILE:LINE: FIELD. A schema says beside the usual keywords
what its fields should have been: ``expected`` of a field, ``twice`` of a list without repetitions,
``example`` of the whole file.
"""

import difflib
import functools
import json
from pathlib import Path

import jsonschema
import yaml

from composeapps.errors import NotFoundError, UsageError

SUFFIXES = (".yml", ".yaml")


class ComplaintsError(UsageError):
    """What is wrong in files, a sentence in each line."""

    in_lines = True


def find_files(arguments, what="app"):
    """Return the files that the arguments (files and directories) name, in order, each once.

    :param what: what a file describes, for the sentence about a directory without files
    :raises NotFoundError: a file or directory does not exist, or a directory has no such file
    """
    found = {}
    for argument in map(Path, arguments):
        if argument.is_dir():
            inside = sorted(path for path in argument.iterdir() if path.suffix in SUFFIXES and path.is_file())
            if not inside:
                raise NotFoundError(f"{argument} has no *.yml: write one file for each {what} there")
            found.update({path.resolve(): path for path in inside})
        elif argument.is_file():
            found[argument.resolve()] = argument
        else:
            raise NotFoundError(f"{argument} does not exist: name a file or a directory of *.yml files")
    return list(found.values())


def load_all(paths, load, field, what="app"):
    """Read files with ``load(path)``, whose results have ``path``, ``lines`` and the attribute ``field``.

    :param field: what no two files may have in common, and the field that sets it
    :param what: what a file describes
    :raises UsageError: what is wrong in any of them, a line for each complaint
    """
    confs, complaints = [], []
    for path in paths:
        try:
            confs.append(load(path))
        except UsageError as err:
            complaints.append(str(err))
    owners = {}
    for conf in confs:
        value = getattr(conf, field)
        other = owners.setdefault(value, conf)
        if other is not conf:
            line = conf.lines.get(field, min(conf.lines.values(), default=""))
            remedy = f"set another '{field}'" if conf.lines else "give it another, NAME=REF"
            complaints.append(f"{conf.path}{':' if conf.lines else ''}{line}: {field}: '{value}' is the {what} of "
                              f"{other.path} already: {remedy}")
    if complaints:
        raise ComplaintsError("\n".join(complaints))
    return confs


def read(path, schema):
    """Return (value, {field: line}) of a YAML file; fields of a list are "platforms[0]".

    :param schema: the name of the JSON schema, a file beside this one
    :raises UsageError: what is wrong in it, a line for each complaint
    """
    path = Path(path)
    validator = _validator(schema)
    value, lines = _parse(path, validator.schema)
    complaints = [_sentence(error, path, lines) for error in sorted(validator.iter_errors(value), key=_position)]
    if complaints:
        raise ComplaintsError("\n".join(complaints))
    return value, lines


def pattern(schema, field):
    """Return the regular expression that a schema has for a field."""
    return _validator(schema).schema["properties"][field]["pattern"]


def one_line(text):
    """Return text with its line breaks and runs of spaces made one space, or None for none."""
    return " ".join(text.split()) if text else None


@functools.cache
def _validator(schema):
    return jsonschema.Draft202012Validator(json.loads(Path(__file__).with_name(schema).read_text()))


def _parse(path, schema):
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise UsageError(f"{path}: cannot be read: {err.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        raise UsageError(f"{path}:{line}: not YAML: {err.problem}") from None
    except (yaml.YAMLError, RecursionError) as err:
        raise UsageError(f"{path}:1: not YAML: {str(err).splitlines()[0]}") from None
    if not isinstance(value, dict):
        raise UsageError(
            f"{path}:1: {schema['required'][0]}: missing: the file is no mapping of fields, '{schema['example']}'")
    lines = {}
    for key, content in node.value:
        field = str(key.value)
        if field in lines:
            raise UsageError(f"{path}:{key.start_mark.line + 1}: {field}: is given twice (line {lines[field]})")
        lines[field] = key.start_mark.line + 1
        if isinstance(content, yaml.SequenceNode):
            for number, item in enumerate(content.value):
                lines[f"{field}[{number}]"] = item.start_mark.line + 1
    return value, lines


def _position(error):
    return [str(part) for part in error.absolute_path]


def _sentence(error, path, lines):
    field = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        field = sorted(set(map(str, error.instance)) - set(known))[0]
        near = difflib.get_close_matches(field, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"the fields are {', '.join(known)}"
        return f"{path}:{lines.get(field, 1)}: {field}: unknown field; {hint}"
    if error.validator == "required":
        field = next(name for name in error.validator_value if name not in error.instance)
        return f"{path}:1: {field}: missing: {error.schema['properties'][field]['expected']}"
    shown = json.dumps(error.instance, default=str, ensure_ascii=False)
    if error.validator == "type" and error.validator_value == "string" and not isinstance(error.instance, list | dict):
        return f"{path}:{lines.get(field, 1)}: {field}: {shown} is not text: put it in quotes"
    if error.validator == "uniqueItems":
        return f"{path}:{lines.get(field, 1)}: {field}: {error.schema['twice']}"
    return f"{path}:{lines.get(field, 1)}: {field}: {shown} is not {_article(error.schema['expected'])}"


def _article(expected):
    first = expected.split()[0]
    return expected if first in ("a", "an", "the") or "/" in first else f"made of {expected}"
