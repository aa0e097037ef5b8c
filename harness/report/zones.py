# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes, zones and ``mem_map``: the book's figure 2.1, of this machine (sections 2.1 to 2.6)."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.report.frame_use import USES, Uses, frame_use, shares
from harness.report.picture import NARROW, Picture, Place, Table, counted, size_text
from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.proc import zoneinfo
from kernel_model.proc.zones import node_zones

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Sheet

_STRIP: Final = 64
"""Cells of the row that stands for a zone's ``struct page``s."""
_MAX_NODES: Final = 4
ZONE_COLOURS: Final = {"DMA": "orange", "Normal": "blue", "HighMem": "green"}


def gather(machine: "Machine") -> dict[str, Any]:
    """Nodes with their zones: where their structures lie, and what their frames are used for."""
    kernel, uses = machine.kernel, frame_use(machine)
    nodes: dict[int, dict[str, Any]] = {}
    for place, facts in zip(node_zones(kernel), zoneinfo.data(kernel), strict=True):
        pgdat = int(place.zone.view.zone_pgdat)
        node = nodes.setdefault(place.node, {"node": place.node, "pgdat": pgdat, "zones": []})
        start = place.zone.start_pfn
        node["zones"].append(
            {
                "zone": place.zone.name,
                "address": place.zone.vaddr,
                "start_pfn": start,
                "frames": place.zone.size,
                "mem_map": facts["mem_map"],
            }
            | _uses(uses[start : start + place.zone.size])
        )
    return {"page_bytes": kernel.allocator.memmap.page_bytes, "nodes": list(nodes.values())}


