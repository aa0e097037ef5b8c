# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults over the run of a program: how many of each kind by when, and where (4.5, 4.6).

A :class:`FaultLog` listens while the program runs (:class:`harness.processes.watching.Observer`).
Instructions are counted in steps of :data:`STEP`.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from harness.report.picture import NARROW, Picture, Place, Table, counted

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.processes.watching import FaultSeen
    from harness.report.sheet import Sheet

STEP: Final = 1000
"""Instructions between two moments that the picture tells apart."""
MAX_FAULTS: Final = 20_000
"""Faults that are kept one by one; the others are only counted."""
_POINTS: Final = 2000
"""Marks of the second chart, at most."""
_STYLES: Final[dict[str, tuple[str, str]]] = {
    "anonymous": ("blue", "o"),
    "zero page": ("sky", "s"),
    "file": ("green", "^"),
    "file, copied at once": ("orange", "v"),
    "COW copy": ("red", "D"),
    "COW reuse": ("purple", "P"),
    "swap": ("ink", "X"),
}
"""Cause -> colour and mark; every other is grey."""
_OTHER: Final = ("grey", "*")


class FaultLog:
    """What was heard of faults: one row for each, in the order of time. The CPU counts in small
    steps until :meth:`stop`."""

    def __init__(self, machine: "Machine", program: str) -> None:
        self._cpu = machine.cpu
        self._cpu.count_by(STEP)
        self.instructions = 0
        self.program = program
        self.rows: list[tuple[int, str, int, int]] = []
        self.omitted = 0

    def stop(self) -> None:
        """The program is over: count no more, for small steps cost time."""
        self.instructions = self._cpu.counted
        self._cpu.count_by(0)

    def faulted(self, fault: "FaultSeen") -> None:
        """Write a fault down with the instructions that have run so far."""
        if len(self.rows) >= MAX_FAULTS:
            self.omitted += 1
            return
        self.rows.append((self._cpu.counted, fault.cause, fault.address, fault.pid))

    def as_data(self) -> dict[str, Any]:
        """The data of the picture."""
        return {
            "program": self.program,
            "instructions": self.instructions,
            "faults": [list(row) for row in self.rows],
            "omitted": self.omitted,
            "by_cause": dict(Counter(cause for _, cause, _, _ in self.rows).most_common()),
        }


def gather(_machine: "Machine") -> dict[str, Any]:
    """Of a machine nobody listened to: no faults. :class:`FaultLog` has the others."""
    return {"program": "", "instructions": 0, "faults": [], "omitted": 0, "by_cause": {}}


def caption(data: dict[str, Any]) -> str:
    if not data["program"]:
        return "No program was followed: give one to see its faults."
    if not data["faults"]:
        return f"{data['program']} ran without a page fault."
    most, number = next(iter(data["by_cause"].items()))
    left_out = (
        f" {counted(data['omitted'], 'later fault')} are not shown." if data["omitted"] else ""
    )
    return (
        f"{data['program']} took {counted(len(data['faults']), 'fault')} in about "
        f"{data['instructions']:,} instructions, most of them {most} ({number:,}). A steep curve "
        f"is memory touched for the first time; below, each mark is a fault at its page.{left_out}"
    )


def table(data: dict[str, Any]) -> Table:
    pages = {cause: set() for cause in data["by_cause"]}  # type: dict[str, set[int]]
    first: dict[str, int] = {}
    for at, cause, address, _ in data["faults"]:
        pages[cause].add(address >> 12)
        first.setdefault(cause, at)
    rows = [
        (cause, f"{number:,}", f"{len(pages[cause]):,}", f"{first[cause]:,}")
        for cause, number in data["by_cause"].items()
    ]
    return Table(("kind", "faults", "pages", "first after instructions"), rows)


