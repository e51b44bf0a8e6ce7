# SPDX-License-Identifier: MIT
#
# The recipe of one compose app: fetches the blobs of the app and of its images
# for the machine's platform, checks them and deploys them as a restorable
# store. Images take it from there (composeapps-image.bbclass).
#
# scripts/gen-recipes writes such recipes; they set
#   COMPOSEAPP_NAME, COMPOSEAPP_URI, COMPOSEAPP_IMAGES, COMPOSEAPP_PLATFORMS
#   COMPOSEAPP_BLOBS                  oci:// URLs that every platform needs
#   COMPOSEAPP_BLOBS[linux-amd64]     those that this platform needs on top

inherit deploy

COMPOSEAPPS_PLATFORM ??= "${@composeapp_platform_of(d)}"

SRC_URI = "${@composeapp_src_uri(d)}"
# The flags of COMPOSEAPP_BLOBS are invisible to the signature of an expression.
SRC_URI[vardepvalue] = "${SRC_URI}"
S = "${UNPACKDIR}"

# Nothing is compiled, so no toolchain is needed.
INHIBIT_DEFAULT_DEPS = "1"
# The platform follows the machine, and so does the deploy directory.
PACKAGE_ARCH = "${MACHINE_ARCH}"

# The package is empty: through it the app, its licences and the digests of its images are in the
# manifests and the SBOM of each image that carries it. Its blobs reach the image by do_deploy,
# since no package format is made for gigabytes that are compressed already.
PACKAGES = "${PN}"
ALLOW_EMPTY:${PN} = "1"
SPDX_PACKAGE_URLS:append = " ${@composeapp_package_urls(d)}"
COMPOSEAPP_IMAGE_LIST = "${@' '.join((d.getVar('COMPOSEAPP_IMAGES') or '').split())}"
SPDX_CUSTOM_ANNOTATION_VARS:append = " COMPOSEAPP_URI COMPOSEAPP_IMAGE_LIST COMPOSEAPPS_PLATFORM"

# The licences in the recipe are those that the publisher declared on the
# images; an image has no one licence file whose checksum could be pinned, and
# the digests pin its content already.
ERROR_QA:remove = "license-checksum"
WARN_QA:remove = "license-checksum"

def composeapp_platform_of(d):
    """Return the OCI platform of what is built for, or "" when container images know no such platform."""
    from composeapps.oci.platforms import of_target
    return of_target(d.getVar("TARGET_ARCH") or "", d.getVar("TUNE_FEATURES") or "")

def composeapp_offered(d):
    """Return the one of the recipe's platforms whose images a machine of COMPOSEAPPS_PLATFORM runs best, or ""."""
    from composeapps.errors import ComposeAppsError
    from composeapps.oci.platforms import Platform
    try:
        wanted = Platform.parse(d.getVar("COMPOSEAPPS_PLATFORM") or "")
        offered = [Platform.parse(name) for name in (d.getVar("COMPOSEAPP_PLATFORMS") or "").split()]
    except ComposeAppsError:
        return ""
    return next(map(str, wanted.best(offered, lambda platform: platform)), "")

def composeapp_src_uri(d):
    """Return the oci:// URLs of the app for COMPOSEAPPS_PLATFORM."""
    platform = composeapp_offered(d).replace("/", "-")
    blobs = (d.getVar("COMPOSEAPP_BLOBS") or "").split()
    if platform:
        blobs += (d.getVarFlag("COMPOSEAPP_BLOBS", platform) or "").split()
    return " ".join(blobs)

def composeapp_package_urls(d):
    """Return the Package URLs (type oci of the purl specification) of the app and of its images."""
    from urllib.parse import quote
    architecture = (d.getVar("COMPOSEAPPS_PLATFORM") or "/").split("/")[1]
    urls = []
    for reference in [d.getVar("COMPOSEAPP_URI") or ""] + (d.getVar("COMPOSEAPP_IMAGES") or "").split():
        repository, _, digest = reference.partition("@")
        url = "pkg:oci/%s@%s?repository_url=%s" % (
            quote(repository.rpartition("/")[2].lower(), safe=""), quote(digest, safe=""), quote(repository, safe=""))
        # An app is the same for every platform.
        urls.append(url if not urls else url + "&arch=" + architecture)
    return " ".join(urls)

