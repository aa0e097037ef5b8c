# SPDX-License-Identifier: GPL-2.0-or-later
"""The linear address space: the kernel's ranges, and the VMAs of the current process (4.1 to 4.4).

The ranges come from the kernel's limits and records, the VMAs from ``/proc/PID/maps``; what is
mapped in each is counted in the page tables that CR3 holds, by the reference walk.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.mappings import PAGES
from harness.readings.spec import SpecView, mmu_features
from harness.report.picture import NARROW, Picture, Place, Table, counted, size_text
from kernel_model.arch_i386.fixmap import fixed_addresses, last_pkmap
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
        pages = last_pkmap(config.pae)
        bounds.append(("kmap", fixed.pkmap_base, fixed.pkmap_base + pages * PAGE_SIZE))
    # Slots that only the boot uses may reach into the vmalloc range, which has the place later.
    lowest = max(fixed.lowest, vmalloc_end)
    bounds.append(("fixmap", lowest, fixed.to_virt(0) + PAGE_SIZE))
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
    return _draw_narrow(data, width) if width <= NARROW else _draw_wide(data, width)


def _draw_wide(data: dict[str, Any], width: int) -> "Sheet":
    """Three columns, the second a part of the first."""
    from harness.report.sheet import Sheet

    vmas = data["vmas"][-_MAX_VMAS:]
    tall = max(len(vmas) * 40.0 + 20, 380.0)
    sheet = Sheet(width, tall + 70, size=12.5)
    top = 28 + tall * (1 - PAGE_OFFSET / _SPACE)
    sheet.polygon([(234, 28), (300, 28), (300, tall + 28), (234, top)], "panel")
    _whole(sheet, data, Place(4, 28, 230, tall))
    _kernel(sheet, data, Place(300, 28, 330, tall))
    if vmas:
        _user(sheet, data, vmas, Place(690, 28, 346, tall))
        sheet.legend(690, tall + 54, _RIGHTS, width - 690)
    return sheet


def _draw_narrow(data: dict[str, Any], width: int) -> "Sheet":
    """The same three, one below the other."""
    from harness.report.sheet import Sheet

    vmas = data["vmas"][-_MAX_VMAS:]
    whole = Place(4, 26, width - 8, 300)
    kernel = Place(4, whole.bottom + 34, width - 8, len(data["ranges"]) * 62.0 + 30)
    user = Place(4, kernel.bottom + 30, width - 8, len(vmas) * 42.5 + 40)
    sheet = Sheet(width, (user.bottom if vmas else kernel.bottom) + 50, size=11)
    _whole(sheet, data, whole)
    _kernel(sheet, data, kernel)
    if vmas:
        _user(sheet, data, vmas, user)
        sheet.legend(4, user.bottom + 22, _RIGHTS, width - 8)
    return sheet


def _address(sheet: "Sheet", x: float, y: float, address: int) -> None:
    sheet.text(x - 8, y, f"{address:#010x}", mono=True, scale=0.82, align="right")


def _whole(sheet: "Sheet", data: dict[str, Any], place: Place) -> None:
    """All 4 GiB, to scale."""
    sheet.text(place.x, place.y - 14, "4 GiB, to scale", bold=True)
    left, wide = place.x + 78, place.width - 78
    sheet.box(left, place.y, wide, place.height, radius=3)

    def level(address: int) -> float:
        return place.y + place.height * (1 - address / _SPACE)

    for row in data["ranges"]:
        top, tall = level(row["end"]), level(row["start"]) - level(row["end"])
        if tall >= 1:
            colour = RANGES[row["range"]]
            sheet.cells([(left, top, wide, tall)], f"{colour}-tint", colour)
        if tall > 16:
            sheet.text(left + wide / 2, top + tall / 2, row["range"], align="center")
    for vma in data["vmas"]:
        tall = max(level(vma["start"]) - level(vma["end"]), 2.0)
        sheet.cells([(left, level(vma["end"]), wide, tall)], "blue")
    for address in (0, 0x40000000, 0x80000000, PAGE_OFFSET):
        _address(sheet, left, level(address) - 6, address)
        sheet.line((left - 5, level(address)), (left, level(address)), colour="muted")


def _kernel(sheet: "Sheet", data: dict[str, Any], place: Place) -> None:
    """The kernel's ranges, highest first, and the gaps between them; not to scale."""
    sheet.text(place.x, place.y - 14, "The kernel's part", bold=True)
    ranges = [row for row in data["ranges"] if row["range"] != "user space"][::-1]
    left, wide, each = place.x + 92, place.width - 92, place.height / len(ranges)
    for number, row in enumerate(ranges):
        box = Place(left, place.y + number * each, wide, each - 22)
        _range(sheet, row, box)
        below = ranges[number + 1]["end"] if number + 1 < len(ranges) else row["start"]
        if row["start"] - below >= PAGE_SIZE:
            gap = f"gap of {size_text(row['start'] - below)}"
            x, y = left + wide / 2, box.bottom + 11
            sheet.text(x, y, gap, colour="muted", scale=0.84, align="center")


