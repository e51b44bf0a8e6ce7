# SPDX-License-Identifier: MIT
SUMMARY = "Docker's configuration for restorable compose apps"
DESCRIPTION = "Pins the image store, limits the logs, starts dockerd after its \
store was checked and lets it read images from the restorable store. Docker 29 gives a fresh data directory to containerd's image store unless \
it is told otherwise, and installing and checking an app relies on the overlay2 store."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://50-composeapps.conf"

inherit allarch composeapps-docker composeapps-paths

COMPOSEAPPS_DOCKER_LOG_DRIVER ??= "json-file"
COMPOSEAPPS_DOCKER_LOG_MAX_SIZE ?= "10m"
COMPOSEAPPS_DOCKER_LOG_MAX_FILES ?= "3"

S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

python () {
    problem = composeapps_docker_problem(d.getVar("COMPOSEAPPS_DOCKER_SETTINGS"), "COMPOSEAPPS_DOCKER_SETTINGS")
    if problem:
        raise bb.parse.SkipRecipe(problem)
}

do_configure[noexec] = "1"

# The data root is dockerd's own default, which does not follow localstatedir.
# nooelint: oelint.vars.pathhardcode.localstatedir
python do_compile() {
    import json
    driver = d.getVar("COMPOSEAPPS_DOCKER_LOG_DRIVER")
    settings = {
        "storage-driver": "overlay2",
        "features": {"containerd-snapshotter": False},
        # One process less for each published port; the kernel forwards ports as well.
        "userland-proxy": False,
        "log-driver": driver,
    }
    if driver in ("json-file", "local"):
        settings["log-opts"] = {
            "max-size": d.getVar("COMPOSEAPPS_DOCKER_LOG_MAX_SIZE"),
            "max-file": d.getVar("COMPOSEAPPS_DOCKER_LOG_MAX_FILES"),
        }
    for name, value in json.loads(d.getVar("COMPOSEAPPS_DOCKER_SETTINGS")).items():
        if name == "features":
            settings[name].update(value)
        else:
            settings[name] = value
    with open(os.path.join(d.getVar("B"), "daemon.json"), "w") as stream:
        json.dump(settings, stream, indent=2)
        stream.write("\n")
    with open(os.path.join(d.getVar("S"), "50-composeapps.conf")) as stream:
        dropin = stream.read()
    with open(os.path.join(d.getVar("B"), "50-composeapps.conf"), "w") as stream:
        stream.write(dropin.replace("@DATA_ROOT@", settings.get("data-root", "/var/lib/docker"))
                     .replace("@LOAD_ROOTS@", d.getVar("COMPOSEAPPS_STORE")))
}

do_install() {
    install -d ${D}${sysconfdir}/docker ${D}${systemd_system_unitdir}/docker.service.d
    install -m 0644 ${B}/daemon.json ${D}${sysconfdir}/docker/daemon.json
    install -m 0644 ${B}/50-composeapps.conf ${D}${systemd_system_unitdir}/docker.service.d/50-composeapps.conf
}

FILES:${PN} += "${systemd_system_unitdir}/docker.service.d"
CONFFILES:${PN} = "${sysconfdir}/docker/daemon.json"
