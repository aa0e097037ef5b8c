# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``buddy`` and ``buddy_exhaust``: the page allocator, call by call.

Reclaim frees what the trace's script says, and nothing without one. A ``yield`` that nothing
follows ends the call where the real kernel would have tried for ever.
"""

from collections.abc import Callable
from typing import Any

from harness.replay.trace import Comparison, Trace
from harness.replay.zones import zone_state, zones_of
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.mmzone import Zone


class WouldLoop(Exception):
    """The call yielded, and nobody will free anything."""


class ScriptedPressure:
    """Answers the allocator as the recorded run did, and notes what it asked."""

    def __init__(self, kernel: Kernel, operation: dict[str, Any]) -> None:
        self._kernel = kernel
        self._script = list(operation.get("reclaim", ()))
        self._sets_memdie = bool(operation.get("yield_sets_memdie"))
        self.wake_ups = 0
        self.yields = 0
        self.reclaimed: list[str] = []
        self.used = 0

    def wake_kswapd(self) -> None:
        self.wake_ups += 1

    def try_to_free_pages_zone(self, classzone: int, gfp_mask: int) -> int:
        allocator = self._kernel.allocator
        self.reclaimed.append(Zone(self._kernel.image, classzone).name)
        if self.used >= len(self._script):
            return 0
        step = self._script[self.used]
        self.used += 1
        for pfn, order in step["frees"]:
            allocator.free_pages(allocator.memmap.page(pfn), order)
        return int(step["ret"])

    def yield_cpu(self) -> None:
        self.yields += 1
        if self._sets_memdie:
            self._kernel.allocator.current.flags |= PF_MEMDIE
        elif self.used >= len(self._script):
            raise WouldLoop


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        _Run(trace, recorded, comparison).replay()


class _Run:
    """One trace, on a machine that has just booted."""

    def __init__(self, trace: Trace, recorded: dict[str, Any], comparison: Comparison) -> None:
        self._trace = trace
        self._recorded = recorded
        self._comparison = comparison
        self._kernel = kernel = Kernel(trace.kernel_config())
        kernel.start_kernel(until="mem_init")
        self._allocator = kernel.allocator
        self._zones = zones_of(kernel, kernel.image.symbol("contig_page_data"))
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
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
            comparison.equal(f"{name}.ops[{number}] {operation['op']}", operation, answer)
        balance = [int(zone.view.need_balance) for zone in self._zones]
        comparison.equal(f"{name}.need_balance", recorded["need_balance"], balance)
        comparison.equal(f"{name}.final", recorded["final"], self._state())

    def _state(self) -> dict[str, Any]:
        zones = [zone_state(self._kernel, zone, bitmaps=True) for zone in self._zones]
        return {"zones": zones, "nr_free_pages": self._allocator.nr_free_pages()}

    def _alloc(self, operation: dict[str, Any]) -> dict[str, Any]:
        allocator, current = self._allocator, self._allocator.current
        allocator.pressure = pressure = ScriptedPressure(self._kernel, operation)
        current.flags |= PF_MEMALLOC if operation.get("pf_memalloc") else 0
        current.flags |= PF_MEMDIE if operation.get("pf_memdie") else 0
        looped, page = False, 0
        try:
            page = allocator.alloc_pages(operation["gfp"], operation["order"])
        except WouldLoop:
            looped = True
        current.flags &= ~(PF_MEMALLOC | PF_MEMDIE) & 0xFFFFFFFF
        said = {
            "kswapd": pressure.wake_ups,
            "ttfp": pressure.reclaimed,
            "yield": pressure.yields,
            "loop": int(looped),
        }
        given = ("gfp", "order", "pf_memalloc", "pf_memdie", "yield_sets_memdie")
        answer = {name: operation[name] for name in given if name in operation}
        answer |= {name: value for name, value in said.items() if value}
        if "reclaim" in operation:
            answer["reclaim"] = [
                step | {"used": int(number < pressure.used)}
                for number, step in enumerate(operation["reclaim"])
            ]
        return answer | {"pfn": allocator.memmap.pfn(page) if page else None}

    def _free(self, operation: dict[str, Any]) -> dict[str, Any]:
        pfn, order = operation["pfn"], operation["order"]
        self._allocator.free_pages(self._allocator.memmap.page(pfn), order)
        return {"pfn": pfn, "order": order}

    def _get_page(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._allocator.get_page(self._allocator.memmap.page(operation["pfn"]))
        return {"pfn": operation["pfn"]}
