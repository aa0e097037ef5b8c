# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``buddy`` and ``buddy_exhaust`` of 2.6: the page allocator, call by call.

Beside what :mod:`harness.replay.buddy` replays of both releases, the lists of each CPU and the
counters of ``struct page_state``.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from harness.replay.buddy import BuddyRun, Operation, Script, WouldLoop
from harness.replay.linux_2_6.zones import allocator_of, boot_to_initcalls, state
from harness.replay.trace import Comparison, Trace
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.linux_2_6.mmzone import Zone26, for_each_zone


class ScriptedReclaim(Script):
    """Killing and waiting are tried again as often as the recorded run let them."""

    def __init__(self, kernel: Kernel, operation: Operation) -> None:
        super().__init__(kernel.allocator, operation)
        self._zone = allocator_of(kernel).zone
        self._log = kernel.image.log
        self._said_before = len(self._log)
        self._loops_left = int(operation.get("loops_allowed", 0))
        self._killed = self._waits = 0

    def wake_kswapd(self, pgdat: int) -> None:
        self.wake_ups += 1

    def try_to_free_pages(self, zones: Sequence[int], gfp_mask: int, order: int) -> int:
        step = self.reclaim(self._zone(zones[0]).name)
        if not step:
            return 0
        if step.get("memdie"):
            self._allocator.current.flags |= PF_MEMDIE
        return int(step["ret"])

    def _again(self) -> None:
        if self.at_its_end:
            self._loops_left -= 1
            if self._loops_left < 0:
                raise WouldLoop

    def out_of_memory(self, gfp_mask: int) -> None:
        self._killed += 1
        self._again()

    def congestion_wait(self) -> None:
        self._waits += 1
        self._again()

    def yield_cpu(self) -> None:
        raise WouldLoop

    def said(self) -> dict[str, Any]:
        warned = "page allocation failure" in "".join(self._log[self._said_before :])
        more = {"oom": self._killed, "bcw": self._waits, "warn": int(warned)}
        return super().said() | more


class Run26(BuddyRun):
    given = ("gfp", "order", "pf_memalloc", "memdie", "rt", "loops_allowed")
    process_flags: ClassVar = {"pf_memalloc": PF_MEMALLOC, "memdie": PF_MEMDIE}

    def __init__(
        self,
        trace: Trace,
        recorded: Operation,
        comparison: Comparison,
        kernel: Kernel,
        zones: Sequence[Zone26],
    ) -> None:
        super().__init__(trace, recorded, comparison, kernel, zones)
        self._allocator = allocator_of(kernel)
        self._pagesets = [zone.pagesets for zone in zones]
        self._operations |= {
            "free_hot": self._free_hot,
            "free_cold": self._free_cold,
            "pagevec_free": self._pagevec_free,
            "cpu": self._cpu,
            "drain_local_pages": self._drain_local_pages,
            "state": lambda operation: {"state": self._state()},
        }

    def _state(self) -> Operation:
        return state(self._kernel, int(self._trace.data["online_cpus"]))

    def _counted(self, operation: Operation) -> Operation:
        if "pcp" not in operation:
            return {}
        cpu = int(self._allocator.current.processor)
        return {"pcp": [pcp.count for pagesets in self._pagesets for pcp in pagesets[cpu]]}

    def _counters(self) -> tuple[str, Any]:
        counters = self._allocator.page_state
        names = [f"pgalloc_{zone}" for zone in ("dma", "normal", "high")]
        return "page_state", [
            {
                "pgalloc": [counters.of_cpu(cpu, name) for name in names],
                "pgfree": counters.of_cpu(cpu, "pgfree"),
            }
            for cpu in range(int(self._trace.data["online_cpus"]))
        ]

    def _script(self, operation: Operation) -> Script:
        self._allocator.realtime = bool(operation.get("rt"))
        self._allocator.pressure = script = ScriptedReclaim(self._kernel, operation)
        return script

    # -- the operations ----------------------------------------------------------------------------

    def _drop(self, page: int) -> None:
        """The last reference goes, without what ``__free_pages()`` does then."""
        self._allocator.memmap.set_count(page, 0)

    def _free_hot(self, operation: Operation) -> Operation:
        self._drop(self._page(operation))
        self._allocator.free_hot_page(self._page(operation))
        return {"pfn": operation["pfn"], "order": operation["order"]}

    def _free_cold(self, operation: Operation) -> Operation:
        self._drop(self._page(operation))
        self._allocator.free_cold_page(self._page(operation))
        return {"pfn": operation["pfn"], "order": operation["order"]}

    def _pagevec_free(self, operation: Operation) -> Operation:
        pages = [self._allocator.memmap.page(pfn) for pfn in operation["pfns"]]
        for page in pages:
            self._drop(page)
        self._allocator.pagevec_free(pages, operation["cold"])
        return {"pfns": operation["pfns"], "cold": operation["cold"]}

    def _cpu(self, operation: Operation) -> Operation:
        self._allocator.current.processor = operation["cpu"]
        return {"cpu": operation["cpu"]}

    def _drain_local_pages(self, operation: Operation) -> Operation:
        self._allocator.drain_local_pages()
        return {}


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        kernel = boot_to_initcalls(trace)
        zones = list(for_each_zone(kernel.image))
        Run26(trace, recorded, comparison, kernel, zones).replay()
