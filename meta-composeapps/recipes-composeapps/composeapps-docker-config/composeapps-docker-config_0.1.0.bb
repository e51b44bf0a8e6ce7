# SPDX-License-Identifier: MIT
SUMMARY = "Docker's configuration for restorable compose apps"
DESCRIPTION = "Pins the image store and limits the logs. Docker 29 gives a fresh \
data directory to containerd's image store unless it is told otherwise, and \
installing and checking the layers of an app relies on the overlay2 store."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch

COMPOSEAPPS_DOCKER_LOG_MAX_SIZE ?= "10m"
COMPOSEAPPS_DOCKER_LOG_MAX_FILES ?= "3"

S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

do_configure[noexec] = "1"

python do_compile() {
    import json
    settings = {
        "storage-driver": "overlay2",
        "features": {"containerd-snapshotter": False},
        # One process less for each published port; the kernel forwards ports as well.
        "userland-proxy": False,
        "log-driver": "json-file",
        "log-opts": {
            "max-size": d.getVar("COMPOSEAPPS_DOCKER_LOG_MAX_SIZE"),
            "max-file": d.getVar("COMPOSEAPPS_DOCKER_LOG_MAX_FILES"),
        },
    }
    with open(os.path.join(d.getVar("B"), "daemon.json"), "w") as stream:
        json.dump(settings, stream, indent=2)
        stream.write("\n")
}

do_install() {
    install -d ${D}${sysconfdir}/docker
    install -m 0644 ${B}/daemon.json ${D}${sysconfdir}/docker/daemon.json
}

CONFFILES:${PN} = "${sysconfdir}/docker/daemon.json"
