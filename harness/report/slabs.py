# SPDX-License-Identifier: GPL-2.0-or-later
"""Slab caches: slabs full, partial and free, objects in use, colours (8.1 to 8.2).

Counts are those of ``/proc/slabinfo``. Colours come from :func:`harness.monitors.slab_census`; when
the census finds RAM contradicting itself, its complaint is shown in their place.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from harness.monitors.slabs import LISTS, CacheSeen, SlabInconsistent, slab_census
from harness.report.picture import NARROW, Picture, Place, Table, counted, size_text
from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errors import BadPhysicalAddress
from kernel_model.proc import slabinfo

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Sheet

_STATES: Final = ("full", "partial", "free")
_COLOURS: Final = {"full": "blue", "partial": "orange", "free": "grey-tint"}
_SHOWN: Final = 24
"""Caches that the picture has; the table has all."""
_DOTS: Final = 10
"""Colours that are drawn of a cache."""


def gather(machine: "Machine") -> dict[str, Any]:
    """Every cache, in the order of ``cache_chain``."""
    kernel, complaint = machine.kernel, ""
    seen: dict[str, CacheSeen] = {}
    try:
        seen = {cache.name: cache for cache in slab_census(kernel).values()}
    except (SlabInconsistent, BadPhysicalAddress) as error:
        complaint = str(error)
    caches = []
    for cache, facts in zip(kernel.slab.chain(), slabinfo.data(kernel), strict=True):
        heads = (cache.slabs_full, cache.slabs_partial, cache.slabs_free)
        slabs = [len(cache.slabs(head)) for head in heads]
        caches.append(
            facts
            | dict(zip(LISTS, slabs, strict=True))
            | {"objects_per_slab": cache.num, "off_slab": cache.off_slab}
            | {"colours": _colours(seen.get(cache.name))}
        )
    return {"caches": caches, "complaint": complaint}


def _colours(cache: CacheSeen | None) -> dict[str, Any] | None:
    """How many colours a cache has, which is next, and how many slabs have each so far."""
    if cache is None:
        return None
    turns = Counter(slab.colour // cache.colour_off for slab in cache.slabs.values())
    return {
        "number": max(cache.colour, 1),
        "offset": cache.colour_off,
        "next": cache.colour_next,
        "slabs": {str(turn): turns[turn] for turn in sorted(turns)},
    }


def _bytes(cache: dict[str, Any]) -> int:
    return int(cache["slabs"] * cache["pages_per_slab"]) * PAGE_SIZE


def caption(data: dict[str, Any]) -> str:
    if data["complaint"]:
        return f"The census of the slabs finds RAM contradicting itself: {data['complaint']}."
    caches = data["caches"]
    used = [cache for cache in caches if cache["slabs"]]
    active = sum(cache["active_objects"] * cache["objsize"] for cache in used)
    total = sum(_bytes(cache) for cache in used)
    share = f"{active / total:.0%}" if total else "none"
    return (
        f"{len(used)} of {counted(len(caches), 'cache')} hold slabs, {size_text(total)} in all, of "
        f"which objects in use fill {share}. Each slab of a cache begins its objects at the next "
        f"colour, so that they do not all compete for the same lines of the CPU's cache."
    )


def table(data: dict[str, Any]) -> Table:
    rows = []
    for cache in data["caches"]:
        colours = cache["colours"]
        told = f"{colours['number']} x {colours['offset']} bytes" if colours else "-"
        rows.append(
            (
                cache["name"],
                *(f"{cache[name]:,}" for name in ("objsize", "objects_per_slab")),
                *(f"{cache[name]:,}" for name in ("active_objects", "objects")),
                *(f"{cache[name]:,}" for name in (*LISTS, "pages_per_slab")),
                told,
            )
        )
    columns = (
        "cache",
        "object size",
        "per slab",
        "in use",
        "objects",
        *_STATES,
        "pages",
        "colours",
    )
    return Table(columns, rows)


def draw(data: dict[str, Any], width: int) -> "Sheet":
    from harness.report.sheet import Sheet

    narrow = width <= NARROW
    caches = sorted((c for c in data["caches"] if c["slabs"]), key=_bytes, reverse=True)[:_SHOWN]
    step = 50.0 if narrow else 27.0
    top = 12.0 if narrow else 34.0
    sheet = Sheet(width, top + len(caches) * step + 52, size=11 if narrow else 12.5)
    most = max((cache["slabs"] for cache in caches), default=1)
    if not narrow:
        for x, words in ((178, "slabs"), (500, "objects in use"), (838, "slabs by colour")):
            sheet.text(x, 12, words, colour="muted", scale=0.9)
    for row, cache in enumerate(caches):
        y = top + row * step
        if narrow:
            _cache_narrow(sheet, cache, y, most)
        else:
            _cache(sheet, cache, y, most)
    entries = [(_COLOURS[state], f"slabs {state}") for state in _STATES]
    entries.append(("green", "objects in use"))
    entries.append(("purple", "a colour, by slabs"))
    sheet.legend(4, top + len(caches) * step + 18, entries, width - 8)
    return sheet


def _cache(sheet: "Sheet", cache: dict[str, Any], y: float, most: int) -> None:
    middle = y + 9
    sheet.text(166, middle, cache["name"], align="right", mono=True, scale=0.92)
    _slabs(sheet, cache, Place(178, y + 2, 220, 14), most)
    sheet.text(488, middle, f"{cache['slabs']:,}", align="right", scale=0.9)
    _objects(sheet, cache, Place(500, y + 2, 170, 14))
    words = f"{cache['active_objects']:,} of {cache['objects']:,}"
    sheet.text(678, middle, words, scale=0.9)
    _dots(sheet, cache, 838, middle)


def _cache_narrow(sheet: "Sheet", cache: dict[str, Any], y: float, most: int) -> None:
    sheet.text(4, y + 8, cache["name"], mono=True, scale=0.95, bold=True)
    words = f"{cache['active_objects']:,} of {counted(cache['objects'], 'object')}"
    sheet.text(sheet.width - 4, y + 8, words, align="right", colour="muted", scale=0.92)
    _slabs(sheet, cache, Place(4, y + 18, 150, 12), most)
    _objects(sheet, cache, Place(172, y + 18, 164, 12))
    _dots(sheet, cache, 4, y + 38)
    slabs = counted(cache["slabs"], "slab")
    sheet.text(sheet.width - 4, y + 39, slabs, align="right", colour="muted", scale=0.88)


def _slabs(sheet: "Sheet", cache: dict[str, Any], place: Place, most: int) -> None:
    """One box for each slab where they are few, else a bar in proportion."""
    each = min(place.width / most, 22.0)
    at = place.x
    for state, name in zip(_STATES, LISTS, strict=True):
        count = cache[name]
        if each >= 5:
            boxes = [(at + n * each, place.y, each - 2, place.height) for n in range(count)]
        else:
            boxes = [(at, place.y, max(count * each, 1.0), place.height)] if count else []
        sheet.cells(boxes, _COLOURS[state], "grey" if state == "free" else "")
        at += count * each


def _objects(sheet: "Sheet", cache: dict[str, Any], place: Place) -> None:
    share = cache["active_objects"] / cache["objects"]
    sheet.cells([place], "panel", "line")
    sheet.cells([place._replace(width=place.width * share)] if share else [], "green")


def _dots(sheet: "Sheet", cache: dict[str, Any], x: float, y: float) -> None:
    """A place for each colour, filled when a slab has it; a number when several do."""
    colours = cache["colours"]
    if colours is None:
        sheet.text(x, y, "unknown", colour="muted", scale=0.88)
        return
    number = min(colours["number"], _DOTS)
    for turn in range(number):
        slabs, at = colours["slabs"].get(str(turn), 0), x + turn * 15
        fill, edge = ("purple", "purple") if slabs else ("panel", "line")
        sheet.box(at, y - 6, 12, 12, fill=fill, edge=edge, radius=6)
        if slabs > 1:
            words = f"{slabs}" if slabs < 100 else "+"
            sheet.text(at + 6, y, words, colour="page", align="center", scale=0.68, bold=True)
    if colours["number"] > number:
        sheet.text(x + number * 15 + 3, y, f"of {colours['number']}", colour="muted", scale=0.84)


PICTURE: Final = Picture(
    name="slabs",
    title="Slab caches",
    short="Slabs",
    sections="8.1 to 8.2",
    gather=gather,
    caption=caption,
    draw=draw,
    table=table,
)
