# SPDX-License-Identifier: MIT
"""Read the files of conf/apps: one app each, checked against app-schema.json.

Every complaint is a sentence that begins with FILE:LINE: FIELD.
"""

import difflib
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml

from composeapps import reference
from composeapps.errors import NotFoundError, UsageError
from composeapps.oci import Platform
from composeapps.reference import Reference
from recipes.licenses import LicenseError, to_yocto

SUFFIXES = (".yml", ".yaml")
DEFAULT_VERSION = "1.0"


@dataclass(frozen=True)
class AppConf:
    """One file of conf/apps.

    ``platforms`` is None for all that every image has; ``license`` is in Yocto's notation, or
    None for what the images' labels say; ``lines`` maps a field to its line.
    """

    path: Path
    ref: Reference
    name: str
    version: str
    summary: str | None
    description: str | None
    homepage: str | None
    license: str | None
    platforms: tuple | None
    lines: dict


def find_files(arguments):
    """Return the app files that the arguments (files and directories) name, in order, each once.

    :raises NotFoundError: a file or directory does not exist, or a directory has no app file
    """
    found = {}
    for argument in map(Path, arguments):
        if argument.is_dir():
            inside = sorted(path for path in argument.iterdir() if path.suffix in SUFFIXES and path.is_file())
            if not inside:
                raise NotFoundError(f"{argument} has no *.yml: write one file for each app there")
            found.update({path.resolve(): path for path in inside})
        elif argument.is_file():
            found[argument.resolve()] = argument
        else:
            raise NotFoundError(f"{argument} does not exist: name a file or a directory of *.yml files")
    return list(found.values())


def load_all(paths):
    """Read app files.

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
        other = owners.setdefault(conf.name, conf)
        if other is not conf:
            line = conf.lines.get("name", conf.lines["uri"])
            complaints.append(
                f"{conf.path}:{line}: name: '{conf.name}' is the app of {other.path} already: set another 'name'"
            )
    if complaints:
        raise UsageError("\n".join(complaints))
    return confs


def load(path):
    """Read one app file and return its AppConf.

    :raises UsageError: what is wrong in it, a line for each complaint
    """
    path = Path(path)
    value, lines = _parse(path)
    complaints = [_sentence(error, path, lines) for error in sorted(_validator().iter_errors(value), key=_position)]
    if complaints:
        raise UsageError("\n".join(complaints))

    def fail(field, text):
        raise UsageError(f"{path}:{lines[field]}: {field}: {text}") from None

    try:
        ref = reference.parse(value["uri"], what="app")
    except UsageError as err:
        fail("uri", err)
    name = value.get("name")
    if name is None:
        name = ref.app_name
        if not all(char.isalnum() or char in ".+-" for char in name):
            fail("uri", f"'{name}' cannot be part of a recipe's name: set 'name' as well")
    try:
        license_ = to_yocto(value["license"]) if "license" in value else None
    except LicenseError as err:
        fail("license", err)
    platforms = None
    if "platforms" in value:
        platforms = tuple(Platform.parse(text) for text in value["platforms"])
    return AppConf(
        path, ref, name, value.get("version", DEFAULT_VERSION), _one_line(value.get("summary")),
        _one_line(value.get("description")), value.get("homepage"), license_, platforms, lines,
    )


@functools.cache
def _validator():
    schema = json.loads(Path(__file__).with_name("app-schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def _parse(path):
    """Return (value, {field: line}) of a YAML file; fields of a list are "platforms[0]"."""
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
        raise UsageError(f"{path}:1: uri: missing: the file is no mapping of fields, 'uri: REGISTRY/FACTORY/NAME:TAG'")
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
        return f"{path}:{lines.get(field, 1)}: {field}: names a platform twice"
    return f"{path}:{lines.get(field, 1)}: {field}: {shown} is not {_article(error.schema['expected'])}"


def _article(expected):
    first = expected.split()[0]
    return expected if first in ("a", "an", "the") or "/" in first else f"made of {expected}"


def _one_line(text):
    return " ".join(text.split()) if text else None