def draw(data: dict[str, Any], width: int) -> "Sheet":
    from harness.report.sheet import Sheet

    narrow = width <= NARROW
    if not data["faults"]:
        sheet = Sheet(width, 60, size=11 if narrow else 12.5)
        sheet.box(2, 4, width - 4, 52)
        sheet.text(width / 2, 30, "no faults to show", colour="muted", align="center")
        return sheet
    left, right = (42.0, 8.0) if narrow else (60.0, 200.0)
    highs = (200.0, 230.0) if narrow else (240.0, 290.0)
    legend = 96.0 if narrow else 0.0
    sheet = Sheet(width, sum(highs) + legend + 132, size=11 if narrow else 12.5)
    causes = list(data["by_cause"])
    place = Place(left, 34.0, width - left - right, highs[0])
    levels = _curves(sheet, data, causes, place)
    if narrow:
        entries = [(_style(cause)[0], f"{cause}: {data['by_cause'][cause]:,}") for cause in causes]
        sheet.legend(4, 34 + highs[0] + 42, entries, width - 8)
    else:
        _names_at_ends(sheet, data, causes, place, levels)
    top = 34 + highs[0] + legend + 62
    _map(sheet, data, causes, Place(left, top, width - left - right, highs[1]))
    return sheet


def _style(cause: str) -> tuple[str, str]:
    return _STYLES.get(cause, _OTHER)


def _curves(
    sheet: "Sheet", data: dict[str, Any], causes: list[str], place: Place
) -> dict[str, float]:
    """Faults so far, by kind; returns the share of the height at which each curve ends."""
    from harness.report.palette import light

    axes = sheet.chart(*place, "Faults so far, by kind")
    end = max(data["instructions"], STEP)
    top = max(data["by_cause"].values(), default=1) * 1.05
    for cause in causes:
        times = [at for at, one, _, _ in data["faults"] if one == cause]
        xs, ys = [0, *times, end], [*range(len(times) + 1), len(times)]
        axes.step(xs, ys, where="post", color=light(_style(cause)[0]), linewidth=2)
    axes.set_xlim(0, end)
    axes.set_ylim(0, top)
    sheet.thousands(axes)
    sheet.thousands(axes, "x")
    axes.tick_params(axis="x", labelbottom=False)
    return {cause: data["by_cause"][cause] / top for cause in causes}


def _names_at_ends(
    sheet: "Sheet",
    data: dict[str, Any],
    causes: list[str],
    place: Place,
    levels: dict[str, float],
) -> None:
    """The name of each curve where it ends, pushed apart where they would touch."""
    x, lowest = place.right + 10, place.bottom + 12
    ordered = sorted(causes, key=lambda cause: levels[cause])
    for cause in ordered:
        y = min(place.y + place.height * (1 - levels[cause]), lowest - 17)
        lowest = y
        end = place.y + place.height * (1 - levels[cause])
        sheet.line((x - 9, end), (x + 4, y), (x + 12, y), colour=_style(cause)[0], width=2)
        sheet.text(x + 18, y, f"{cause}, {data['by_cause'][cause]:,}")


def _map(sheet: "Sheet", data: dict[str, Any], causes: list[str], place: Place) -> None:
    """Each fault at its page: pages in the order of addresses, without what nobody touched."""
    from harness.report.palette import light

    axes = sheet.chart(*place, "Where: pages touched, by address")
    pages = sorted({address >> 12 for _, _, address, _ in data["faults"]})
    rank = {page: number for number, page in enumerate(pages)}
    every = max(-(-len(data["faults"]) // _POINTS), 1)
    for cause in causes:
        colour, mark = _style(cause)
        chosen = [row for row in data["faults"][::every] if row[1] == cause]
        xs, ys = [row[0] for row in chosen], [rank[row[2] >> 12] for row in chosen]
        axes.plot(xs, ys, mark, color=light(colour), markersize=4.5, markeredgewidth=0)
    axes.set_xlim(0, max(data["instructions"], STEP))
    axes.set_ylim(-1, max(len(pages), 1))
    axes.set_yticks([])
    sheet.thousands(axes, "x")
    sheet.label(axes, x="instructions (about)")
    _areas(sheet, pages, place)


def _areas(sheet: "Sheet", pages: list[int], place: Place) -> None:
    """Where the next touched page is far away, a line, and the address at which it goes on."""
    total = max(len(pages), 1) + 1
    last = place.bottom + 30
    for number, page in enumerate(pages):
        if number and page - pages[number - 1] < 256:
            continue
        y = place.y + place.height * (1 - (number + 0.5) / total)
        sheet.line((place.x, y), (place.right, y), colour="line", width=0.8)
        if last - y > 13 and place.right + 90 < sheet.width:
            words = f"from {page << 12:#010x}"
            sheet.text(place.right + 8, y - 7, words, colour="muted", mono=True, scale=0.84)
            last = y


PICTURE: Final = Picture(
    name="faults",
    title="Faults over a run",
    short="Faults",
    sections="4.5 and 4.6",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
