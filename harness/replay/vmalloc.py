# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``vmalloc``: areas, the frames behind them, the entries of the page directory.

In the recording ``kmalloc()`` took no frames, so the ``vm_struct``s lie here in a part of the
kernel image that only guests use.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from harness.replay.trace import Comparison, Trace
from harness.replay.zones import zone_state, zones_of
from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, phys_to_virt
from kernel_model.arch_i386.pgtable import pte_pfn
from kernel_model.image import GUEST_TEXT, SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.vmalloc import Vmalloc, VmallocRange

_UNALIGNED: Final = "random_unaligned_get_vm_area"


class Objects:
    """``kmalloc()`` for ``vm_struct``s and arrays of pointers, in a part of the kernel image."""

    def __init__(self) -> None:
        self._next = phys_to_virt(GUEST_TEXT)
        self._free: dict[int, list[int]] = {}
        self._sizes: dict[int, int] = {}

    def kmalloc(self, size: int, flags: int) -> int:
        spare = self._free.setdefault(size, [])
        if spare:
            return spare.pop()
        self._next += size
        self._sizes[self._next - size] = size
        return self._next - size

    def kfree(self, vaddr: int) -> None:
        self._free[self._sizes[vaddr]].append(vaddr)


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        Run(trace, recorded, comparison).replay()


class Run:
    """One trace, on a machine that has just booted."""

    vmalloc_class: ClassVar[type[VmallocRange]] = Vmalloc

    def __init__(self, trace: Trace, recorded: dict[str, Any], comparison: Comparison) -> None:
        self.trace = trace
        self._recorded = recorded
        self._comparison = comparison
        self.kernel = kernel = self.boot()
        objects = Objects()
        self.vmalloc = self.vmalloc_class(
            kernel.image,
            kernel.allocator,
            kernel.page_tables,
            kernel.tlb,
            objects.kmalloc,
            objects.kfree,
        )
        self.zones = self.zones_of()
        self._only_addresses = recorded["name"] == _UNALIGNED

    # -- what a release does in its own way ----------------------------------------------------

    def boot(self) -> Kernel:
        """The machine as it was when the recording began."""
        kernel = Kernel(self.trace.kernel_config())
        kernel.start_kernel(until="mem_init")
        return kernel

    def zones_of(self) -> Sequence[Any]:
        """The zones of the one node."""
        return zones_of(self.kernel, self.kernel.image.symbol("contig_page_data"))

    def state(self) -> dict[str, Any]:
        """All free frames."""
        zones = [zone_state(self.kernel, zone, bitmaps=False) for zone in self.zones]
        return {"zones": zones, "nr_free_pages": self.kernel.allocator.nr_free_pages()}

    def counts(self, operation: dict[str, Any]) -> dict[str, Any]:
        """How many frames are free after an operation."""
        return {"free": [zone.free_pages for zone in self.zones]}

    def recorded(self, operation: dict[str, Any]) -> dict[str, Any]:
        """An operation with its answer, in the words of the kernel."""
        return operation

    def area(self, area: Any) -> dict[str, int]:
        """One area as the trace has it."""
        return {"addr": int(area.addr), "size": int(area.size), "flags": int(area.flags)}

    def get_vm_area(self, size: int, flags: int) -> int:
        """The address of a reserved area."""
        return self.vmalloc.get_vm_area(size, flags)

    def operation(self, operation: dict[str, Any]) -> dict[str, Any]:
        """Do what was done, and answer as the trace does, without the counts."""
        name = operation["op"]
        if name == "vfree":
            self.vmalloc.vfree(operation["addr"])
            return {"addr": operation["addr"]}
        size = operation["size"]
        if name == "get_vm_area":
            flags = operation["flags"]
            return {"size": size, "flags": flags, "ret": self.get_vm_area(size, flags)}
        return {"size": size} | self.mapped(getattr(self.vmalloc, name)(size), size)

    # -- what they share ---------------------------------------------------------------------------

    def replay(self) -> None:
        equal, data, name = self._comparison.equal, self.trace.data, self._recorded["name"]
        limits = {
            "VMALLOC_START": self.vmalloc.start,
            "VMALLOC_END": self.vmalloc.end,
            "high_memory": int(self.kernel.statics.high_memory),
            "num_physpages": int(self.kernel.statics.num_physpages),
        }
        for limit, value in limits.items():
            equal(limit, data[limit], value)
        equal(f"{name}.initial", data["initial"], self.state())
        for number, operation in enumerate(self._recorded["ops"]):
            where = f"{name}.ops[{number}] {operation['op']}"
            answer = self._answer(operation)
            if self._only_addresses:
                equal(f"{where}.ret", operation.get("ret"), answer.get("ret"))
                continue
            equal(where, self.recorded(operation), answer)
            self._only_addresses |= bool(operation["op"] == "get_vm_area" and odd(operation))
        if self._only_addresses:
            return
        areas = [self.area(area) for area in self.vmalloc.areas()]
        equal(f"{name}.vmlist", self._recorded["vmlist"], areas)
        equal(f"{name}.vmalloc_pgd", self._recorded["vmalloc_pgd"], self._directory())
        equal(f"{name}.final", self._recorded["final"], self.state())

    def _answer(self, operation: dict[str, Any]) -> dict[str, Any]:
        log = self.kernel.image.log
        said = len(log)
        answer = {"op": operation["op"]} | self.operation(operation)
        if len(log) > said:
            answer["printk"] = "".join(log[said:])
        return answer | self.counts(operation)

    def _directory(self) -> list[list[int]]:
        """The entries of the page directory above the direct map."""
        directory = self.kernel.ram.table(SWAPPER_PG_DIR)
        first = int(self.kernel.statics.high_memory) >> 22
        return [[i, int(directory[i])] for i in range(first, 1024) if directory[i]]

    def mapped(self, addr: int, size: int) -> dict[str, Any]:
        """The address, and of an area its frames as [first, frames] runs, and its first PTE, from
        the tables."""
        if not addr:
            return {"ret": addr}
        tables = self.kernel.tables
        runs: list[list[int]] = []
        first = 0
        for vaddr in range(addr & -PAGE_SIZE, (addr & -PAGE_SIZE) + size, PAGE_SIZE):
            pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER_PG_DIR, vaddr), vaddr)
            pte = tables.entry(tables.pte_offset(pmdp, vaddr))
            first = first or pte
            pfn = pte_pfn(pte)
            if runs and pfn == runs[-1][0] + runs[-1][1]:
                runs[-1][1] += 1
            else:
                runs.append([pfn, 1])
        return {"ret": addr, "pfns": runs, "pte0": first}


def odd(operation: dict[str, Any]) -> bool:
    return bool(operation["size"] & (1 << PAGE_SHIFT) - 1)
