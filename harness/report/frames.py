# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame map: every frame of RAM, low addresses first, by what it is used for (2.5, 6.2)."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.report.frame_use import USES, frame_use, shares
from harness.report.picture import NARROW, Picture, Table, counted, size_text
from kernel_model.arch_i386.page import PAGE_SHIFT

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Cell, Sheet

_CELLS: Final = 4096
_LABELS: Final = 8
"""Rows that are told where they begin."""


def gather(machine: "Machine") -> dict[str, Any]:
    """Frames by use, in all and for each cell of the map."""
    uses = frame_use(machine)
    per_cell = 1
    while per_cell * _CELLS < len(uses):
        per_cell *= 2
    cells = shares(uses, -(-len(uses) // per_cell), per_cell)
    total = np.bincount(uses, minlength=len(USES)).tolist()
    return {
        "frames": len(uses),
        "uses": {name: count for name, count in zip(USES, total, strict=True) if count},
        "names": list(USES),
        "frames_per_cell": per_cell,
        "cells": cells.tolist(),
    }


def caption(data: dict[str, Any]) -> str:
    uses, taken = data["uses"], data["frames"] - data["uses"].get("free", 0)
    most = sorted((name for name in uses if name not in ("free", "no RAM")), key=uses.get)[::-1]
    listed = ", ".join(f"{name} {uses[name]:,}" for name in most[:3])
    return (
        f"Low addresses first; a cell stands for {counted(data['frames_per_cell'], 'frame')}, "
        f"filled by what they are used for. {taken:,} of {data['frames']:,} frames are taken, most "
        f"of them for: {listed}."
    )


def table(data: dict[str, Any]) -> Table:
    rows = [
        (name, f"{count:,}", size_text(count << PAGE_SHIFT), f"{count / data['frames']:.2%}")
        for name, count in data["uses"].items()
    ]
    return Table(("used for", "frames", "bytes", "of all"), rows)


def draw(data: dict[str, Any], width: int) -> "Sheet":
    from harness.report.sheet import Sheet, legend_height

    narrow = width <= NARROW
    columns = 64 if narrow else 128
    rows = -(-len(data["cells"]) // columns)
    left = 58.0 if narrow else 78.0
    side = (width - left - 4) / columns
    high = side if narrow else side * 1.15
    size = 11.0 if narrow else 12.5
    entries = [(colour, name) for name, colour in USES.items() if name in data["uses"]]
    sheet = Sheet(width, rows * high + 36 + legend_height(entries, width - 8, size), size=size)
    top = 8.0
    _grid(sheet, data, columns, (left, top, side, high))
    row_bytes = columns * data["frames_per_cell"] << PAGE_SHIFT
    every = max(-(-rows // _LABELS), 1)
    for row in range(0, rows, every):
        address = size_text(row * row_bytes) if row else "0"
        sheet.text(
            left - 8, top + (row + 0.5) * high, address, colour="muted", align="right", scale=0.88
        )
    sheet.legend(4, top + rows * high + 24, entries, width - 8)
    return sheet


def _grid(sheet: "Sheet", data: dict[str, Any], columns: int, place: "Cell") -> None:
    left, top, side, high = place
    colours, cells = list(USES.values()), data["cells"]
    full_rows, rest = divmod(len(cells), columns)
    ground = [(left, top, columns * side, full_rows * high)] if full_rows else []
    if rest:
        ground.append((left, top + full_rows * high, rest * side, high))
    sheet.cells(ground, USES["free"], "line")
    for use in range(1, len(colours)):
        sheet.cells(_filled(cells, use, columns, place), colours[use])
    between = [left + column * side for column in range(8, columns, 8)]
    sheet.rules(between, top, top + full_rows * high, "page")


def _filled(cells: list[list[int]], use: int, columns: int, place: "Cell") -> "list[Cell]":
    """The rectangles of one use: neighbours of equal height are one."""
    left, top, side, high = place
    found: list[Cell] = []
    for number, cell in enumerate(cells):
        if not cell[use]:
            continue
        row, column = divmod(number, columns)
        share = high / sum(cell)
        y = top + (row + 1) * high - sum(cell[1 : use + 1]) * share
        x, tall = left + column * side, cell[use] * share
        if found and column and found[-1][1] == y and found[-1][3] == tall:
            before = found[-1]
            if abs(before[0] + before[2] - x) < 0.01:
                found[-1] = (before[0], y, before[2] + side, tall)
                continue
        found.append((x, y, side, tall))
    return found


PICTURE: Final = Picture(
    name="frames",
    title="The frame map",
    short="Frames",
    sections="2.5 and 6.2",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