def composeapp_problem(d):
    """Return the sentence that says why this app cannot be built, or None."""
    import re
    name = d.getVar("COMPOSEAPP_NAME")
    if not name:
        return "COMPOSEAPP_NAME is not set: generate the recipe with scripts/gen-recipes"
    if d.getVar("PN") != "composeapp-" + name:
        return "the recipe of app %s must be called composeapp-%s, not %s" % (name, name, d.getVar("PN"))
    uri = d.getVar("COMPOSEAPP_URI") or ""
    for reference in [uri] + (d.getVar("COMPOSEAPP_IMAGES") or "").split():
        if not re.search(r"@sha256:[0-9a-f]{64}$", reference):
            return "app %s: the reference '%s' has no digest: generate the recipe again with scripts/gen-recipes" % (name, reference)
    platform = d.getVar("COMPOSEAPPS_PLATFORM")
    offered = (d.getVar("COMPOSEAPP_PLATFORMS") or "").split()
    if not platform:
        return "app %s: no container platform is known for TARGET_ARCH %s: set COMPOSEAPPS_PLATFORM" % (name, d.getVar("TARGET_ARCH"))
    if not composeapp_offered(d):
        return "app %s has no images for %s (it has %s): publish them for that platform, add it to the app's file in conf/apps and run scripts/gen-recipes again" % (
            name, platform, ", ".join(offered) or "none")
    for url in composeapp_src_uri(d).split():
        if not re.search(r";digest=sha256:[0-9a-f]{64}(;|$)", url):
            return "app %s: '%s' has no digest: generate the recipe again with scripts/gen-recipes" % (name, url)
    if not composeapp_src_uri(d):
        return "app %s: COMPOSEAPP_BLOBS is empty: generate the recipe again with scripts/gen-recipes" % name
    return None

python () {
    problem = composeapp_problem(d)
    if problem:
        raise bb.parse.SkipRecipe(problem)
    # A module that imports another one from now on lengthens the list below.
    import composeapps.sources
    for path in composeapps.sources.needed_by("store.preload"):
        bb.parse.mark_dependency(d, path)
}

# A change of what lays out the store must lay it out again; the signature sees
# only the text of the task itself.
def composeapps_build_files(d):
    """Return the checksum entries (path:exists) of the modules that build a store."""
    import composeapps.sources
    return " ".join("%s:True" % path for path in composeapps.sources.needed_by("store.preload"))

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_compile[file-checksums] += "${@composeapps_build_files(d)}"
python do_compile() {
    import composeapps.errors
    import composeapps.store.preload
    try:
        composeapps.store.preload.build_store(
            os.path.join(d.getVar("UNPACKDIR"), "store"),
            d.getVar("COMPOSEAPP_URI"),
            (d.getVar("COMPOSEAPP_IMAGES") or "").split(),
            d.getVar("COMPOSEAPPS_PLATFORM"),
        )
    except composeapps.errors.ComposeAppsError as err:
        bb.fatal("app %s: %s" % (d.getVar("COMPOSEAPP_NAME"), err))
}

# The store is content-addressed and cheap to lay out: a copy of every blob in
# the shared state would only cost space.
SSTATE_SKIP_CREATION:task-deploy = "1"

python do_deploy() {
    import json
    import shutil
    target = os.path.join(d.getVar("DEPLOYDIR"), "composeapps", d.getVar("COMPOSEAPP_NAME"))
    bb.utils.mkdirhier(os.path.dirname(target))
    # Links, not copies: blobs may be large, and nobody writes to them again.
    shutil.copytree(os.path.join(d.getVar("UNPACKDIR"), "store"), target, symlinks=True, copy_function=os.link)
    with open(target + ".json", "w") as stream:
        json.dump({
            "name": d.getVar("COMPOSEAPP_NAME"),
            "version": d.getVar("PV"),
            "recipe": d.getVar("PN"),
            "uri": d.getVar("COMPOSEAPP_URI"),
            "platform": d.getVar("COMPOSEAPPS_PLATFORM"),
            "images": (d.getVar("COMPOSEAPP_IMAGES") or "").split(),
            "license": d.getVar("LICENSE"),
            "target": d.getVar("COMPOSEAPP_TARGET") or "",
            "target_version": int(d.getVar("COMPOSEAPP_TARGET_VERSION") or 0),
        }, stream, indent=2)
        stream.write("\n")
}
addtask deploy after do_compile before do_build
