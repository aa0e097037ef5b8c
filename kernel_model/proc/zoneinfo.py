# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/zoneinfo: the fields of each zone, its free blocks and its fragmentation.

Linux 2.4 and 2.6.11 have no such file; the title and the first lines are like those of later
kernels. What only one of the two has of a zone is in :data:`OWN_FIELDS`. The
unusable index says for each order which share of the free frames lies in blocks that are too
small for it; the internal slack is that of :class:`~kernel_model.proc.fragmentation.Slack`.
"""

from dataclasses import asdict
from typing import Any, Final

import numpy as np

from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import PerCpuPages, Zone26
from kernel_model.mm.mmzone import Zone
from kernel_model.proc.fragmentation import Slack, internal_slack, unusable_index
from kernel_model.proc.zones import node_zones

OWN_FIELDS: Final = {
    "2.4": ("need_balance", "wait_table_shift"),
    "2.6": (
        *("present_pages", "nr_active", "nr_inactive", "pages_scanned", "all_unreclaimable"),
        *("temp_priority", "prev_priority", "wait_table_bits"),
    ),
}
"""Fields of a zone that a release has of its own."""


def _reserved(kernel: Kernel, zone: Zone) -> int:
    """Frames with PG_reserved, holes included."""
    memmap = kernel.allocator.memmap
    flags = memmap.rows(int(zone.view.zone_mem_map), zone.size)[:, memmap.flags_word]
    return int(np.count_nonzero(flags >> kernel.image.constants.page_flags.reserved & 1))


def _facts(kernel: Kernel, zone: Zone, slack: Slack) -> dict[str, Any]:
    view, blocks = zone.view, zone.free_counts()
    return {
        "free": zone.free_pages,
        "min": int(view.pages_min),
        "low": int(view.pages_low),
        "high": int(view.pages_high),
        "spanned": zone.size,
        "reserved": _reserved(kernel, zone),
        **{name: int(getattr(view, name)) for name in OWN_FIELDS[kernel.config.release]},
        "start_pfn": zone.start_pfn,
        "mem_map": int(view.zone_mem_map),
        "wait_table": int(view.wait_table),
        "wait_table_size": int(view.wait_table_size),
        "free_blocks": blocks,
        "unusable_index": [unusable_index(blocks, order) for order in range(len(blocks))],
        "slack": asdict(slack),
        **_reserves(kernel, zone),
    }


def _reserves(kernel: Kernel, zone: Zone) -> dict[str, Any]:
    """What 2.6 keeps back, and what its CPUs keep: nothing in 2.4."""
    if "pageset" not in dict(kernel.image.structs.zone_t.members):
        return {}
    return {
        "protection": [int(pages) for pages in zone.view.lowmem_reserve],
        "pagesets": [
            {kind: _limits(pcp) for kind, pcp in zip(("hot", "cold"), lists, strict=True)}
            for lists in Zone26(kernel.image, zone.vaddr).pagesets
        ],
    }


def _limits(pcp: PerCpuPages) -> dict[str, int]:
    return {"count": pcp.count, "low": pcp.low, "high": pcp.high, "batch": pcp.batch}


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
    own = [name for names in OWN_FIELDS.values() for name in names if name in facts]
    pages = ("free", "min", "low", "high", "spanned", "reserved")
    blocks = facts["free_blocks"]
    slack = facts["slack"]
    parts = ", ".join(f"{name} {lost}" for name, lost in slack.items())
    lines = [
        *(f"  {'' if n else 'pages':<5} {name:<8} {facts[name]}" for n, name in enumerate(pages)),
        *(f"  {name}: {facts[name]}" for name in own if not name.startswith("wait_table")),
        f"  start_pfn:    {facts['start_pfn']}",
        f"  mem_map:      {facts['mem_map']:#010x}",
        f"  wait_table:   {facts['wait_table']:#010x}, {facts['wait_table_size']} queues",
        _row("order", [str(order) for order in range(len(blocks))]),
        _row("free blocks", [str(count) for count in blocks]),
        _row("unusable index", [f"{index:.3f}" for index in facts["unusable_index"]]),
        f"  internal slack {sum(slack.values())} bytes: {parts}",
    ]
    if "protection" in facts:
        lines.append(f"  protection: ({', '.join(map(str, facts['protection']))})")
    for cpu, lists in enumerate(facts.get("pagesets", ())):
        for kind, limits in lists.items():
            said = ", ".join(f"{name} {value}" for name, value in limits.items())
            lines.append(f"  cpu {cpu} {kind:<4} {said}")
    return "\n".join(lines) + "\n"


def _row(title: str, cells: list[str]) -> str:
    return f"  {title:<14}" + "".join(f" {cell:>6}" for cell in cells)
