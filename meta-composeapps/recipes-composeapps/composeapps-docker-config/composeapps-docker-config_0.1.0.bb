# SPDX-License-Identifier: MIT
SUMMARY = "Docker's configuration for restorable compose apps"
DESCRIPTION = "Pins the image store, limits the logs, starts dockerd after its \
store was checked and lets it read images from the restorable store. Docker 29 gives a fresh data directory to containerd's image store unless \
it is told otherwise, and installing and checking an app relies on the overlay2 store."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://50-composeapps.conf \
    file://docker-store-fsck-background.service \
    file://docker-store-fsck.service \
"

inherit allarch composeapps-docker composeapps-paths systemd

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
    words = {
        "@DATA_ROOT@": settings.get("data-root", "/var/lib/docker"),
        "@LOAD_ROOTS@": d.getVar("COMPOSEAPPS_STORE"),
        "@COMPOSEAPPS_STORE@": d.getVar("COMPOSEAPPS_STORE"),
        "@COMPOSEAPPS_FACTORY_STORE@": d.getVar("COMPOSEAPPS_FACTORY_STORE"),
        "@bindir@": d.getVar("bindir"),
    }
    for name in ("50-composeapps.conf", *d.getVar("SYSTEMD_SERVICE:" + d.getVar("PN")).split()):
        with open(os.path.join(d.getVar("S"), name)) as stream:
            text = stream.read()
        for word, value in words.items():
            text = text.replace(word, value)
        with open(os.path.join(d.getVar("B"), name), "w") as stream:
            stream.write(text)
}

do_install() {
    install -d ${D}${sysconfdir}/docker ${D}${systemd_system_unitdir}/docker.service.d
    install -m 0644 ${B}/daemon.json ${D}${sysconfdir}/docker/daemon.json
    install -m 0644 ${B}/50-composeapps.conf ${D}${systemd_system_unitdir}/docker.service.d/50-composeapps.conf
    install -m 0644 ${B}/docker-store-fsck.service ${B}/docker-store-fsck-background.service \
        ${D}${systemd_system_unitdir}/
}

# They check with the agent's command, and do nothing without it.
SYSTEMD_SERVICE:${PN} = "docker-store-fsck.service docker-store-fsck-background.service"

FILES:${PN} += "${systemd_system_unitdir}/docker.service.d"
# meta-virtualization's package of a registry's settings has a daemon.json of its own: they belong into
# COMPOSEAPPS_DOCKER_SETTINGS.
RCONFLICTS:${PN} = "docker-registry-config"
CONFFILES:${PN} = "${sysconfdir}/docker/daemon.json"
