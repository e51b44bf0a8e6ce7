# SPDX-License-Identifier: MIT
"""An installed app: its bundle on the disk, its compose project, its images."""
