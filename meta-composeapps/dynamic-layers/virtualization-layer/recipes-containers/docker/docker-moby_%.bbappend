# SPDX-License-Identifier: MIT
# Nothing about docker-moby changes unless the distribution asks for compose apps.
require ${@bb.utils.contains('DISTRO_FEATURES', 'composeapps', 'docker-moby-composeapps.inc', '', d)}
