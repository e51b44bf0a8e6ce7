# SPDX-License-Identifier: MIT
"""What a generated recipe says of its app: the truth that an image, its SBOM and its manifest are held against."""

import re
from dataclasses import dataclass
from pathlib import Path

from layercheck.errors import CheckError

_VALUE = r'^{name} = "((?:[^"\\]|\\\n)*)"'


@dataclass(frozen=True)
class AppFacts:
    """One app.

    Arguments:
        name: the app's name.
        uri: its pinned reference.
        images: the pinned references of its images.
        license: the recipe's LICENSE.
        platforms: those that it has images for, "linux/amd64" for example.
        blobs: {digest: size in bytes} of what one platform needs.
    """

    name: str
    uri: str
    images: tuple
    license: str
    platforms: tuple
    blobs: dict


def read(directory, platform):
    """Return the AppFacts of the generated recipes under ``directory``, in the order of their names.

    Arguments:
        platform: for which the blobs are wanted.

    Raises CheckError for a recipe that lacks one of the fields.
    """
    return [_read(path, platform) for path in sorted(Path(directory).rglob("composeapp-*.bb"))]


def _read(path, platform):
    text = path.read_text()

    def words(name):
        found = re.search(_VALUE.format(name=re.escape(name)), text, re.MULTILINE)
        if not found:
            raise CheckError(f"{path} has no {name}: has scripts/gen-recipes written it?")
        return found[1].replace("\\\n", " ").split()

    platforms = words("COMPOSEAPP_PLATFORMS")
    flag = f"COMPOSEAPP_BLOBS[{platform.replace('/', '-')}]"
    urls = words("COMPOSEAPP_BLOBS") + (words(flag) if platform in platforms else [])
    blobs = {}
    for url in urls:
        parameters = dict(parameter.split("=", 1) for parameter in url.split(";")[1:])
        blobs[parameters["digest"]] = int(parameters["size"])
    return AppFacts(words("COMPOSEAPP_NAME")[0], words("COMPOSEAPP_URI")[0], tuple(words("COMPOSEAPP_IMAGES")),
                    " ".join(words("LICENSE")), tuple(platforms), blobs)
