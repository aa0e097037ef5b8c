# SPDX-License-Identifier: GPL-2.0-or-later
"""The census of frames, which the shipped suites use, too."""

from harness.monitors.buddies import check_machine

__all__ = ["check_machine"]
