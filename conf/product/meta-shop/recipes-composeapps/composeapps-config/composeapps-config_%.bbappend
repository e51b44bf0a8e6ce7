# SPDX-License-Identifier: MIT
# What the agent of this product is to do otherwise. The file ends in the section [composeapps], to which keys are added
# first; sections of registries follow. A key of [pacman] has to go above that section.
do_install:append() {
    cat >> ${D}${sysconfdir}/composeapps/config.toml << EOF
soak_time = 60
bandwidth = 500000

[registry."registry.example.com"]
mirrors = ["https://mirror.lan"]
EOF
    sed -i -e '/^\[pacman\]/a storage_watermark = 90' ${D}${sysconfdir}/composeapps/config.toml
}
