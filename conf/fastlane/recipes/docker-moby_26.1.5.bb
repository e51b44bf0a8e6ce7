# SPDX-License-Identifier: MIT
SUMMARY = "dockerd with the layer's patches"
DESCRIPTION = "Debian's dockerd, compiled again with the patches that the layer's bbappend adds to \
docker-moby. What else belongs to the engine is Debian's own."
LICENSE = "Apache-2.0"

# Read by its path: BitBake takes what the layer says about docker-moby only beside meta-virtualization.
COMPOSEAPPS_MOBY_SERIES = "moby-26"
require dynamic-layers/virtualization-layer/recipes-containers/docker/docker-moby-composeapps.inc

RDEPENDS:${PN} += "docker-moby-debian"

S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

# scripts/lib/moby applies them to its own copy of the source.
do_patch[noexec] = "1"

do_compile[file-checksums] = "${@' '.join(f'{path}:True' for path in fastlane_moby_code(d))}"
python do_compile() {
    import shutil
    import moby.build
    import moby.series
    fetcher = bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d)
    patches = [fetcher.localpath(url) for url in fetcher.urls if url.split(";")[0].endswith(".patch")]
    built = moby.build.build(moby.series.of_files(patches), d.getVar("FASTLANE_PROGRESS", False))
    shutil.copyfile(built.directory / "dockerd", os.path.join(d.getVar("B"), "dockerd"))
}

def fastlane_moby_code(d):
    """Return the files of the code that compiles dockerd: what it makes depends on them."""
    import moby
    directory = os.path.dirname(moby.__file__)
    return [os.path.join(directory, name) for name in ("build.py", "root.py", "source.py")]

do_install() {
    install -D -m 0755 ${B}/dockerd ${D}${sbindir}/dockerd
}
