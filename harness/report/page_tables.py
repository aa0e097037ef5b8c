# SPDX-License-Identifier: GPL-2.0-or-later
"""The page-table tree that CR3 holds: directory entries, tables, large pages, runs (3.1 to 3.8)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from harness.mappings import PAGE_SHIFT, rights_text
from harness.paging_modes import paging_mode
from harness.readings.spec import mmu_features
from harness.report.picture import NARROW, Picture, Place, Table, counted, size_text
from harness.report.table_walk import Group, Leaves, flags_text, walk_tables
from kernel_model.arch_i386.page import PAGE_OFFSET

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Sheet

_SHOWN: Final = 16
"""Groups that are drawn; the text has all."""
_LINES: Final = 400
"""Lines of text that go into the page."""
_PAGES_DRAWN: Final = 64
"""Large pages, or full tables, that are drawn one by one."""
_COLOURS: Final = {"table": "blue", "large": "orange", "broken": "red"}


def gather(machine: "Machine") -> dict[str, Any]:
    """Groups of directory entries, mapped ranges, and the tree as a monitor prints it."""
    registers = machine.cpu.control
    mode = paging_mode(registers, mmu_features(machine.cpu))
    if mode is None:
        return {"mode": "paging off", "cr3": registers.cr3, "groups": [], "ranges": [], "lines": []}
    groups = walk_tables(machine.ram, mode, registers)
    return {
        "mode": mode.name,
        "cr3": registers.cr3,
        "groups": [_group(group) for group in groups],
        "ranges": _ranges(leaf for group in groups for leaf in group.leaves),
        "lines": [line for group in groups for line in _lines(group)],
    }


def _group(group: Group) -> dict[str, Any]:
    kept = ("kind", "index", "first", "count", "va", "target", "entries", "present", "fill")
    return {name: getattr(group, name) for name in kept} | {
        "size": group.count * group.each,
        "flags": flags_text(group.bits),
        "runs": len(group.leaves),
    }


def _ranges(leaves: Iterator[Leaves]) -> list[dict[str, Any]]:
    """Runs adjacent in virtual and physical addresses with equal rights, of whatever page size."""
    ranges: list[dict[str, Any]] = []
    for leaf in leaves:
        last = ranges[-1] if ranges else None
        if last and (
            last["va"] + last["length"],
            last["pa"] + last["length"],
            last["rights"],
        ) == (leaf.va, leaf.pa, leaf.rights):
            last["length"] += leaf.length
        else:
            row = {"va": leaf.va, "pa": leaf.pa, "length": leaf.length, "rights": leaf.rights}
            ranges.append(row | {"text": rights_text(leaf.rights)})
    return ranges


def _lines(group: Group) -> Iterator[str]:
    """Page numbers, entries, flags and frames in hexadecimal, as the monitor command ``pg``."""
    name = group.index
    if group.count > 1:
        name = f"{name[:-1]}-{group.first + group.count - 1}]"
    first, last = group.va >> PAGE_SHIFT, (group.va + group.count * group.each >> PAGE_SHIFT) - 1
    frames = ""
    if group.kind == "large":
        start = group.target >> PAGE_SHIFT
        frames = f"{start:05x}-{start + last - first:05x}"
    elif group.kind == "broken":
        frames = "no table there"
    yield f"[{first:05x}-{last:05x}] {name:<24} {flags_text(group.bits)} {frames}".rstrip()
    for leaf in group.leaves if group.kind == "table" else ():
        start, frame = leaf.va >> PAGE_SHIFT, leaf.pa >> PAGE_SHIFT
        many = leaf.count > 1
        pages = f"{start:05x}-{start + leaf.count - 1:05x}" if many else f"{start:05x}      "
        index = f"{leaf.first}-{leaf.first + leaf.count - 1}" if many else f"{leaf.first}"
        frames = f"{frame:05x}-{frame + leaf.count - 1:05x}" if many else f"{frame:05x}"
        yield f"  [{pages}] {f'PTE[{index}]':<22} {flags_text(leaf.bits)} {frames}"


def text(data: dict[str, Any]) -> str:
    """The tree as a monitor prints it."""
    lines = data["lines"][:_LINES]
    if len(data["lines"]) > len(lines):
        lines = [*lines, f"... {len(data['lines']) - len(lines):,} more lines, in the JSON"]
    return "\n".join(["pages         entries                  NGSDACTUWP frames", *lines])


def caption(data: dict[str, Any]) -> str:
    groups = data["groups"]
    tables = sum(group["count"] for group in groups if group["kind"] == "table")
    large = sum(group["count"] for group in groups if group["kind"] == "large")
    return (
        f"CR3 {data['cr3']:#x}, {data['mode']}: {counted(large, 'large page')} and "
        f"{counted(tables, 'page table')} come to {counted(len(data['ranges']), 'range')} of equal "
        f"rights. In a table's strip, each mark stands for present entries at that place."
    )


def table(data: dict[str, Any]) -> Table:
    rows = [
        (
            f"{row['va']:#010x}",
            f"{row['va'] + row['length'] - 1:#010x}",
            f"{row['pa']:#x}",
            row["text"],
            size_text(row["length"]),
        )
        for row in data["ranges"][:_LINES]
    ]
    return Table(("from", "to", "physical", "rights", "size"), rows, numbers=4)


# -- drawing -----------------------------------------------------------------------------------


def draw(data: dict[str, Any], width: int) -> "Sheet":
    from harness.report.sheet import Sheet

    narrow = width <= NARROW
    groups = _chosen(data["groups"])
    hidden = len(data["groups"]) - len(groups)
    step = 82.0 if narrow else 50.0
    top = 64.0 if narrow else 10.0
    height = top + len(groups) * step + 56 + (24 if hidden else 0)
    sheet = Sheet(width, max(height, 120), size=11 if narrow else 12.5)
    if narrow:
        _root(sheet, data, Place(2, 4, width - 4, 44))
        sheet.line((12, 48), (12, top + (len(groups) - 0.5) * step), colour="muted", width=1.2)
    else:
        _wide_trunk(sheet, data, groups, top, step)
    for row, group in enumerate(groups):
        (_row_narrow if narrow else _row)(sheet, group, top + row * step)
    y = top + len(groups) * step + 14
    if hidden:
        words = f"and {counted(hidden, 'group')} more, see the text"
        sheet.text(28 if narrow else 178, y, words, colour="muted")
        y += 24
    entries = [("blue", "page tables"), ("orange", "large pages")]
    if any(group["kind"] == "broken" for group in groups):
        entries.append(("red", "entry that points to no table"))
    sheet.legend(4, y + 14, entries, width - 8)
    return sheet


def _chosen(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lowest and the highest, when there are too many."""
    if len(groups) <= _SHOWN:
        return groups
    return [*groups[: _SHOWN // 2], *groups[-_SHOWN // 2 :]]


def _root(sheet: "Sheet", data: dict[str, Any], box: Place) -> None:
    sheet.box(*box, fill="grey-tint", edge="grey", thickness=1.4)
    middle = box.y + box.height / 2
    sheet.text(box.x + 12, middle - 9, f"CR3 {data['cr3']:#x}", bold=True)
    sheet.text(box.x + 12, middle + 9, data["mode"], colour="muted", scale=0.92)


def _wide_trunk(
    sheet: "Sheet", data: dict[str, Any], groups: list[dict[str, Any]], top: float, step: float
) -> None:
    middle = top + max(len(groups), 1) * step / 2
    _root(sheet, data, Place(2, middle - 26, 146, 52))
    sheet.line((148, middle), (162, middle), colour="muted", width=1.2)
    if groups:
        ends = top + step / 2 - 4, top + (len(groups) - 0.5) * step - 4
        sheet.line((162, ends[0]), (162, ends[1]), colour="muted", width=1.2)


def _entry_name(group: dict[str, Any]) -> str:
    name: str = group["index"]
    return f"{name[:-1]}-{group['first'] + group['count'] - 1}]" if group["count"] > 1 else name


def _target(group: dict[str, Any]) -> str:
    if group["kind"] == "large":
        each = size_text(group["size"] // group["count"])
        return f"{counted(group['count'], 'page')} of {each} from {group['target']:#x}"
    if group["kind"] == "broken":
        return f"no table at {group['target']:#x}"
    if group["count"] > 1:
        return f"{group['count']} page tables, all entries present"
    return f"{group['present']:,} of {group['entries']:,} present, {counted(group['runs'], 'run')}"


def _row(sheet: "Sheet", group: dict[str, Any], y: float) -> None:
    colour, middle = _COLOURS[group["kind"]], y + 21
    sheet.arrow((162, middle), (178, middle))
    sheet.box(180, y, 250, 42, fill=f"{colour}-tint", edge=colour, thickness=1.3)
    sheet.text(192, y + 13, _entry_name(group), bold=True)
    sheet.text(418, y + 13, group["flags"], mono=True, scale=0.82, align="right", colour="muted")
    span = f"{group['va']:#010x} - {group['va'] + group['size'] - 1:#010x}"
    sheet.text(192, y + 30, span, mono=True, scale=0.86)
    sheet.arrow((430, middle), (470, middle))
    _strip(sheet, group, Place(474, y + 3, 352, 36))
    sheet.text(838, y + 13, _name(group), bold=True, scale=0.94)
    sheet.text(838, y + 30, _target(group), colour="muted", scale=0.84)


def _row_narrow(sheet: "Sheet", group: dict[str, Any], y: float) -> None:
    colour, right = _COLOURS[group["kind"]], sheet.width - 2
    sheet.arrow((12, y + 22), (25, y + 22))
    sheet.box(27, y, right - 27, 44, fill=f"{colour}-tint", edge=colour, thickness=1.3)
    sheet.text(36, y + 14, _entry_name(group), bold=True)
    sheet.text(
        right - 8, y + 14, group["flags"], mono=True, scale=0.86, align="right", colour="muted"
    )
    span = f"{group['va']:#010x} - {group['va'] + group['size'] - 1:#010x}"
    sheet.text(36, y + 31, span, mono=True, scale=0.9)
    _strip(sheet, group, Place(27, y + 48, right - 27, 10))
    sheet.text(27, y + 68, _target(group), colour="muted", scale=0.9)


def _name(group: dict[str, Any]) -> str:
    if group["va"] >= PAGE_OFFSET:
        return "kernel"
    return "user space"


def _strip(sheet: "Sheet", group: dict[str, Any], place: Place) -> None:
    """The table's entries, or the large pages, as one bar."""
    colour, (x, y, width, high) = _COLOURS[group["kind"]], place
    if group["kind"] == "broken":
        sheet.cells([place], "red-tint", "red")
        return
    sheet.cells([place], "panel", "line")
    if group["kind"] == "large" or group["count"] > 1:
        parts = group["count"] if group["count"] <= _PAGES_DRAWN else 1
        each = width / parts
        inset = min(1.0, each / 5)
        cells = [(x + n * each + inset, y + 2, each - 2 * inset, high - 4) for n in range(parts)]
        sheet.cells(cells, colour)
        return
    each = width / len(group["fill"])
    most = group["entries"] // len(group["fill"])
    cells = []
    for number, present in enumerate(group["fill"]):
        if present:
            tall = max((high - 4) * present / most, 3.0)
            cells.append((x + number * each + 1, y + high - 2 - tall, each - 2, tall))
    sheet.cells(cells, colour)


PICTURE: Final = Picture(
    name="page_tables",
    title="The page-table tree",
    short="Page tables",
    sections="3.1 to 3.8",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
