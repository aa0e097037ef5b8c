# SPDX-License-Identifier: GPL-2.0-or-later
"""The linear address space: the kernel's ranges, and the VMAs of the current process (4.1 to 4.4).

The ranges come from the kernel's limits and records, the VMAs from ``/proc/PID/maps``; what is
mapped in each is counted in the page tables that CR3 holds, by the reference walk.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.mappings import PAGES
from harness.readings.spec import SpecView, mmu_features
from harness.report.picture import NARROW, Picture, Table, counted, size_text
from kernel_model.arch_i386.fixmap import FIXADDR_TOP, PKMAP_BASE, fixed_addresses, last_pkmap
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.config import Highmem
from kernel_model.proc.pid import maps_data

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Sheet

_SPACE: Final = PAGES << PAGE_SHIFT
_MAX_VMAS: Final = 18
RANGES: Final = {
    "user space": "blue",
    "direct map": "orange",
    "vmalloc": "purple",
    "kmap": "green",
    "fixmap": "red",
}
"""The ranges by name, with their colours."""
_RIGHTS: Final = [("sky", "read-only"), ("blue", "writable"), ("purple", "writable code")]
"""What the colour of a VMA says."""


def gather(machine: "Machine") -> dict[str, Any]:
    """Ranges and VMAs, each with the bytes that are mapped in it."""
    spec = SpecView(machine.ram, machine.cpu.control, mmu_features(machine.cpu))
    mapped = np.concatenate(([0], np.cumsum(spec.pages.pfn >= 0)))

    def with_mapped(row: dict[str, Any]) -> dict[str, Any]:
        first, end = row["start"] >> PAGE_SHIFT, row["end"] >> PAGE_SHIFT
        return row | {"mapped": int(mapped[end] - mapped[first]) << PAGE_SHIFT}

    kernel = machine.kernel
    mm = int(kernel.image.current_task.mm)
    vmas = maps_data(kernel.spaces.areas, mm) if mm else []
    return {
        "cr3": spec.registers.cr3,
        "program": kernel.image.current_name if mm else "",
        "ranges": [with_mapped(row) for row in _ranges(machine)],
        "vmas": [with_mapped(row) for row in vmas],
    }


def _ranges(machine: "Machine") -> list[dict[str, Any]]:
    kernel, config = machine.kernel, machine.kernel.config
    vmalloc_start, vmalloc_end = kernel.vmalloc_range
    fixed = fixed_addresses(config)
    bounds = [
        ("user space", 0, PAGE_OFFSET),
        ("direct map", PAGE_OFFSET, int(kernel.statics.high_memory)),
        ("vmalloc", vmalloc_start, vmalloc_end),
    ]
    if config.highmem is not Highmem.NONE:
        bounds.append(("kmap", PKMAP_BASE, PKMAP_BASE + last_pkmap(config.pae) * PAGE_SIZE))
    bounds.append(("fixmap", fixed.lowest, FIXADDR_TOP + PAGE_SIZE))
    return [{"range": name, "start": start, "end": end} for name, start, end in bounds]


def caption(data: dict[str, Any]) -> str:
    vmas, mapped = data["vmas"], sum(vma["mapped"] for vma in data["vmas"])
    kernel = "The upper quarter is the kernel's, in every address space alike"
    if not vmas:
        return f"{kernel}. No process is running, so nothing lies below {PAGE_OFFSET:#x}."
    size = sum(vma["end"] - vma["start"] for vma in vmas)
    return (
        f"{kernel}. Below it, {data['program']} has {counted(len(vmas), 'VMA')} of "
        f"{size_text(size)}, and its faults have brought in {size_text(mapped)} of them: the "
        f"filled part of each box."
    )


def table(data: dict[str, Any]) -> Table:
    rows = [
        (
            f"{row['start']:#010x}",
            f"{row['end'] - 1:#010x}",
            row.get("range") or row["path"] or "anonymous",
            row.get("permissions", ""),
            size_text(row["end"] - row["start"]),
            size_text(row["mapped"]),
        )
        for row in [*data["ranges"], *data["vmas"]]
    ]
    return Table(("from", "to", "what", "rights", "size", "mapped"), rows, numbers=4)


# -- drawing: columns of boxes, highest address on top ---------------------------------------------


def draw(data: dict[str, Any], width: int) -> "Sheet":
    from harness.report.sheet import Sheet

    narrow = width <= NARROW
    vmas = data["vmas"][-_MAX_VMAS:]
    step = 34.0
    tall = max(len(data["ranges"]) * 2, len(vmas) * 1.3, 8) * step * 0.9 + 20
    heights = (300.0, len(data["ranges"]) * 62.0 + 30, len(vmas) * step * 1.25 + 40)
    if narrow:
        total = sum(heights[: 3 if vmas else 2]) + 90
        sheet = Sheet(width, total + 44, size=11)
        y = 26.0
        _whole(sheet, data, 4, y, width - 8, heights[0])
        y += heights[0] + 34
        _kernel(sheet, data, 4, y, width - 8, heights[1])
        if vmas:
            _user(sheet, data, vmas, 4, y + heights[1] + 30, width - 8, heights[2])
            sheet.legend(4, total + 4, _RIGHTS, width - 8)
        return sheet
    tall = max(tall, 380.0)
    sheet = Sheet(width, tall + 70, size=12.5)
    top = 28 + tall * (1 - PAGE_OFFSET / _SPACE)
    sheet.polygon([(234, 28), (300, 28), (300, tall + 28), (234, top)], "panel")
    _whole(sheet, data, 4, 28, 230, tall)
    _kernel(sheet, data, 300, 28, 330, tall)
    if vmas:
        _user(sheet, data, vmas, 690, 28, 346, tall)
        sheet.legend(690, tall + 54, _RIGHTS, width - 690)
    return sheet


def _whole(
    sheet: "Sheet", data: dict[str, Any], x: float, y: float, width: float, high: float
) -> None:
    """All 4 GiB, to scale."""
    sheet.text(x, y - 14, "4 GiB, to scale", bold=True)
    left, wide = x + 78, width - 78
    sheet.box(left, y, wide, high, radius=3)
    for row in data["ranges"]:
        top = y + high * (1 - row["end"] / _SPACE)
        tall = high * (row["end"] - row["start"]) / _SPACE
        if tall >= 1:
            colour = RANGES[row["range"]]
            sheet.cells([(left, top, wide, tall)], f"{colour}-tint", colour)
        if tall > 16:
            sheet.text(left + wide / 2, top + tall / 2, row["range"], align="center")
    for vma in data["vmas"]:
        top = y + high * (1 - vma["end"] / _SPACE)
        tall = max(high * (vma["end"] - vma["start"]) / _SPACE, 2.0)
        sheet.cells([(left, top, wide, tall)], "blue")
    for address in (0, 0x40000000, 0x80000000, PAGE_OFFSET):
        at = y + high * (1 - address / _SPACE)
        sheet.text(left - 8, at - 6, f"{address:#x}", mono=True, scale=0.82, align="right")
        sheet.line((left - 5, at), (left, at), colour="muted")


def _kernel(
    sheet: "Sheet", data: dict[str, Any], x: float, y: float, width: float, high: float
) -> None:
    """The kernel's ranges and the gaps between them, not to scale."""
    sheet.text(x, y - 14, "The kernel's part", bold=True)
    ranges = [row for row in data["ranges"] if row["range"] != "user space"]
    left, wide = x + 92, width - 92
    each = high / len(ranges)
    for number, row in enumerate(reversed(ranges)):
        top = y + number * each
        size = row["end"] - row["start"]
        colour = RANGES[row["range"]]
        tall = each - 22
        sheet.box(left, top, wide, tall, fill=f"{colour}-tint", edge=colour, thickness=1.3)
        share = row["mapped"] / size
        if share:
            sheet.cells([(left + 1, top + tall - 5, (wide - 2) * min(share, 1), 5)], colour)
        middle = top + tall / 2 - 4
        sheet.text(left + 12, middle - 8, row["range"], bold=True)
        words = f"{size_text(size)}, {size_text(row['mapped'])} mapped"
        sheet.text(left + 12, middle + 9, words, colour="muted", scale=0.88)
        sheet.text(
            left - 8, top + 8, f"{row['end'] - 1:#010x}", mono=True, scale=0.82, align="right"
        )
        sheet.text(
            left - 8, top + tall - 6, f"{row['start']:#010x}", mono=True, scale=0.82, align="right"
        )
        below = ranges[len(ranges) - number - 2]["end"] if number + 1 < len(ranges) else PAGE_OFFSET
        if row["start"] - below >= PAGE_SIZE and number + 1 < len(ranges):
            gap = f"gap of {size_text(row['start'] - below)}"
            sheet.text(
                left + wide / 2, top + each - 11, gap, colour="muted", scale=0.84, align="center"
            )


