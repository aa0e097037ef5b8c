# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``buddy`` and ``buddy_exhaust`` of 2.6: the page allocator, call by call.

Reclaim frees what the trace's script says, and nothing without one. Where a call would try again
more often than the recorded run let it, it ends.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from harness.replay.linux_2_6.zones import allocator_of, boot_to_initcalls, state
from harness.replay.trace import Comparison, Trace
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.linux_2_6.mmzone import for_each_zone

_GIVEN: Final = ("gfp", "order", "pf_memalloc", "memdie", "rt", "loops_allowed")
_FLAGS: Final = {"pf_memalloc": PF_MEMALLOC, "memdie": PF_MEMDIE}


class WouldLoop(Exception):
    """The call tries again, and nobody will free anything."""


class ScriptedReclaim:
    """Answers the allocator as the recorded run did, and notes what it asked."""

    def __init__(self, kernel: Kernel, operation: dict[str, Any]) -> None:
        self._allocator = allocator_of(kernel)
        self._script = list(operation.get("reclaim", ()))
        self._loops_left = int(operation.get("loops_allowed", 0))
        self.wake_ups = self.killed = self.waits = self.used = 0
        self.reclaimed: list[str] = []

    def wake_kswapd(self, pgdat: int) -> None:
        self.wake_ups += 1

    def try_to_free_pages(self, zones: Sequence[int], gfp_mask: int, order: int) -> int:
        allocator = self._allocator
        self.reclaimed.append(allocator.zone(zones[0]).name)
        if self.used >= len(self._script):
            return 0
        step = self._script[self.used]
        self.used += 1
        for pfn, freed_order in step["frees"]:
            allocator.free_pages(allocator.memmap.page(pfn), freed_order)
        if step.get("memdie"):
            allocator.current.flags |= PF_MEMDIE
        return int(step["ret"])

    def _again(self) -> None:
        if self.used >= len(self._script):
            self._loops_left -= 1
            if self._loops_left < 0:
                raise WouldLoop

    def out_of_memory(self, gfp_mask: int) -> None:
        self.killed += 1
        self._again()

    def congestion_wait(self) -> None:
        self.waits += 1
        self._again()

    def yield_cpu(self) -> None:
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
        self._kernel = kernel = boot_to_initcalls(trace)
        self._allocator = allocator_of(kernel)
        self._zones = list(for_each_zone(kernel.image))
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "alloc": self._alloc,
            "free": self._free,
            "free_hot": self._free_hot,
            "free_cold": self._free_cold,
            "pagevec_free": self._pagevec_free,
            "get_page": self._get_page,
            "cpu": self._cpu,
            "drain_local_pages": self._drain_local_pages,
            "state": lambda operation: {"state": self._state()},
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
            if "pcp" in operation:
                answer["pcp"] = self._pcp_counts()
            comparison.equal(f"{name}.ops[{number}] {operation['op']}", operation, answer)
        comparison.equal(f"{name}.page_state", recorded["page_state"], self._page_state())
        comparison.equal(f"{name}.final", recorded["final"], self._state())

    def _state(self) -> dict[str, Any]:
        return state(self._kernel, int(self._trace.data["online_cpus"]))

    def _pcp_counts(self) -> list[int]:
        cpu = int(self._allocator.current.processor)
        return [pcp.count for zone in self._zones for pcp in zone.pagesets[cpu]]

    def _page_state(self) -> Any:
        counters = self._allocator.page_state
        cpus = range(int(self._trace.data["online_cpus"]))
        names = [f"pgalloc_{zone}" for zone in ("dma", "normal", "high")]
        return [
            {
                "pgalloc": [counters.of_cpu(cpu, name) for name in names],
                "pgfree": counters.of_cpu(cpu, "pgfree"),
            }
            for cpu in cpus
        ]

    # -- the operations ----------------------------------------------------------------------------

    def _alloc(self, operation: dict[str, Any]) -> dict[str, Any]:
        allocator, current = self._allocator, self._allocator.current
        allocator.pressure = reclaim = ScriptedReclaim(self._kernel, operation)
        allocator.realtime = bool(operation.get("rt"))
        current.flags |= sum(bit for name, bit in _FLAGS.items() if operation.get(name))
        said_before = len(self._kernel.image.log)
        looped, page = False, 0
        try:
            page = allocator.alloc_pages(operation["gfp"], operation["order"])
        except WouldLoop:
            looped = True
        current.flags &= ~(PF_MEMALLOC | PF_MEMDIE) & 0xFFFFFFFF
        warned = "page allocation failure" in "".join(self._kernel.image.log[said_before:])
        said = {
            "kswapd": reclaim.wake_ups,
            "ttfp": reclaim.reclaimed,
            "oom": reclaim.killed,
            "bcw": reclaim.waits,
            "warn": int(warned),
            "loop": int(looped),
        }
        answer: dict[str, Any] = {n: operation[n] for n in _GIVEN if n in operation}
        answer |= {name: value for name, value in said.items() if value}
        if "reclaim" in operation:
            answer["reclaim"] = [
                step | {"used": int(number < reclaim.used)}
                for number, step in enumerate(operation["reclaim"])
            ]
        return answer | {"pfn": allocator.memmap.pfn(page) if page else None}

    def _page(self, operation: dict[str, Any]) -> int:
        return self._allocator.memmap.page(operation["pfn"])

    def _drop(self, page: int) -> None:
        """The last reference goes, without what ``__free_pages()`` does then."""
        self._allocator.memmap.set_count(page, 0)

    def _free(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._allocator.free_pages(self._page(operation), operation["order"])
        return {"pfn": operation["pfn"], "order": operation["order"]}

    def _free_hot(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._drop(self._page(operation))
        self._allocator.free_hot_page(self._page(operation))
        return {"pfn": operation["pfn"], "order": operation["order"]}

    def _free_cold(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._drop(self._page(operation))
        self._allocator.free_cold_page(self._page(operation))
        return {"pfn": operation["pfn"], "order": operation["order"]}

    def _pagevec_free(self, operation: dict[str, Any]) -> dict[str, Any]:
        pages = [self._allocator.memmap.page(pfn) for pfn in operation["pfns"]]
        for page in pages:
            self._drop(page)
        self._allocator.pagevec_free(pages, operation["cold"])
        return {"pfns": operation["pfns"], "cold": operation["cold"]}

    def _get_page(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._allocator.get_page(self._page(operation))
        return {"pfn": operation["pfn"]}

    def _cpu(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._allocator.current.processor = operation["cpu"]
        return {"cpu": operation["cpu"]}

    def _drain_local_pages(self, operation: dict[str, Any]) -> dict[str, Any]:
        self._allocator.drain_local_pages()
        return {}
