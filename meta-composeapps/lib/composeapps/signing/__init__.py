# SPDX-License-Identifier: MIT
"""What a factory signs for its devices: keys, metadata in the format of TUF, bundles. Not on devices.

Takes python-tuf and cryptography, which ``pip install 'composeapps[signing]'`` brings.
"""