def _uses(uses: Uses) -> dict[str, Any]:
    """The frames by use, in all and along the zone."""
    total = dict(zip(USES, np.bincount(uses, minlength=len(USES)).tolist(), strict=True))
    per_cell = max(-(-len(uses) // _STRIP), 1)
    strip = shares(uses, -(-len(uses) // per_cell), per_cell)
    return {
        "free": total["free"],
        "uses": {name: count for name, count in total.items() if count},
        "frames_per_cell": per_cell,
        "strip": strip.tolist(),
    }


def caption(data: dict[str, Any]) -> str:
    zones = [zone for node in data["nodes"] for zone in node["zones"]]
    frames, free = (sum(zone[key] for zone in zones) for key in ("frames", "free"))
    return (
        f"Each node's pg_data_t holds its zones, and each zone points to its part of mem_map, one "
        f"struct page of {data['page_bytes']} bytes a frame: {frames:,} frames in "
        f"{counted(len(zones), 'zone')}, of which {free:,} are free."
    )


def table(data: dict[str, Any]) -> Table:
    rows = [
        (
            f"{node['node']}",
            zone["zone"],
            f"{zone['start_pfn']:#x}",
            f"{zone['mem_map']:#010x}",
            f"{zone['frames']:,}",
            f"{zone['free']:,}",
            ", ".join(f"{name} {count:,}" for name, count in zone["uses"].items()),
        )
        for node in data["nodes"]
        for zone in node["zones"]
    ]
    columns = ("node", "zone", "first PFN", "zone_mem_map", "frames", "free", "used for")
    return Table(columns, rows, numbers=2)


def draw(data: dict[str, Any], width: int) -> "Sheet":
    from harness.report.sheet import Sheet, legend_height

    nodes = data["nodes"][:_MAX_NODES]
    narrow = width <= NARROW
    used = {name for node in nodes for zone in node["zones"] for name in zone["uses"]}
    legend = [(colour, name) for name, colour in USES.items() if name in used]
    step = 128 if narrow else 96
    heights = [len(node["zones"]) * step + (64 if narrow else 12) for node in nodes]
    hidden = len(data["nodes"]) - len(nodes)
    size = 11.0 if narrow else 12.5
    foot = legend_height(legend, width - 8, size) + 28 + (24 if hidden else 0)
    sheet = Sheet(width, sum(heights) + foot, size=size)
    y = 4.0
    for node, height in zip(nodes, heights, strict=True):
        (_draw_node_narrow if narrow else _draw_node)(sheet, node, y, step)
        y += height
    if hidden:
        sheet.text(4, y + 8, f"and {counted(hidden, 'node')} more, see the table", colour="muted")
        y += 24
    sheet.legend(4, y + 18, legend, width - 8)
    return sheet


def _draw_node(sheet: "Sheet", node: dict[str, Any], top: float, step: float) -> None:
    zones = node["zones"]
    middle = top + step * len(zones) / 2 - 8
    sheet.box(2, middle - 34, 150, 68, fill="grey-tint", edge="grey", thickness=1.4)
    sheet.text(16, middle - 16, "pg_data_t", bold=True)
    sheet.text(16, middle + 2, f"node {node['node']}", colour="muted")
    sheet.text(16, middle + 19, f"{node['pgdat']:#010x}", mono=True, scale=0.86)
    for row, zone in enumerate(zones):
        y = top + row * step + step / 2 - 8
        sheet.line((152, middle), (176, middle), (176, y), (190, y), colour="muted", width=1.2)
        sheet.arrow((184, y), (200, y))
        colour = ZONE_COLOURS.get(zone["zone"], "grey")
        sheet.box(202, y - 34, 196, 68, fill=f"{colour}-tint", edge=colour, thickness=1.4)
        sheet.text(216, y - 16, f"ZONE_{zone['zone'].upper()}", bold=True)
        sheet.text(216, y + 2, _extent(zone), colour="muted")
        sheet.text(216, y + 19, f"{zone['address']:#010x}", mono=True, scale=0.86)
        sheet.arrow((398, y), (448, y))
        sheet.text(454, y - 25, f"zone_mem_map {zone['mem_map']:#010x}", mono=True, scale=0.86)
        _strip(sheet, zone, Place(454, y - 13, sheet.width - 458, 30))
        _ends(sheet, zone, 454, y + 28, sheet.width - 458)


def _draw_node_narrow(sheet: "Sheet", node: dict[str, Any], top: float, step: float) -> None:
    sheet.box(2, top, sheet.width - 4, 44, fill="grey-tint", edge="grey", thickness=1.4)
    sheet.text(12, top + 14, f"pg_data_t, node {node['node']}", bold=True)
    sheet.text(12, top + 31, f"{node['pgdat']:#010x}", mono=True, scale=0.9)
    last = top + 58 + (len(node["zones"]) - 1) * step + 24
    sheet.line((10, top + 44), (10, last), colour="muted", width=1.2)
    for row, zone in enumerate(node["zones"]):
        y = top + 58 + row * step
        colour = ZONE_COLOURS.get(zone["zone"], "grey")
        sheet.arrow((10, y + 24), (24, y + 24))
        sheet.box(26, y, sheet.width - 28, 48, fill=f"{colour}-tint", edge=colour, thickness=1.4)
        sheet.text(36, y + 15, f"ZONE_{zone['zone'].upper()}", bold=True)
        sheet.text(sheet.width - 12, y + 15, _extent(zone), colour="muted", align="right")
        sheet.text(36, y + 34, f"zone_mem_map {zone['mem_map']:#010x}", mono=True, scale=0.9)
        _strip(sheet, zone, Place(26, y + 58, sheet.width - 28, 26))
        _ends(sheet, zone, 26, y + 95, sheet.width - 28)


def _extent(zone: dict[str, Any]) -> str:
    return f"{counted(zone['frames'], 'frame')}, {size_text(zone['frames'] << PAGE_SHIFT)}"


def _strip(sheet: "Sheet", zone: dict[str, Any], place: Place) -> None:
    """The zone's part of ``mem_map``: each cell filled by the shares of the uses."""
    cells, colours = zone["strip"], list(USES.values())
    each = place.width / zone["frames"] * zone["frames_per_cell"]
    sheet.cells([place], USES["free"], "line")
    for use in range(1, len(colours)):
        filled = []
        for number, cell in enumerate(cells):
            if cell[use]:
                share, x = place.height / sum(cell), place.x + number * each
                top = place.bottom - sum(cell[1 : use + 1]) * share
                filled.append((x, top, min(each, place.right - x), cell[use] * share))
        sheet.cells(filled, colours[use])
    between = [place.x + number * each for number in range(1, len(cells))]
    sheet.rules(between, place.y, place.bottom, "page")


def _ends(sheet: "Sheet", zone: dict[str, Any], x: float, y: float, width: float) -> None:
    last = zone["start_pfn"] + zone["frames"] - 1
    sheet.text(x, y, f"PFN {zone['start_pfn']:#x}", colour="muted", scale=0.88)
    sheet.text(x + width, y, f"{last:#x}", colour="muted", scale=0.88, align="right")
    words = f"a cell: {counted(zone['frames_per_cell'], 'frame')}"
    sheet.text(x + width / 2, y, words, colour="muted", scale=0.88, align="center")


PICTURE: Final = Picture(
    name="zones",
    title="Nodes, zones and frames",
    short="Zones",
    sections="2.1 to 2.6",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
