# SPDX-License-Identifier: MIT
"""What dockerd calls an image.

dockerd leaves out what everybody knows: ``docker.io/library/nginx`` is ``nginx`` to it, and
``docker.io/acme/tool`` is ``acme/tool``, in all that it tells of images (RepoTags, RepoDigests). It takes
the long names as well, so only what is compared with its answers has to have the short ones.
"""

from composeapps.oci.reference import DEFAULT_HOST

# So many digits of an image's digest are the tag that it is loaded under.
_DIGITS = 7


def familiar(ref):
    """Return a Reference's repository as dockerd writes it."""
    if ref.host != DEFAULT_HOST:
        return ref.repository
    return ref.path.removeprefix("library/") if ref.path.count("/") == 1 else ref.path


def tag_of(ref):
    """Return the name by tag under which the image of a pinned Reference is loaded, as dockerd writes it."""
    return f"{familiar(ref)}:{ref.hex[:_DIGITS]}"


def digest_of(ref):
    """Return the name by digest of a pinned Reference, as dockerd writes it."""
    return f"{familiar(ref)}@{ref.digest}"
