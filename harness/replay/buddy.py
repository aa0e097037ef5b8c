# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``buddy`` and ``buddy_exhaust``: the page allocator, call by call.

:class:`BuddyRun` is what the traces of both releases have in common; those of 2.6 go on in
:mod:`harness.replay.linux_2_6.buddy`. Reclaim frees what the trace's script says, and nothing
without one. A call that would go on for ever ends where the recorded run let it.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from harness.replay.trace import Comparison, Trace
from harness.replay.zones import zone_state, zones_of
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_alloc import PageAllocator

Operation = dict[str, Any]


class WouldLoop(Exception):
    """The call tries again, and nobody will free anything."""


class Script:
    """Answers the allocator as the recorded run did, and notes what it asked."""

    def __init__(self, allocator: PageAllocator, operation: Operation) -> None:
        self._allocator = allocator
        self._steps = list(operation.get("reclaim", ()))
        self.used = 0
        self.wake_ups = 0
        self.reclaimed: list[str] = []

    @property
    def at_its_end(self) -> bool:
        return self.used >= len(self._steps)

    def reclaim(self, zone: str) -> Operation | None:
        """Free what the next step frees; None: there is none."""
        self.reclaimed.append(zone)
        if self.at_its_end:
            return None
        step: Operation = self._steps[self.used]
        self.used += 1
        for pfn, order in step["frees"]:
            self._allocator.free_pages(self._allocator.memmap.page(pfn), order)
        return step

    def said(self) -> dict[str, Any]:
        """What was noted, in the trace's words; what is 0 or empty is not in it."""
        return {"kswapd": self.wake_ups, "ttfp": self.reclaimed}


class BuddyRun:
    """One trace, on a machine that has just booted."""

    given: ClassVar[tuple[str, ...]]
    """What an allocation may be recorded with."""
    process_flags: ClassVar[dict[str, int]]
    """Which of them are flags of the process."""

    def __init__(
        self,
        trace: Trace,
        recorded: Operation,
        comparison: Comparison,
        kernel: Kernel,
        zones: Sequence[Zone],
    ) -> None:
        self._trace = trace
        self._recorded = recorded
        self._comparison = comparison
        self._kernel = kernel
        self._zones = zones
        self._operations: dict[str, Callable[[Operation], Operation]] = {
            "alloc": self._alloc,
            "free": self._free,
            "get_page": self._get_page,
            "note": lambda operation: {"text": operation["text"]},
        }

    def replay(self) -> None:
        recorded, comparison = self._recorded, self._comparison
        name = recorded["name"]
        comparison.equal(f"{name}.initial", self._trace.data["initial"], self._state())
        marks = [int(zone.view.pages_min) for zone in self._zones]
        comparison.equal(f"{name}.watermarks", self._trace.data["watermarks"], marks)
        for number, operation in enumerate(recorded["ops"]):
            answer = {"op": operation["op"]} | self._operations[operation["op"]](operation)
            if "free" in operation:
                answer["free"] = [zone.free_pages for zone in self._zones]
            answer |= self._counted(operation)
            comparison.equal(f"{name}.ops[{number}] {operation['op']}", operation, answer)
        key, counters = self._counters()
        comparison.equal(f"{name}.{key}", recorded[key], counters)
        comparison.equal(f"{name}.final", recorded["final"], self._state())

    # -- what each release has of its own --------------------------------------------------------

    def _state(self) -> Operation:
        """Zones and counts, as the trace has them at its beginning and end."""
        raise NotImplementedError

    def _counted(self, operation: Operation) -> Operation:
        """What is counted after an operation, beside free frames."""
        return {}

    def _counters(self) -> tuple[str, Any]:
        """What is compared at the end, beside the state: (its name in the trace, as it is)."""
        raise NotImplementedError

    def _script(self, operation: Operation) -> Script:
        """Who answers the allocator during this call; it has been told."""
        raise NotImplementedError

    # -- the operations --------------------------------------------------------------------------

    def _alloc(self, operation: Operation) -> Operation:
        allocator = self._kernel.allocator
        current, script = allocator.current, self._script(operation)
        current.flags |= sum(bit for name, bit in self.process_flags.items() if operation.get(name))
        looped, page = False, 0
        try:
            page = allocator.alloc_pages(operation["gfp"], operation["order"])
        except WouldLoop:
            looped = True
        current.flags &= ~(PF_MEMALLOC | PF_MEMDIE) & 0xFFFFFFFF
        said = script.said() | {"loop": int(looped)}
        answer: Operation = {name: operation[name] for name in self.given if name in operation}
        answer |= {name: value for name, value in said.items() if value}
        if "reclaim" in operation:
            answer["reclaim"] = [
                step | {"used": int(number < script.used)}
                for number, step in enumerate(operation["reclaim"])
            ]
        return answer | {"pfn": allocator.memmap.pfn(page) if page else None}

    def _page(self, operation: Operation) -> int:
        return self._kernel.allocator.memmap.page(operation["pfn"])

    def _free(self, operation: Operation) -> Operation:
        self._kernel.allocator.free_pages(self._page(operation), operation["order"])
        return {"pfn": operation["pfn"], "order": operation["order"]}

    def _get_page(self, operation: Operation) -> Operation:
        self._kernel.allocator.get_page(self._page(operation))
        return {"pfn": operation["pfn"]}


# -- 2.4 -------------------------------------------------------------------------------------------


class ScriptedPressure(Script):
    """``yield`` may let somebody else die; with nothing left to free it ends the call."""

    def __init__(self, kernel: Kernel, operation: Operation) -> None:
        super().__init__(kernel.allocator, operation)
        self._image = kernel.image
        self._sets_memdie = bool(operation.get("yield_sets_memdie"))
        self._yields = 0

    def wake_kswapd(self) -> None:
        self.wake_ups += 1

    def try_to_free_pages_zone(self, classzone: int, gfp_mask: int) -> int:
        step = self.reclaim(Zone(self._image, classzone).name)
        return int(step["ret"]) if step else 0

    def yield_cpu(self) -> None:
        self._yields += 1
        if self._sets_memdie:
            self._allocator.current.flags |= PF_MEMDIE
        elif self.at_its_end:
            raise WouldLoop

    def said(self) -> dict[str, Any]:
        return super().said() | {"yield": self._yields}


class Run24(BuddyRun):
    given = ("gfp", "order", "pf_memalloc", "pf_memdie", "yield_sets_memdie")
    process_flags: ClassVar = {"pf_memalloc": PF_MEMALLOC, "pf_memdie": PF_MEMDIE}

    def _state(self) -> Operation:
        zones = [zone_state(self._kernel, zone, bitmaps=True) for zone in self._zones]
        return {"zones": zones, "nr_free_pages": self._kernel.allocator.nr_free_pages()}

    def _counters(self) -> tuple[str, Any]:
        return "need_balance", [int(zone.view.need_balance) for zone in self._zones]

    def _script(self, operation: Operation) -> Script:
        script = ScriptedPressure(self._kernel, operation)
        self._kernel.allocator.pressure = script
        return script


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        kernel = Kernel(trace.kernel_config())
        kernel.start_kernel(until="mem_init")
        zones = zones_of(kernel, kernel.image.symbol("contig_page_data"))
        Run24(trace, recorded, comparison, kernel, zones).replay()
