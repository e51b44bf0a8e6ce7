# SPDX-License-Identifier: MIT
SUMMARY = "The build machine's systemctl"
DESCRIPTION = "Stands in for openembedded-core's systemd-systemctl-native, which enables services in \
the root directory of an image."

inherit standin-native

do_install() {
    install -d ${D}${bindir}
    # Older versions of pseudo end a program that opens paths step by step from "/" as systemctl
    # does. So pseudo sees none of it and is told of the owners of the links afterwards.
    cat > ${D}${bindir}/systemctl <<'END'
#!/bin/sh
root=
for option in "$@"; do
    case "$option" in --root=*) root="${option#--root=}" ;; esac
done
if [ -z "$root" ]; then
    echo "systemctl: no --root, and the services of the build machine are not touched" >&2
    exit 1
fi
PSEUDO_UNLOAD=1 /usr/bin/systemctl "$@" || exit $?
[ ! -d "$root/etc/systemd" ] || chown -hR 0:0 "$root/etc/systemd"
END
    chmod 0755 ${D}${bindir}/systemctl
}
