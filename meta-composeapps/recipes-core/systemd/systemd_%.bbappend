# SPDX-License-Identifier: MIT
# Nothing about systemd changes unless the distribution asks for compose apps.
require ${@bb.utils.contains('DISTRO_FEATURES', 'composeapps', 'systemd-composeapps.inc', '', d)}
