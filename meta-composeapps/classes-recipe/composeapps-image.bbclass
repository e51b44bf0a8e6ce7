# SPDX-License-Identifier: MIT
#
# For an image recipe: carries the apps listed in COMPOSEAPPS_PRELOAD in the
# restorable store of the image, together with the agent that starts them.
#
#   inherit core-image composeapps-image
#   COMPOSEAPPS_PRELOAD = "shellhttpd web"

inherit composeapps-paths composeapps-docker

COMPOSEAPPS_PRELOAD ?= ""

# Where the same store is once more, for a factory reset; empty for nowhere. A file system that
# holds both holds each blob once: the files are linked. What OSTree commits is fetched by each device with each update
# of the system, so there the apps are in /var alone.
COMPOSEAPPS_FACTORY_SEED ?= "${@bb.utils.contains('DISTRO_FEATURES', 'sota', '', d.getVar('COMPOSEAPPS_FACTORY_STORE'), d)}"

# KiB. Docker unpacks the preloaded images beside the store, and updates need room.
COMPOSEAPPS_DATA_SPACE ?= "2097152"
# Set by composeapps-disk.bbclass, which gives that space to a partition of its own.
COMPOSEAPPS_ROOT_EXTRA_SPACE = "${COMPOSEAPPS_DATA_SPACE}"
IMAGE_ROOTFS_EXTRA_SPACE:append = " + ${COMPOSEAPPS_ROOT_EXTRA_SPACE}"

IMAGE_INSTALL:append = " packagegroup-composeapps ${@' '.join('composeapp-' + app for app in d.getVar('COMPOSEAPPS_PRELOAD').split())}"

do_rootfs[depends] += "${@' '.join('composeapp-%s:do_deploy' % app for app in d.getVar('COMPOSEAPPS_PRELOAD').split())}"

def composeapps_recipes(d):
    """Return ({app: recipe file}, directory patterns in which a recipe may appear) as BBFILES has them."""
    import fnmatch
    import glob
    found, directories = {}, set()
    for pattern in (d.getVar("BBFILES") or "").split():
        directory, name = os.path.split(pattern)
        if not name.endswith(".bb"):
            continue
        directories.update((directory, os.path.dirname(directory)))
        for path in glob.iglob(os.path.join(directory, "composeapp-*.bb")):
            if fnmatch.fnmatch(os.path.basename(path), name):
                recipe = bb.parse.vars_from_file(path, d)[0]
                found[recipe[len("composeapp-"):]] = path
    return found, directories

def composeapps_missing(d):
    """Return the sentence that says which app of COMPOSEAPPS_PRELOAD has no recipe, or None."""
    import glob
    wanted = (d.getVar("COMPOSEAPPS_PRELOAD") or "").split()
    if not wanted:
        return None
    recipes, directories = composeapps_recipes(d)
    missing = [app for app in wanted if app not in recipes]
    if not missing:
        return None
    # A recipe that appears in one of them must make BitBake parse this one again.
    for pattern in sorted(directories):
        for directory in filter(os.path.isdir, glob.iglob(pattern)):
            bb.parse.mark_dependency(d, directory)
    return ("there is no app '%s', which COMPOSEAPPS_PRELOAD names: %s; describe it in conf/apps, write its recipe "
            "with scripts/gen-recipes and have the recipe's directory in BBFILES" % (
                missing[0], "there are " + ", ".join(sorted(recipes)) if recipes else "no app has a recipe yet"))

def composeapps_unfeatured(d):
    """Return the sentence that says that the layer is not switched on, or None."""
    if bb.utils.contains("DISTRO_FEATURES", "composeapps", True, False, d):
        return None
    return ("DISTRO_FEATURES has no 'composeapps', without which nothing counts that the layer says of dockerd and "
            "other recipes: add it, DISTRO_FEATURES:append = \" composeapps\"")

