# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/buddyinfo: the number of free blocks of each order.

Linux 2.4 has no such file; its ``show_free_areas()`` tells the same to the log. The format is
that of linux-2.6 ``mm/page_alloc.c: frag_show()``, the orders from 0 upwards.
"""

from typing import Any

from kernel_model.kernel import Kernel
from kernel_model.proc.zones import node_zones


def text(kernel: Kernel) -> str:
    """A line for each zone."""
    return "".join(
        f"{place.title} " + "".join(f"{blocks:>6} " for blocks in place.zone.free_counts()) + "\n"
        for place in node_zones(kernel)
    )


def data(kernel: Kernel) -> list[dict[str, Any]]:
    """For each zone its free blocks by order."""
    return [place.names | {"free_blocks": place.zone.free_counts()} for place in node_zones(kernel)]
