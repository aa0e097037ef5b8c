# SPDX-License-Identifier: GPL-2.0-or-later
"""The buddy allocator's free blocks, fragmentation, the zones' watermarks (6.1 to 6.5, 2.2.1).

What is shown of a zone is what ``/proc/buddyinfo`` and ``zoneinfo`` say
(:mod:`kernel_model.proc`).
"""

import math
from typing import TYPE_CHECKING, Any, Final

from harness.report.picture import NARROW, Picture, Place, Table, counted
from harness.report.zones import ZONE_COLOURS
from kernel_model.proc import zoneinfo

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Sheet

_MAX_ZONES: Final = 6
_MARKS: Final = ("min", "low", "high")


def gather(machine: "Machine") -> list[dict[str, Any]]:
    """For each zone: free blocks by order, the unusable index, free frames and watermarks."""
    kept = ("node", "zone", "free_blocks", "unusable_index", "free", "spanned", *_MARKS)
    return [
        {name: facts[name] for name in kept} | {"cpu_lists": _cpu_lists(facts)}
        for facts in zoneinfo.data(machine.kernel)
    ]


def _cpu_lists(facts: dict[str, Any]) -> int | None:
    """Frames that CPUs keep for themselves, in a release that lets them (2.8)."""
    sets = facts.get("pagesets")
    return None if sets is None else sum(kept["count"] for one in sets for kept in one.values())


def caption(data: list[dict[str, Any]]) -> str:
    worst = max(data, key=lambda zone: zone["unusable_index"][-1])
    share, order = worst["unusable_index"][-1], len(worst["unusable_index"]) - 1
    low = [zone["zone"] for zone in data if zone["free"] < zone["low"]]
    pressed = f" {', '.join(low)} is below pages_low: kswapd is wanted." if low else ""
    return (
        "The taller the bars on the right, the larger the pieces in which memory is free; the "
        "curve is the share of free frames in blocks too small for an order. Most fragmented is "
        f"{worst['zone']}: {share:.1%} of its free frames cannot serve order {order}.{pressed}"
    )


def table(data: list[dict[str, Any]]) -> Table:
    orders = range(len(data[0]["free_blocks"]))
    rows = []
    for zone in data:
        name = f"node {zone['node']} {zone['zone']}"
        rows.append((f"{name}, free blocks", *(f"{count:,}" for count in zone["free_blocks"])))
        rows.append((f"{name}, unusable index", *(f"{x:.3f}" for x in zone["unusable_index"])))
    return Table(("zone", *(f"order {order}" for order in orders)), rows)


def draw(data: list[dict[str, Any]], width: int) -> "Sheet":
    from harness.report.sheet import Sheet

    narrow = width <= NARROW
    zones = data[:_MAX_ZONES]
    columns = 1 if narrow else min(len(zones), 3)
    rows = -(-len(zones) // columns)
    each, high = width / columns, 358.0 if narrow else 352.0
    high += 17 if any(zone["cpu_lists"] is not None for zone in zones) else 0
    sheet = Sheet(width, rows * high + 6, size=11 if narrow else 12.5)
    for number, zone in enumerate(zones):
        row, column = divmod(number, columns)
        _zone(sheet, zone, column * each + 4, row * high + 4, each - (8 if narrow else 24))
    return sheet


def _zone(sheet: "Sheet", zone: dict[str, Any], x: float, y: float, width: float) -> None:
    colour = ZONE_COLOURS.get(zone["zone"], "grey")
    sheet.cells([(x, y + 5, 10, 10)], colour)
    sheet.text(x + 17, y + 10, f"Node {zone['node']}, {zone['zone']}", bold=True)
    sheet.text(
        x + width,
        y + 10,
        f"{zone['free']:,} of {zone['spanned']:,} free",
        colour="muted",
        scale=0.9,
        align="right",
    )
    _blocks(sheet, zone, colour, Place(x + 40, y + 44, width - 42, 128))
    _unusable(sheet, zone, Place(x + 40, y + 198, width - 42, 46))
    _watermarks(sheet, zone, x, y + 300, width)


def _blocks(sheet: "Sheet", zone: dict[str, Any], colour: str, place: Place) -> None:
    from harness.report.palette import light

    blocks = zone["free_blocks"]
    axes = sheet.chart(*place)
    heights = [math.log2(count + 1) for count in blocks]
    axes.bar(range(len(blocks)), heights, width=0.72, color=light(colour))
    top = max(*heights, 1.0)
    axes.set_ylim(0, top * 1.12)
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    axes.set_xticks(range(len(blocks)))
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.set_yticks([])
    sheet.text(place.x - 38, place.y - 10, "free blocks", colour="muted", scale=0.9)
    for order, (count, height) in enumerate(zip(blocks, heights, strict=True)):
        at = place.x + (order + 0.6) / (len(blocks) + 0.2) * place.width
        level = place.y + place.height * (1 - height / (top * 1.12))
        sheet.text(at, level - 8, f"{count:,}", align="center", scale=0.84)


def _unusable(sheet: "Sheet", zone: dict[str, Any], place: Place) -> None:
    from harness.report.palette import light

    index = zone["unusable_index"]
    axes = sheet.chart(*place)
    axes.plot(range(len(index)), index, color=light("red"), linewidth=2, marker="o", markersize=4)
    axes.fill_between(range(len(index)), index, color=light("red-tint"))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_yticklabels(["0", "50%", "100%"])
    axes.set_xlim(-0.6, len(index) - 0.4)
    axes.set_xticks(range(len(index)))
    sheet.text(place.x - 38, place.y - 12, "unusable for the order", colour="muted", scale=0.9)
    middle = place.x + place.width / 2
    sheet.text(middle, place.bottom + 30, "order", colour="muted", scale=0.9, align="center")


def _watermarks(sheet: "Sheet", zone: dict[str, Any], x: float, y: float, width: float) -> None:
    """A gauge of free frames with the marks at which the kernel acts, logarithmic."""
    longest = math.log2(max(zone["spanned"], 2))

    def at(frames: int) -> float:
        return x + width * math.log2(max(frames, 1)) / longest

    free = zone["free"]
    state = "red" if free < zone["min"] else "orange" if free < zone["low"] else "green"
    sheet.box(x, y, width, 10, radius=5)
    if free:
        sheet.box(x, y, max(at(free) - x, 10), 10, fill=state, edge="", radius=5)
    for name in _MARKS:
        sheet.line((at(zone[name]), y - 3), (at(zone[name]), y + 13), colour="ink", width=1.6)
    words = ", ".join(f"{name} {zone[name]:,}" for name in _MARKS)
    sheet.text(x, y + 23, f"pages_{words}", colour="muted", scale=0.88)
    if zone["cpu_lists"] is not None:
        kept = f"and {counted(zone['cpu_lists'], 'free frame')} on lists of the CPUs"
        sheet.text(x, y + 40, kept, colour="muted", scale=0.88)
    sheet.text(x + width, y + 23, "log scale", colour="muted", scale=0.88, align="right")


PICTURE: Final = Picture(
    name="buddy",
    title="Free areas and watermarks",
    short="Free areas",
    sections="6.1 to 6.5 and 2.2.1",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