python () {
    problem = composeapps_unfeatured(d) or composeapps_missing(d) or composeapps_docker_problem(
        d.getVar("COMPOSEAPPS_DOCKER_SETTINGS"), "COMPOSEAPPS_DOCKER_SETTINGS")
    if problem:
        raise bb.parse.SkipRecipe(problem)
}

ROOTFS_POSTPROCESS_COMMAND += "composeapps_check_docker composeapps_offline composeapps_preload"
# The licence manifest is written by a command of this list that comes before.
ROOTFS_POSTUNINSTALL_COMMAND:append = " composeapps_licenses"

# A product may replace the recipe of the configuration, so the file that the image has is looked at too.
python composeapps_check_docker() {
    path = d.getVar("IMAGE_ROOTFS") + d.getVar("sysconfdir") + "/docker/daemon.json"
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        bb.fatal("%s has no %s/docker/daemon.json, so dockerd would use containerd's image store: install "
                 "composeapps-docker-config" % (d.getVar("PN"), d.getVar("sysconfdir")))
    problem = composeapps_docker_problem(text, "%s/docker/daemon.json of %s" % (d.getVar("sysconfdir"), d.getVar("PN")))
    if problem:
        bb.fatal(problem)
}

# dockerd's unit waits for the network to be up, which takes two minutes where there is none; its apps need none. A
# drop-in cannot take a dependency away (systemd.unit(5)), so this does.
composeapps_offline() {
    unit=${IMAGE_ROOTFS}${systemd_system_unitdir}/docker.service
    if [ -f $unit ]; then
        sed -E -e '/^(After|Wants|Requires)=/s/[[:space:]]*network-online\.target//g' $unit > $unit.new
        chmod 0644 $unit.new
        mv $unit.new $unit
    fi
}

python composeapps_preload() {
    import composeapps.errors
    import composeapps.store.preload
    rootfs = d.getVar("IMAGE_ROOTFS")
    deployed = os.path.join(d.getVar("DEPLOY_DIR_IMAGE"), "composeapps")
    seed = d.getVar("COMPOSEAPPS_FACTORY_SEED")
    try:
        composeapps.store.preload.merge_store(
            sources=[os.path.join(deployed, app) for app in d.getVar("COMPOSEAPPS_PRELOAD").split()],
            root=rootfs + d.getVar("COMPOSEAPPS_STORE"),
            factory_file=rootfs + d.getVar("COMPOSEAPPS_FACTORY_FILE"),
            seed=rootfs + seed if seed else None,
        )
    except composeapps.errors.ComposeAppsError as err:
        bb.fatal("preloading apps into %s: %s" % (d.getVar("PN"), err))
}

# The licence manifest lists packages; which images an app consists of is said after them.
python composeapps_licenses() {
    import json
    manifest = os.path.join(d.getVar("LICENSE_DIRECTORY") or "", d.getVar("SSTATE_PKGARCH") or "",
                            d.getVar("IMAGE_NAME") or "", "license.manifest")
    if not os.path.exists(manifest):
        return
    stanzas = []
    for app in d.getVar("COMPOSEAPPS_PRELOAD").split():
        with open(os.path.join(d.getVar("DEPLOY_DIR_IMAGE"), "composeapps", app + ".json"), encoding="utf-8") as stream:
            facts = json.load(stream)
        lines = ["APP: " + facts["uri"], "RECIPE NAME: " + facts["recipe"], "PLATFORM: " + facts["platform"]]
        lines += ["CONTAINER IMAGE: " + image for image in facts["images"]]
        lines += ["LICENSE: " + facts["license"]]
        stanzas.append("\n".join(lines) + "\n\n")
    copy = d.getVar("IMAGE_ROOTFS") + (d.getVar("ROOTFS_LICENSE_DIR") or "") + "/license.manifest"
    files = [manifest]
    if os.path.exists(copy) and not os.path.samefile(copy, manifest):
        files.append(copy)
    for path in files:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write("".join(stanzas))
}
