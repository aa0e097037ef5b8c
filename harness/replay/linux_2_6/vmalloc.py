# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``vmalloc`` of 2.6: as that of 2.4, with ``vmap()``, arrays and per-CPU lists."""

from collections.abc import Sequence
from typing import Any, ClassVar

from harness.replay import vmalloc
from harness.replay.linux_2_6.zones import boot_to_initcalls, state
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.arch_i386.pgtable import PAGE_KERNEL
from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import for_each_zone
from kernel_model.mm.vmalloc import linux_2_6
from kernel_model.mm.vmalloc.areas import VmallocRange


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        Run(trace, recorded, comparison).replay()


class Run(vmalloc.Run):
    """One trace, on a 2.6 machine that has just booted."""

    vmalloc_class: ClassVar[type[VmallocRange]] = linux_2_6.Vmalloc
    vmalloc: linux_2_6.Vmalloc

    def boot(self) -> Kernel:
        return boot_to_initcalls(self.trace)

    def zones_of(self) -> Sequence[Any]:
        return list(for_each_zone(self.kernel.image))

    def state(self) -> dict[str, Any]:
        return state(self.kernel, int(self.trace.data["online_cpus"]))

    def counts(self, operation: dict[str, Any]) -> dict[str, Any]:
        cpu = int(self.kernel.allocator.current.processor)
        counted = {
            "free": [zone.free_pages for zone in self.zones],
            "pcp": [pcp.count for zone in self.zones for pcp in zone.pagesets[cpu]],
        }
        return {name: value for name, value in counted.items() if name in operation}

    def recorded(self, operation: dict[str, Any]) -> dict[str, Any]:
        """A place in the source, without the folder in which the recorded kernel was built."""
        said = operation.get("printk")
        return operation | {"printk": said.replace("k/mm/", "mm/")} if said else operation

    def area(self, area: Any) -> dict[str, int]:
        return super().area(area) | {
            "nr_pages": int(area.nr_pages),
            "has_pages": int(bool(area.pages)),
            "phys_addr": int(area.phys_addr),
        }

    def get_vm_area(self, size: int, flags: int) -> int:
        area = self.vmalloc.get_vm_area(size, flags)
        return int(self.vmalloc.area(area).addr) if area else 0

    def operation(self, operation: dict[str, Any]) -> dict[str, Any]:
        answers = {
            "alloc": self._alloc,
            "vmap": self._vmap,
            "vunmap": self._vunmap,
            "remove_vm_area": self._remove_vm_area,
            "__vmalloc": self._vmalloc,
        }
        answer = answers.get(operation["op"])
        return answer(operation) if answer else super().operation(operation)

    def _alloc(self, operation: dict[str, Any]) -> dict[str, Any]:
        gfp, order = operation["gfp"], operation["order"]
        page = self.kernel.allocator.alloc_pages(gfp, order)
        pfn = self.kernel.allocator.memmap.pfn(page) if page else None
        return {"gfp": gfp, "order": order, "pfn": pfn}

    def _vmap(self, operation: dict[str, Any]) -> dict[str, Any]:
        memmap = self.kernel.allocator.memmap
        pages = [memmap.page(pfn) for pfn in operation["pages"]]
        addr = self.vmalloc.vmap(pages, operation["flags"], PAGE_KERNEL)
        asked = {name: operation[name] for name in ("count", "flags", "pages")}
        return asked | self.mapped(addr, len(pages) << PAGE_SHIFT)

    def _vunmap(self, operation: dict[str, Any]) -> dict[str, Any]:
        self.vmalloc.vunmap(operation["addr"])
        return {"addr": operation["addr"]}

    def _remove_vm_area(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The recording gives the size of what was removed, and drops the rest."""
        area = self.vmalloc.remove_vm_area(operation["addr"])
        size = int(self.vmalloc.area(area).size) if area else 0
        return {"addr": operation["addr"], "ret": size}

    def _vmalloc(self, operation: dict[str, Any]) -> dict[str, Any]:
        size, gfp = operation["size"], operation["gfp"]
        addr = self.vmalloc.allocate(size, gfp, PAGE_KERNEL)
        return {"size": size, "gfp": gfp} | self.mapped(addr, size)