def _user(
    sheet: "Sheet",
    data: dict[str, Any],
    vmas: list[dict[str, Any]],
    x: float,
    y: float,
    width: float,
    high: float,
) -> None:
    """The VMAs, highest first, with their rights; not to scale."""
    hidden = len(data["vmas"]) - len(vmas)
    more = f", the upper {len(vmas)} of {len(data['vmas'])}" if hidden else ""
    sheet.text(x, y - 14, f"VMAs of {data['program']}{more}", bold=True)
    left, wide = x + 92, width - 92
    each = high / len(vmas)
    for number, vma in enumerate(reversed(vmas)):
        top, tall = y + number * each, min(each - 8, 46.0)
        writable, executable = "w" in vma["permissions"], "x" in vma["permissions"]
        colour = "purple" if writable and executable else "blue" if writable else "sky"
        sheet.box(left, top, wide, tall, fill="panel", edge=colour, thickness=1.3)
        size = vma["end"] - vma["start"]
        share = min(vma["mapped"] / size, 1.0)
        if share:
            sheet.cells([(left + 1, top + 1, (wide - 2) * share, tall - 2)], f"{colour}-tint")
        name = vma["path"] or ("anonymous" if vma["end"] < PAGE_OFFSET else "stack")
        words = f"{vma['permissions']}  {size_text(size)}"
        room = wide - 30 - sheet.text_width(words, 0.86)
        sheet.text(left + 8, top + tall / 2, _cut(sheet, name, room))
        sheet.text(
            left + wide - 8, top + tall / 2, words, colour="muted", scale=0.86, align="right"
        )
        sheet.text(
            left - 8, top + tall / 2, f"{vma['start']:#010x}", mono=True, scale=0.82, align="right"
        )


def _cut(sheet: "Sheet", name: str, room: float) -> str:
    """The end of a path that is too long says more than its beginning."""
    if sheet.text_width(name) <= room:
        return name
    while len(name) > 1 and sheet.text_width(f"...{name}") > room:
        name = name[1:]
    return f"...{name}"


PICTURE: Final = Picture(
    name="address_space",
    title="The linear address space",
    short="Address space",
    sections="4.1 to 4.4",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
