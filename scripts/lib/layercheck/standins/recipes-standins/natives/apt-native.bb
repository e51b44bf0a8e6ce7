# SPDX-License-Identifier: MIT
SUMMARY = "The build machine's apt and dpkg"
DESCRIPTION = "Stands in for openembedded-core's apt-native and dpkg-native."

inherit standin-native

PROVIDES += "dpkg-native"

do_install() {
    install -d ${D}${bindir} ${D}${sysconfdir}/apt
    for program in apt-cache apt-ftparchive apt-config dpkg-deb dpkg-query dpkg-split; do
        ln -s /usr/bin/$program ${D}${bindir}/$program
    done

    # The configuration below keeps everything of one image beside itself.
    cat > ${D}${bindir}/apt-get <<'END'
#!/bin/sh
beside=$(dirname "$APT_CONFIG")
mkdir -p "$beside/cache/archives/partial" "$beside/log" "$beside/state"
exec /usr/bin/apt-get "$@"
END
    chmod 0755 ${D}${bindir}/apt-get

    # Maintainer scripts get $D and stay outside of the root directory, as openembedded-core's
    # patched dpkg has it; Debian's would enter a root that has no shell yet.
    cat > ${D}${bindir}/dpkg <<'END'
#!/bin/sh
for option in "$@"; do
    case "$option" in --root=*) export D="${option#--root=}" ;; esac
done
exec /usr/bin/dpkg --force-script-chrootless "$@"
END
    chmod 0755 ${D}${bindir}/dpkg

    # The packaging classes replace #ROOTFS# and #APTCONF#, and the line with the architecture.
    cat > ${D}${sysconfdir}/apt/apt.conf.sample <<'END'
Dir "#APTCONF#/";
Dir::State "#APTCONF#/state/";
Dir::State::Lists "#APTCONF#/lists/";
Dir::State::status "#ROOTFS#/var/lib/dpkg/status";
Dir::Cache "#APTCONF#/cache/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc "#APTCONF#/";
Dir::Etc::Preferences "preferences";
Dir::Log "#APTCONF#/log/";
Dir::Bin::methods "/usr/lib/apt/methods/";
Dir::Bin::dpkg "dpkg";
APT {
  Architecture "amd64";
};
APT::Sandbox::User "root";
APT::Install-Recommends "true";
APT::Immediate-Configure "false";
APT::Get::Assume-Yes "true";
Acquire::AllowInsecureRepositories "true";
DPkg::Path "";
DPkg::Options { "--root=#ROOTFS#"; "--admindir=#ROOTFS#/var/lib/dpkg"; "--force-all"; "--no-force-overwrite"; "--no-debsig"; };
END
}
