# SPDX-License-Identifier: MIT
# The tasks of a recipe in the fast lane: those of openembedded-core up to
# do_install. Packages are not written to files; fastlane.packaging splits ${D}
# as FILES says.

FILESPATH = "${@fastlane_filespath(d)}"
THISDIR = "${@os.path.dirname(d.getVar('FILE'))}"

def fastlane_filespath(d):
    """Return the directories that file:// URLs are looked up in, those of FILESEXTRAPATHS first."""
    here = d.getVar("FILE_DIRNAME")
    own = [os.path.join(here, name) for name in (d.getVar("BP"), d.getVar("BPN"), "files")]
    extra = [path for path in (d.getVar("FILESEXTRAPATHS") or "").split(":") if path and path != "__default"]
    result = []
    for path in extra + own:
        for override in reversed((d.getVar("OVERRIDES") or "").split(":")):
            result.append(os.path.join(path, override))
        result.append(path)
    return ":".join(os.path.normpath(path) for path in result)

addtask fetch
do_fetch[dirs] = "${DL_DIR}"
do_fetch[file-checksums] = "${@bb.fetch2.get_checksum_file_list(d)}"
do_fetch[network] = "1"
python base_do_fetch() {
    urls = (d.getVar("SRC_URI") or "").split()
    try:
        bb.fetch2.Fetch(urls, d).download()
    except bb.fetch2.BBFetchException as err:
        bb.fatal("fetching for %s: %s" % (d.getVar("PN"), err))
}

addtask unpack after do_fetch
do_unpack[cleandirs] = "${UNPACKDIR}"
python base_do_unpack() {
    urls = (d.getVar("SRC_URI") or "").split()
    try:
        bb.fetch2.Fetch(urls, d).unpack(d.getVar("UNPACKDIR"))
    except bb.fetch2.BBFetchException as err:
        bb.fatal("unpacking for %s: %s" % (d.getVar("PN"), err))
}

addtask patch after do_unpack
python base_do_patch() {
    patches = [url for url in (d.getVar("SRC_URI") or "").split() if url.split(";")[0].endswith((".patch", ".diff"))]
    if patches:
        bb.fatal("%s: the fast lane applies no patches (%s): build this recipe with bitbake" % (d.getVar("PN"), patches[0]))
}

addtask configure after do_patch
do_configure[dirs] = "${B}"
base_do_configure() {
    :
}

addtask compile after do_configure
do_compile[dirs] = "${B}"
base_do_compile() {
    :
}

addtask install after do_compile
do_install[dirs] = "${B}"
do_install[cleandirs] = "${D}"
base_do_install() {
    :
}

addtask build after do_install
do_build[noexec] = "1"
do_build() {
    :
}

EXPORT_FUNCTIONS do_fetch do_unpack do_patch do_configure do_compile do_install
