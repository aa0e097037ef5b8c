# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``vmalloc``: areas, the frames behind them, the entries of the page directory.

In the recording ``kmalloc()`` took no frames, so the ``vm_struct``s lie here in a part of the
kernel image that only guests use.
"""

from typing import Any, Final

from harness.replay.trace import Comparison, Trace
from harness.replay.zones import zone_state, zones_of
from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, phys_to_virt
from kernel_model.arch_i386.pgtable import pte_pfn
from kernel_model.image import GUEST_TEXT, SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.vmalloc import Vmalloc

_UNALIGNED: Final = "random_unaligned_get_vm_area"


class _Descriptors:
    """``kmalloc()`` for ``vm_struct``s."""

    def __init__(self) -> None:
        self._next = phys_to_virt(GUEST_TEXT)
        self._free: list[int] = []

    def kmalloc(self, size: int, flags: int) -> int:
        if self._free:
            return self._free.pop()
        self._next += size
        return self._next - size

    def kfree(self, vaddr: int) -> None:
        self._free.append(vaddr)


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        _Run(trace, recorded, comparison).replay()


class _Run:
    """One trace, on a machine that has just booted."""

    def __init__(self, trace: Trace, recorded: dict[str, Any], comparison: Comparison) -> None:
        self._data = trace.data
        self._recorded = recorded
        self._comparison = comparison
        self._kernel = kernel = Kernel(trace.kernel_config())
        kernel.start_kernel(until="mem_init")
        descriptors = _Descriptors()
        self._vmalloc = Vmalloc(
            kernel.image,
            kernel.allocator,
            kernel.page_tables,
            kernel.tlb,
            descriptors.kmalloc,
            descriptors.kfree,
        )
        self._zones = zones_of(kernel, kernel.image.symbol("contig_page_data"))
        self._only_addresses = recorded["name"] == _UNALIGNED

    def replay(self) -> None:
        equal, data, name = self._comparison.equal, self._data, self._recorded["name"]
        limits = {
            "VMALLOC_START": self._vmalloc.start,
            "VMALLOC_END": self._vmalloc.end,
            "high_memory": int(self._kernel.statics.high_memory),
            "num_physpages": int(self._kernel.statics.num_physpages),
        }
        for limit, value in limits.items():
            equal(limit, data[limit], value)
        equal(f"{name}.initial", data["initial"], self._state())
        for number, operation in enumerate(self._recorded["ops"]):
            where = f"{name}.ops[{number}] {operation['op']}"
            answer = self._operation(operation)
            if self._only_addresses:
                equal(f"{where}.ret", operation.get("ret"), answer.get("ret"))
                continue
            equal(where, operation, answer)
            self._only_addresses |= bool(operation["op"] == "get_vm_area" and _odd(operation))
        if self._only_addresses:
            return
        areas = [
            {"addr": int(area.addr), "size": int(area.size), "flags": int(area.flags)}
            for area in self._vmalloc.areas()
        ]
        equal(f"{name}.vmlist", self._recorded["vmlist"], areas)
        equal(f"{name}.vmalloc_pgd", self._recorded["vmalloc_pgd"], self._directory())
        equal(f"{name}.final", self._recorded["final"], self._state())

    def _directory(self) -> list[list[int]]:
        """The entries of the page directory above the direct map."""
        directory = self._kernel.ram.table(SWAPPER_PG_DIR)
        first = int(self._kernel.statics.high_memory) >> 22
        return [[i, int(directory[i])] for i in range(first, 1024) if directory[i]]

    def _state(self) -> dict[str, Any]:
        zones = [zone_state(self._kernel, zone, bitmaps=False) for zone in self._zones]
        return {"zones": zones, "nr_free_pages": self._kernel.allocator.nr_free_pages()}

    def _operation(self, operation: dict[str, Any]) -> dict[str, Any]:
        log = self._kernel.image.log
        said = len(log)
        name = operation["op"]
        answer: dict[str, Any] = {"op": name}
        if name == "vfree":
            answer["addr"] = operation["addr"]
            self._vmalloc.vfree(operation["addr"])
        elif name == "get_vm_area":
            size, flags = operation["size"], operation["flags"]
            answer |= {"size": size, "flags": flags}
            answer["ret"] = self._vmalloc.get_vm_area(size, flags)
        else:
            answer["size"] = operation["size"]
            answer["ret"] = getattr(self._vmalloc, name)(operation["size"])
            if answer["ret"]:
                answer |= self._pages(answer["ret"], operation["size"])
        if len(log) > said:
            answer["printk"] = "".join(log[said:])
        return answer | {"free": [zone.free_pages for zone in self._zones]}

    def _pages(self, addr: int, size: int) -> dict[str, Any]:
        """The frames of an area as [first, frames] runs, and its first PTE, from the tables."""
        tables = self._kernel.tables
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
        return {"pfns": runs, "pte0": first}


def _odd(operation: dict[str, Any]) -> bool:
    return bool(operation["size"] & (1 << PAGE_SHIFT) - 1)
