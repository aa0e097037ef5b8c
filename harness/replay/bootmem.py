# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``bootmem``: the boot allocator, call by call, and what it hands over at the end.

Where the real code called ``BUG()``, panicked or never returned, the model must raise
:class:`KernelBug` at the same line, :class:`KernelPanic`, or :class:`EndlessLoop`.
"""

from collections.abc import Callable
from typing import Any

from harness.replay.setup import free_runs
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.layout import zone_sizes
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.errors import EndlessLoop, KernelBug, KernelPanic
from kernel_model.kernel import Kernel
from kernel_model.mm.free_area import free_area_init
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.retire_bootmem import free_all_bootmem
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER


def replay(trace: Trace, comparison: Comparison) -> None:
    for number, recorded in enumerate(trace.data["traces"]):
        BootmemRun(trace, recorded, comparison, f"traces[{number}] {recorded['name']}").replay()


class BootmemRun:
    """One trace, on a machine on which nothing has run yet."""

    def __init__(
        self, trace: Trace, recorded: dict[str, Any], comparison: Comparison, where: str
    ) -> None:
        self._recorded = recorded
        self._comparison = comparison
        self._where = where
        self.kernel = kernel = Kernel(trace.kernel_config())
        self.pgdat = kernel.image.symbol("contig_page_data")
        bootmem = kernel.bootmem
        self._functions: dict[str, Callable[..., int | None]] = {
            "init_bootmem": bootmem.init_bootmem,
            "init_bootmem_node": self._init_bootmem_node,
            "free_bootmem": bootmem.free_bootmem,
            "reserve_bootmem": bootmem.reserve_bootmem,
            "__alloc_bootmem": self._alloc,
            "free_area_init": self.free_area_init,
            "free_all_bootmem": self.free_all_bootmem,
        }

    def replay(self) -> None:
        recorded, bootmem = self._recorded, self.kernel.bootmem
        for number, operation in enumerate(recorded["ops"]):
            self._operation(f"{self._where}.ops[{number}]", operation)
        bdata = self.kernel.statics.contig_bootmem_data
        if "free_runs_final" in recorded:
            self._runs("free_runs_final", free_runs(bootmem.bitmap(bdata)))
            self._equal("last", recorded["last"], self.last(bdata))
        if "free_all_bootmem_ret" in recorded:
            self._retire(bdata)

    def _equal(self, name: str, expected: object, actual: object) -> None:
        self._comparison.equal(f"{self._where}.{name}", expected, actual)

    def _runs(self, name: str, runs: list[list[int]]) -> None:
        self._equal(name, self._recorded[name], runs)
        total = sum(count for _, count in runs)
        self._equal(f"{name}_total", self._recorded[f"{name}_total"], total)

    def last(self, bdata: Any) -> list[int]:
        """Where the last allocation ended."""
        return [int(bdata.last_pos), int(bdata.last_offset)]

    def _operation(self, where: str, operation: dict[str, Any]) -> None:
        log = self.kernel.image.log
        said = len(log)
        where = f"{where} {operation['fn']}{tuple(operation['args'])}"
        answer: dict[str, Any] = {}
        try:
            result = self._functions[operation["fn"]](*operation["args"])
            if result is not None:
                answer["ret"] = result
        except KernelBug as bug:
            answer = {"result": "BUG", "bug_line": bug.line}
        except KernelPanic:
            answer = {"result": "panic"}
        except EndlessLoop:
            answer = {"result": "endless_loop"}
        twice = sum("reserved twice" in line for line in log[said:])
        if twice:
            answer["reserved_twice_msgs"] = twice
        bdata = self.kernel.statics.contig_bootmem_data
        if "last" in operation:
            answer["last"] = self.last(bdata)
        recorded = {k: v for k, v in operation.items() if k not in ("fn", "args")}
        self._comparison.equal(where, recorded, answer)

    # -- the functions that need more than their recorded arguments --------------------------

    def _init_bootmem_node(self, freepfn: int, startpfn: int, endpfn: int) -> int:
        statics, image = self.kernel.statics, self.kernel.image
        statics.contig_page_data.bdata = image.symbol("contig_bootmem_data")
        return self.kernel.bootmem.init_bootmem_node(self.pgdat, freepfn, startpfn, endpfn)

    def _alloc(self, size: int, align: int, goal: int) -> int:
        return virt_to_phys(self.kernel.bootmem.alloc(size, align, goal))

    def free_area_init(self) -> None:
        """Zones of low memory alone: the recorded runs never set up high memory."""
        kernel = self.kernel
        sizes = zone_sizes(kernel.statics.max_low_pfn, high=0)
        free_area_init(kernel.image, kernel.bootmem, sizes)

    def free_all_bootmem(self) -> int:
        kernel = self.kernel
        return free_all_bootmem(kernel.image, kernel.bootmem, kernel.allocator, self.pgdat)

    # -- the end of boot memory ----------------------------------------------------------------

    def _retire(self, bdata: Any) -> None:
        """What ``free_all_bootmem()`` hands to the buddy allocator, list by list."""
        recorded, kernel = self._recorded, self.kernel
        calls = [
            [*call.arguments, call.result]
            for call in kernel.bootmem.calls
            if call.function == "__alloc_bootmem_node"
        ]
        self._equal("free_area_init", recorded["free_area_init_bootmem_calls"], calls)
        self._runs("free_runs_before_free_all", free_runs(kernel.bootmem.bitmap(bdata)))
        map_pfn = virt_to_phys(bdata.node_bootmem_map) >> PAGE_SHIFT
        self._equal("bitmap_pfn", recorded["bitmap_pfn"], map_pfn)
        for number, operation in enumerate(recorded["last_ops"]):
            self._operation(f"{self._where}.last_ops[{number}]", operation)
        pages = kernel.bootmem.calls[-1].result
        self._equal("free_all_bootmem_ret", recorded["free_all_bootmem_ret"], pages)
        self._equal("state", recorded["state"], self.state())

    def state(self) -> dict[str, Any]:
        kernel = self.kernel
        pfn = kernel.allocator.memmap.pfn
        zones = []
        for index in range(MAX_NR_ZONES):
            zone = Zone(kernel.image, self.pgdat + index * kernel.image.structs.zone_t.size)
            orders = range(MAX_ORDER if zone.size else 0)
            zones.append(
                {
                    "name": zone.name,
                    "size": zone.size,
                    "free_pages": zone.free_pages,
                    "need_balance": int(zone.view.need_balance),
                    "free_lists": [[pfn(page) for page in zone.free_blocks(o)] for o in orders],
                }
            )
        return {"zones": zones, "nr_free_pages": kernel.allocator.nr_free_pages()}