def _range(sheet: "Sheet", row: dict[str, Any], box: Place) -> None:
    """One range; the bar at its foot is the part that is mapped."""
    size, colour = row["end"] - row["start"], RANGES[row["range"]]
    sheet.box(*box, fill=f"{colour}-tint", edge=colour, thickness=1.3)
    if row["mapped"]:
        share = min(row["mapped"] / size, 1)
        sheet.cells([(box.x + 1, box.bottom - 5, (box.width - 2) * share, 5)], colour)
    middle = box.y + box.height / 2 - 4
    sheet.text(box.x + 12, middle - 8, row["range"], bold=True)
    words = f"{size_text(size)}, {size_text(row['mapped'])} mapped"
    sheet.text(box.x + 12, middle + 9, words, colour="muted", scale=0.88)
    _address(sheet, box.x, box.y + 8, row["end"] - 1)
    _address(sheet, box.x, box.bottom - 6, row["start"])


def _user(sheet: "Sheet", data: dict[str, Any], vmas: list[dict[str, Any]], place: Place) -> None:
    """The VMAs, highest first, with their rights; not to scale."""
    hidden = len(data["vmas"]) - len(vmas)
    more = f", the upper {len(vmas)} of {len(data['vmas'])}" if hidden else ""
    sheet.text(place.x, place.y - 14, f"VMAs of {data['program']}{more}", bold=True)
    left, wide, each = place.x + 92, place.width - 92, place.height / len(vmas)
    for number, vma in enumerate(reversed(vmas)):
        _vma(sheet, vma, Place(left, place.y + number * each, wide, min(each - 8, 46.0)))


def _vma(sheet: "Sheet", vma: dict[str, Any], box: Place) -> None:
    """One VMA, filled as far as it is mapped."""
    writable, executable = "w" in vma["permissions"], "x" in vma["permissions"]
    colour = "purple" if writable and executable else "blue" if writable else "sky"
    size, middle = vma["end"] - vma["start"], box.y + box.height / 2
    sheet.box(*box, fill="panel", edge=colour, thickness=1.3)
    if vma["mapped"]:
        share = min(vma["mapped"] / size, 1.0)
        filled = (box.x + 1, box.y + 1, (box.width - 2) * share, box.height - 2)
        sheet.cells([filled], f"{colour}-tint")
    words = f"{vma['permissions']}  {size_text(size)}"
    sheet.text(box.right - 8, middle, words, colour="muted", scale=0.86, align="right")
    name = vma["path"] or ("anonymous" if vma["end"] < PAGE_OFFSET else "stack")
    room = box.width - 30 - sheet.text_width(words, 0.86)
    sheet.text(box.x + 8, middle, _cut(sheet, name, room))
    _address(sheet, box.x, middle, vma["start"])


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
