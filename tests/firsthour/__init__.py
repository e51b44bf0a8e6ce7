# SPDX-License-Identifier: MIT
"""scripts/first-hour: what the page for app developers says, in systems that never had anything of ours."""
