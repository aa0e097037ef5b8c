# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/meminfo: how much memory there is, and what it is used for.

Models linux-2.4.22 ``fs/proc/proc_misc.c: meminfo_read_proc()``, ``arch/i386/mm/init.c:
si_meminfo()`` and ``mm/swapfile.c: si_swapinfo()``: first a table in bytes, then lines in kB.
Block buffers are not modelled, so ``Buffers`` is 0, as ``MemShared`` is on every 2.4.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.kernel import Kernel
from kernel_model.mm.swapfile import SWAP_MAP_BAD, SWP_USED, SWP_WRITEOK


@dataclass(frozen=True, slots=True)
class MemInfo:
    """What the file says, in pages. The names are those of its lines."""

    mem_total: int
    mem_free: int
    mem_shared: int
    buffers: int
    cached: int
    swap_cached: int
    active: int
    inactive: int
    high_total: int
    high_free: int
    low_total: int
    low_free: int
    swap_total: int
    swap_free: int


_LINES: Final = (
    *("MemTotal", "MemFree", "MemShared", "Buffers", "Cached", "SwapCached", "Active"),
    *("Inactive", "HighTotal", "HighFree", "LowTotal", "LowFree", "SwapTotal", "SwapFree"),
)


def read(kernel: Kernel) -> MemInfo:
    """The counters, from the kernel's globals and its zones."""
    statics, allocator = kernel.statics, kernel.allocator
    total, total_high = int(statics.totalram_pages), int(statics.totalhigh_pages)
    free, free_high = allocator.nr_free_pages(), allocator.nr_free_highpages()
    swap_cached = int(statics.swapper_space.nrpages)
    swap_total, swap_free = swap_pages(kernel)
    return MemInfo(
        mem_total=total,
        mem_free=free,
        mem_shared=0,
        buffers=0,
        cached=kernel.page_cache.size - swap_cached,
        swap_cached=swap_cached,
        active=kernel.allocator.lru.nr_active(),
        inactive=kernel.allocator.lru.nr_inactive(),
        high_total=total_high,
        high_free=free_high,
        low_total=total - total_high,
        low_free=free - free_high,
        swap_total=swap_total,
        swap_free=swap_free,
    )


def swap_pages(kernel: Kernel) -> tuple[int, int]:
    """Pages of swap in all and free ones.

    An area that is being switched off counts with what still lies in it, as if that were free.
    """
    total, leaving = 0, 0
    for number in range(int(kernel.statics.nr_swapfiles)):
        area = kernel.statics.swap_info[number]
        if area.flags == SWP_USED:
            leaving += _slots_in_use(kernel, area)
        elif area.flags & SWP_WRITEOK == SWP_WRITEOK:
            total += int(area.pages)
    return total + leaving, int(kernel.statics.nr_swap_pages) + leaving


def _slots_in_use(kernel: Kernel, area: Any) -> int:
    counts = kernel.ram.bytes[virt_to_phys(int(area.swap_map)) :][: 2 * area.max].cast("H")
    return sum(1 for count in counts if count not in (0, SWAP_MAP_BAD))


def text(kernel: Kernel) -> str:
    """The file as Linux prints it."""
    info = read(kernel)
    memory = (
        *(info.mem_total, info.mem_total - info.mem_free, info.mem_free, info.mem_shared),
        *(info.buffers, info.cached + info.swap_cached),
    )
    swap = (info.swap_total, info.swap_total - info.swap_free, info.swap_free)
    lines = ["        total:    used:    free:  shared: buffers:  cached:"]
    for name, row in (("Mem:", memory), ("Swap:", swap)):
        lines.append(f"{name:<5} " + " ".join(f"{pages << PAGE_SHIFT:>8}" for pages in row))
    for name, pages in zip(_LINES, asdict(info).values(), strict=True):
        lines.append(f"{name + ':':<13} {pages << PAGE_SHIFT - 10:>8} kB")
    return "\n".join(lines) + "\n"


def data(kernel: Kernel) -> dict[str, int]:
    """The same in kB, by the names of the lines."""
    values = asdict(read(kernel)).values()
    return {name: pages << PAGE_SHIFT - 10 for name, pages in zip(_LINES, values, strict=True)}
