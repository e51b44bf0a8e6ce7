# SPDX-License-Identifier: MIT
"""What a registry of this machine holds, by the tag lists of the OCI distribution specification and its catalog."""

import json
import urllib.error
import urllib.request

from composeapps.errors import RegistryError

_LONGEST = 1 << 20
_SECONDS = 10


def published(endpoint):
    """Return ``[{"name": repository, "tags": [...]}]``, sorted, of at most 1000 repositories.

    Arguments:
        endpoint: ``host=url`` of the registry.

    Raises RegistryError when it does not answer.
    """
    host, _, url = endpoint.partition("=")
    names = _get(host, f"{url}/v2/_catalog?n=1000").get("repositories") or []
    listed = [{"name": name, "tags": sorted(_get(host, f"{url}/v2/{name}/tags/list").get("tags") or [])}
              for name in sorted(names)]
    return [one for one in listed if one["tags"]]


def _get(host, url):
    # The address is of this machine, and no proxy's.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            value = json.loads(answer.read(_LONGEST))
    except urllib.error.HTTPError as err:
        if err.code == 404:
            return {}
        raise RegistryError(f"{host} ({url}) answers {err.code}") from None
    except (OSError, ValueError) as err:
        raise RegistryError(f"{host} runs but does not answer ({url}: {getattr(err, 'reason', err)}): "
                            "'scripts/registry down' and 'up' start it anew") from None
    return value if isinstance(value, dict) else {}
