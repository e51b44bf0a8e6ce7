# SPDX-License-Identifier: MIT
"""Which Target a device takes from an offline bundle."""

from composeapps.delivery import bundles, record, selection
from composeapps.errors import UsageError


def choose(parts, bundle, stored, wanted=""):
    """Return (selection.Target, "") of a bundle, or (None, the sentence that says why there is nothing to do).

    Arguments:
        parts: the update.parts.Parts of the device.
        bundle: the bundles.Bundle.
        stored: the stored.Stored.
        wanted: the name of a Target, "" for the newest; an older one than the installed one comes by its name only.

    Raises UsageError for a bundle that is for other devices, NotFoundError for a Target that it has not, and what
    bundles.believe raises.
    """
    config = parts.config
    if not config.hardware_id or not config.tags:
        raise UsageError("this device does not know what it takes: set 'hardware_id' in [delivery] and 'tags' in "
                         "[pacman] of the configuration")
    offer = bundles.believe(bundle, stored, parts.notify)
    if offer.tag not in config.tags:
        raise UsageError(f"the bundle is for devices with the tag '{offer.tag}', and this one has "
                         f"{', '.join(config.tags)}")
    if offer.hardware_ids and config.hardware_id not in offer.hardware_ids:
        raise UsageError(f"the bundle is for the hardware {', '.join(offer.hardware_ids)}, and this is "
                         f"{config.hardware_id}")
    current = record.current(parts)
    if offer.lacking and (current is None or current.name != offer.lacking):
        parts.notify(f"the bundle leaves out what Target {offer.lacking} has: a device without that may lack a part")
    fitting = [target for target in offer.targets if target.fits(config.hardware_id, config.tags)]
    return selection.decide(fitting, config, current, wanted, " in the bundle")
