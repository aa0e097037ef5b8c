# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes on a kernel with or without a CPU: those that the shipped suites use, too."""

from harness.suites.user_spaces import PRIVATE, UserSpaces

__all__ = ["PRIVATE", "UserSpaces"]
