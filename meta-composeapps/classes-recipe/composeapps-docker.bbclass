# SPDX-License-Identifier: MIT
#
# What is said about dockerd's settings in one place, for the recipe that writes them
# and for the images that rely on them.

# JSON: settings of dockerd on top of this layer's.
COMPOSEAPPS_DOCKER_SETTINGS ??= "{}"

def composeapps_docker_problem(settings, where):
    """Return the sentence that says why apps cannot be installed under these settings of dockerd, or None.

    Arguments:
        settings: the text of a daemon.json, or of a part of one.
        where: where the text comes from, as the sentence names it.
    """
    import json
    try:
        settings = json.loads(settings)
    except ValueError as err:
        return "%s is not JSON: %s" % (where, err)
    if not isinstance(settings, dict):
        return "%s is not a JSON object of settings: write it as { \"name\": value }" % where
    features = settings.get("features", {})
    if not isinstance(features, dict):
        return "%s: \"features\" is not a JSON object" % where
    if features.get("containerd-snapshotter", False) is not False:
        return ("%s selects containerd's image store (features.containerd-snapshotter): apps are installed into and "
                "checked against the overlay2 store; leave that setting out" % where)
    driver = settings.get("storage-driver", "overlay2")
    if driver != "overlay2":
        return ("%s selects the storage driver '%s': apps are installed into and checked against the overlay2 store; "
                "leave that setting out" % (where, driver))
    return None
