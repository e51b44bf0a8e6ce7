# SPDX-License-Identifier: MIT
"""The restorable store, the directories of apps in it, partial downloads, and preloaded and factory sets."""
