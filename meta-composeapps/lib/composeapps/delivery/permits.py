# SPDX-License-Identifier: MIT
"""Which versions may come on a device that takes signed delivery: those of the factory's, whoever names them."""

import contextlib

from composeapps.delivery import record
from composeapps.delivery.refresh import known
from composeapps.delivery.stored import of_device
from composeapps.delivery.trust import NothingHereError, TrustError
from composeapps.installed import desired


def check(parts, uri):
    """See that a version may be installed.

    It may when it is of a Target that the factory signed for this device, of the image's apps, or was installed here
    before. Which registry it is named with does not matter.

    Arguments:
        parts: the update.parts.Parts of the device.
        uri: the version's pinned reference, a text.

    Raises TrustError.
    """
    digest = uri.rpartition("@")[2]
    if any(digest in found(parts) for found in (_installed, _factorys, _signed)):
        return
    raise TrustError("unsigned", f"{uri} is of no Target that the factory signed for this device: 'composeapps update' "
                     "takes what it signs; the setting 'unsigned' in [delivery] of the image lets versions be named by "
                     "hand")


def _installed(parts):
    known_here = record.read(parts.states)
    targets = [known_here.current, known_here.previous, known_here.rollout and known_here.rollout.target]
    uris = [uri for target in targets if target for uri in target.apps.values()]
    for name in parts.states.names():
        state = parts.states.get(name)
        uris += [state.uri, state.previous] if state else []
    return _digests(uris)


def _factorys(parts):
    return _digests(desired.factory_set(parts.config)[0].values())


def _signed(parts):
    config, found = parts.config, ()
    with contextlib.suppress(NothingHereError):
        found = known(of_device(config, parts.states, parts.notify))
    return _digests(uri for target in found if target.fits(config.hardware_id, config.tags)
                    for uri in target.apps.values())


def _digests(uris):
    return {uri.rpartition("@")[2] for uri in uris if uri}
