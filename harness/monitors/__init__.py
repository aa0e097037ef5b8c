# SPDX-License-Identifier: GPL-2.0-or-later
"""What watches a run and keeps book of it, outside the machine's RAM."""

from harness.monitors.frames import FrameLedger

__all__ = ["FrameLedger"]
