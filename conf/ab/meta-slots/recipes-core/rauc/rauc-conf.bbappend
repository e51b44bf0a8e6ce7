# SPDX-License-Identifier: MIT
# system.conf is the board's; the keyring beside it, ca.cert.pem, is the product's.
FILESEXTRAPATHS:prepend := "${THISDIR}/rauc-conf:"
