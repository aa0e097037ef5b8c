# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``bootmem`` of 2.6: with the place of the last success, and per-CPU lists at the end."""

from typing import Any

from harness.replay.bootmem import BootmemRun
from harness.replay.linux_2_6.zones import allocator_of, state
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.layout import zone_sizes
from kernel_model.arch_i386.linux_2_6.layout import free_all_bootmem
from kernel_model.mm.free_area import name_zones
from kernel_model.mm.linux_2_6.free_area import free_area_init_node


class BootmemRun26(BootmemRun):
    """One trace, on a machine on which nothing has run yet."""

    online_cpus = 1

    def last(self, bdata: Any) -> list[int]:
        return [*super().last(bdata), int(bdata.last_success)]

    def free_area_init(self) -> None:
        kernel = self.kernel
        sizes = zone_sizes(kernel.statics.max_low_pfn, high=0)
        name_zones(kernel.image)
        memmap = allocator_of(kernel).memmap
        free_area_init_node(kernel.image, kernel.bootmem, memmap, 0, self.pgdat, sizes)

    def free_all_bootmem(self) -> int:
        kernel = self.kernel
        return free_all_bootmem(kernel.image, kernel.bootmem, allocator_of(kernel), self.pgdat)

    def state(self) -> dict[str, Any]:
        return state(self.kernel, self.online_cpus)


def replay(trace: Trace, comparison: Comparison) -> None:
    for number, recorded in enumerate(trace.data["traces"]):
        where = f"traces[{number}] {recorded['name']}"
        run = BootmemRun26(trace, recorded, comparison, where)
        run.online_cpus = int(trace.data["online_cpus"])
        run.replay()
