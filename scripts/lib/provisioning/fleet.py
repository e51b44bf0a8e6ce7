# SPDX-License-Identifier: MIT
"""A list of devices, provisioned one after another from one image, with a report."""

import csv
import hashlib
import io
import json
from pathlib import Path

from composeapps import durable
from composeapps.disk import area
from composeapps.errors import ComposeAppsError, UsageError
from provisioning import given, target

# Column -> argument of given.gather. Besides them there are columns "setting:NAME".
COLUMNS = {"device": "device", "serial": "serial", "cert": "certificate", "key": "key", "ca": "authority"}
_SETTING = "setting:"
_FILES = ("certificate", "key", "authority")
_FIELDS = ("device", "serial", "file", "offset", "sha256", "result", "problem")


def rows(path):
    """Return the lines of a list as [(its number, {column: value})].

    Blanks around names and values do not count. Raises UsageError for columns that are not known, a device that
    stands twice, a list of none, and what is no CSV.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"{path} cannot be read: {getattr(err, 'strerror', None) or 'it is not UTF-8 text'}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        found = [(reader.line_num, _stripped(row)) for row in reader if any(row.values())]
        columns = reader.fieldnames or []
    except csv.Error as err:
        raise UsageError(f"{path}:{reader.line_num}: this is no CSV: {err}") from None
    unknown = [name for name in columns if name not in COLUMNS and not name.startswith(_SETTING)]
    if unknown or "device" not in columns or len({*columns}) != len(columns):
        raise UsageError(f"{path}: the first line has to name the columns {', '.join(COLUMNS)} or {_SETTING}NAME, of "
                         f"which 'device' is needed, each once{': not ' + unknown[0] if unknown else ''}")
    seen = {}
    for number, row in found:
        if None in row or None in row.values():
            raise UsageError(f"{path}:{number}: the line has another number of columns than the first one")
        for column, what in (("device", "device"), ("serial", "serial number")):
            # Two names that differ in their letters' case are one file on some systems.
            value = row.get(column, "").lower()
            if value and (column, value) in seen:
                raise UsageError(f"{path}:{number}: the {what} '{row[column]}' stands in line "
                                 f"{seen[column, value]}, too")
            seen[column, value] = number
    if not found:
        raise UsageError(f"{path} names no device")
    return found


def _stripped(row):
    return {column: value.strip() if isinstance(value, str) else value for column, value in row.items()}


def provision(image, listed, directory, common, area_only, report, notify):
    """Provision all devices of a list; one that fails does not keep others from it.

    Arguments:
        image: the image.
        listed: the list's file; names of files in it are relative to it.
        directory: where what is made goes, DEVICE.wic or DEVICE.area.
        common: arguments of given.gather that hold for each device that has no own; settings add up.
        area_only: make only the bytes of the areas.
        report: the report's file, .json or else CSV.
        notify: called with a sentence for each device that fails.

    What is there and right is left as it is. Returns a list of {"device", "serial", "file", "offset" (of the area in
    the image), "sha256" (of the area), "result" ("made", "there" or "failed"), "problem"}. Raises UsageError,
    StorageError.
    """
    found, place = rows(listed), target.find(image)
    refuse_given(image, place)
    directory = Path(directory)
    with durable.storage_errors(f"making {directory}"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    results = []
    for number, row in found:
        result = dict.fromkeys(_FIELDS, "") | {"device": row["device"], "serial": row.get("serial", ""),
                                               "offset": place.offset}
        try:
            _one(image, place, row, Path(listed).parent, directory, common, area_only, result)
        except ComposeAppsError as err:
            result |= {"result": "failed", "problem": str(err)}
            notify(f"{listed}:{number}: {row['device']}: {err}")
        results.append(result)
    with durable.storage_errors("writing the report"):
        durable.write_file(report, written(results, Path(report).suffix == ".json").encode())
    return results


def refuse_given(image, place):
    """Refuse an image that is a device's already: all others would have its key. Raises UsageError."""
    there = target.held(image, place)
    if there is not None:
        raise UsageError(f"{image} is that of the device {there.device or there.serial} already: take the image that "
                         "was built")


def _one(image, place, row, beside, directory, common, area_only, result):
    arguments = dict(common)
    for column, argument in COLUMNS.items():
        value = row.get(column, "")
        if value:
            arguments[argument] = beside / value if argument in _FILES else value
    own = [f"{column.removeprefix(_SETTING)}={value}" for column, value in row.items()
           if column.startswith(_SETTING) and value]
    arguments["words"] = [*_without(common.get("words", ()), own), *own]
    name = area.name(row["device"], "the device's name")
    data = area.pack(given.gather(**arguments))
    path = directory / f"{name}{'.area' if area_only else '.wic'}"
    result |= {"file": str(path), "sha256": hashlib.sha256(data).hexdigest()}
    if target.holds(path, data, *(() if area_only else (image, place))):
        result["result"] = "there"
        return
    if area_only:
        target.usable(path)
        with durable.storage_errors(f"writing {path}"):
            durable.write_file(path, data, mode=0o600)
    else:
        target.copy(image, path, place, data)
    result["result"] = "made"


def _without(words, own):
    """Return the settings that a device has no own of."""
    names = {word.partition("=")[0].strip() for word in own}
    return [word for word in words if word.partition("=")[0].strip() not in names]


def written(results, as_json):
    """Return a report as text."""
    if as_json:
        return json.dumps(results, indent=2) + "\n"
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    return stream.getvalue()
