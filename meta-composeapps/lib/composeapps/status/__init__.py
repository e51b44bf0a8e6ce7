# SPDX-License-Identifier: MIT
"""What runs and what is under way, as one document."""
