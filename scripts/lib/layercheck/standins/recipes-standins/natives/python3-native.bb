# SPDX-License-Identifier: MIT
SUMMARY = "A Python of the build machine with what builds Python packages"
DESCRIPTION = "Stands in for openembedded-core's python3-native and the build tools of Python packages. Its \
version is another than the target's, so the byte code that it writes is of no use on a device."

inherit standin-native python3-dir

PROVIDES += "python3-build-native python3-hatchling-native python3-installer-native"

# Set by the kas file of check-layer --execute.
STANDIN_PYTHON ?= "/usr/bin/python3"

do_install() {
    # openembedded-core's variable _PYTHON_SYSCONFIGDATA_NAME names data that this Python does not have.
    install -d ${D}${bindir}/python3-native ${D}${PYTHON_SITEPACKAGES_DIR}
    cat > ${D}${bindir}/python3-native/python3 <<'END'
#!/bin/sh
exec env -u _PYTHON_SYSCONFIGDATA_NAME ${STANDIN_PYTHON} "$@"
END
    cat > ${D}${bindir}/python3-native/pyproject-build <<'END'
#!/bin/sh
exec env -u _PYTHON_SYSCONFIGDATA_NAME ${STANDIN_PYTHON} -m build "$@"
END
    # The module installer puts files where this Python would look for them; the target's looks
    # elsewhere. openembedded-core adds --interpreter to it, for scripts, of which there are none.
    cat > ${D}${bindir}/python3-native/nativepython3 <<'END'
#!/bin/sh
top= value=
for option in "$@"; do
    shift
    case "$option" in
        --interpreter) value=next; continue ;;
        --destdir=*) top="${option#--destdir=}/usr/lib" ;;
    esac
    [ -n "$value" ] || set -- "$@" "$option"
    value=
done
env -u _PYTHON_SYSCONFIGDATA_NAME ${STANDIN_PYTHON} "$@" || exit $?
[ -z "$top" ] || [ -d "$top/${PYTHON_DIR}" ] || mv "$top"/python3.* "$top/${PYTHON_DIR}"
END
    chmod 0755 ${D}${bindir}/python3-native/*
    # hatchling's class tidies this directory.
    install -d ${D}${PYTHON_SITEPACKAGES_DIR}/standin
    touch ${D}${PYTHON_SITEPACKAGES_DIR}/standin/__init__.py
}
