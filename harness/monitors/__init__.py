# SPDX-License-Identifier: GPL-2.0-or-later
"""What watches a run and keeps book of it, outside the machine's RAM."""

from harness.monitors.frames import FrameLedger
from harness.monitors.reverse_map import reverse_map_census
from harness.monitors.slabs import slab_census
from harness.monitors.vmlist import vmlist_census

__all__ = ["FrameLedger", "reverse_map_census", "slab_census", "vmlist_census"]
