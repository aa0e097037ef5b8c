# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/zoneinfo: the fields of each zone, its free blocks and its fragmentation.

Linux 2.4 has no such file; the title and the first lines are like those of later kernels. The
unusable index says for each order which share of the free frames lies in blocks that are too
small for it; the internal slack is that of :class:`~kernel_model.proc.fragmentation.Slack`.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_flags import PG_RESERVED
from kernel_model.proc.fragmentation import Slack, internal_slack, unusable_index
from kernel_model.proc.zones import node_zones
from kernel_model.structs.mmzone import MAX_ORDER


def _reserved(kernel: Kernel, zone: Zone) -> int:
    """Frames with PG_reserved, holes included."""
    memmap = kernel.allocator.memmap
    flags = memmap.rows(int(zone.view.zone_mem_map), zone.size)[:, memmap.flags_word]
    return int(np.count_nonzero(flags >> PG_RESERVED & 1))


def _facts(kernel: Kernel, zone: Zone, slack: Slack) -> dict[str, Any]:
    view, blocks = zone.view, zone.free_counts()
    return {
        "free": zone.free_pages,
        "min": int(view.pages_min),
        "low": int(view.pages_low),
        "high": int(view.pages_high),
        "spanned": zone.size,
        "reserved": _reserved(kernel, zone),
        "need_balance": int(view.need_balance),
        "start_pfn": zone.start_pfn,
        "mem_map": int(view.zone_mem_map),
        "wait_table": int(view.wait_table),
        "wait_table_size": int(view.wait_table_size),
        "wait_table_shift": int(view.wait_table_shift),
        "free_blocks": blocks,
        "unusable_index": [unusable_index(blocks, order) for order in range(MAX_ORDER)],
        "slack": asdict(slack),
    }


def data(kernel: Kernel) -> list[dict[str, Any]]:
    """For each zone its fields; pages, PFNs, kernel virtual addresses, and bytes of slack."""
    lost = internal_slack(kernel)
    return [
        place.names | _facts(kernel, place.zone, lost.get(place.zone.number, Slack()))
        for place in node_zones(kernel)
    ]


def text(kernel: Kernel) -> str:
    """A paragraph for each zone."""
    titles = [place.title for place in node_zones(kernel)]
    pairs = zip(titles, data(kernel), strict=True)
    return "".join(f"{title}\n{_paragraph(facts)}" for title, facts in pairs)


def _paragraph(facts: dict[str, Any]) -> str:
    pages = ("free", "min", "low", "high", "spanned", "reserved")
    blocks = facts["free_blocks"]
    slack = facts["slack"]
    parts = ", ".join(f"{name} {lost}" for name, lost in slack.items())
    lines = [
        *(f"  {'' if n else 'pages':<5} {name:<8} {facts[name]}" for n, name in enumerate(pages)),
        f"  need_balance: {facts['need_balance']}",
        f"  start_pfn:    {facts['start_pfn']}",
        f"  mem_map:      {facts['mem_map']:#010x}",
        f"  wait_table:   {facts['wait_table']:#010x}, {facts['wait_table_size']} queues, "
        f"shift {facts['wait_table_shift']}",
        _row("order", [str(order) for order in range(len(blocks))]),
        _row("free blocks", [str(count) for count in blocks]),
        _row("unusable index", [f"{index:.3f}" for index in facts["unusable_index"]]),
        f"  internal slack {sum(slack.values())} bytes: {parts}",
    ]
    return "\n".join(lines) + "\n"


def _row(title: str, cells: list[str]) -> str:
    return f"  {title:<14}" + "".join(f" {cell:>6}" for cell in cells)
