# SPDX-License-Identifier: MIT
"""How the work of each command grows with what a device and an app have: counted here, timed by scripts/bench scale."""
