# SPDX-License-Identifier: MIT
"""The pages of meta-composeapps/docs/reference, made from the code that they are about."""
