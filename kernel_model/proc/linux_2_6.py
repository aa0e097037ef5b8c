# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/meminfo and /proc/vmstat of 2.6.

Models linux-2.6.11 ``fs/proc/proc_misc.c: meminfo_read_proc()`` and ``mm/page_alloc.c:
vmstat_show()``. Free frames that CPUs keep on their lists count as used, as in the kernel. Block
buffers are not modelled, so ``Buffers`` is 0.
"""

from typing import Final, cast

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.kernel import Kernel
from kernel_model.mm.hugetlb.geometry import HugePages
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.page_state import PageState
from kernel_model.proc.meminfo import swap_pages

_K: Final = PAGE_SHIFT - 10
_IN_SECTORS: Final = ("pgpgin", "pgpgout")


def _page_state(kernel: Kernel) -> PageState:
    return cast(PageAllocator26, kernel.allocator).page_state


def _vmalloc(kernel: Kernel) -> dict[str, int]:
    """Bytes of the vmalloc range, of what is in use, and of the largest hole."""
    start, end = kernel.vmalloc_range
    used, largest, behind = 0, 0, start
    for area in kernel.vmalloc.areas():
        addr, size = int(area.addr), int(area.size)
        if not start <= addr < end:
            continue
        used += size
        largest = max(largest, addr - behind)
        behind = addr + size
    return {
        "VmallocTotal": end - start,
        "VmallocUsed": used,
        "VmallocChunk": max(largest, end - behind),
    }


def meminfo_data(kernel: Kernel) -> dict[str, int]:
    """The lines in kB, by their names; of huge pages there are so many."""
    statics, allocator, state = kernel.statics, kernel.allocator, _page_state(kernel)
    total, total_high = int(statics.totalram_pages), int(statics.totalhigh_pages)
    free, free_high = allocator.nr_free_pages(), allocator.nr_free_highpages()
    swap_cached = int(statics.swapper_space.nrpages)
    swap_total, swap_free = swap_pages(kernel)
    ratio = int(statics.sysctl_overcommit_ratio)
    huge = int(statics.nr_huge_pages) << HugePages.of(pae=kernel.config.pae).order
    pages = {
        "MemTotal": total,
        "MemFree": free,
        "Buffers": 0,
        "Cached": int(statics.nr_pagecache) - swap_cached,
        "SwapCached": swap_cached,
        "Active": allocator.lru.nr_active(),
        "Inactive": allocator.lru.nr_inactive(),
        "HighTotal": total_high,
        "HighFree": free_high,
        "LowTotal": total - total_high,
        "LowFree": free - free_high,
        "SwapTotal": swap_total,
        "SwapFree": swap_free,
        "Dirty": state.total("nr_dirty"),
        "Writeback": state.total("nr_writeback"),
        "Mapped": state.total("nr_mapped"),
        "Slab": state.total("nr_slab"),
        "CommitLimit": (total - huge) * ratio // 100 + swap_total,
        "Committed_AS": int(statics.vm_committed_space),
        "PageTables": state.total("nr_page_table_pages"),
    }
    found = {name: count << _K for name, count in pages.items()}
    found |= {name: size >> 10 for name, size in _vmalloc(kernel).items()}
    return found | _huge_pages(kernel)


def _huge_pages(kernel: Kernel) -> dict[str, int]:
    """``hugetlb_report_meminfo()``: two numbers of pages, and a size in kB."""
    return {
        "HugePages_Total": int(kernel.statics.nr_huge_pages),
        "HugePages_Free": int(kernel.statics.free_huge_pages),
        "Hugepagesize": HugePages.of(pae=kernel.config.pae).size >> 10,
    }


def meminfo_text(kernel: Kernel) -> str:
    """The file as Linux prints it."""
    huge, lines = _huge_pages(kernel), []
    for name, value in meminfo_data(kernel).items():
        if name in huge:
            unit = "" if name.startswith("HugePages_") else " kB"
            lines.append(f"{name + ':':<16} {value:>5}{unit}\n")
        else:
            lines.append(f"{name + ':':<13} {value:>8} kB\n")
    return "".join(lines)


def vmstat_data(kernel: Kernel) -> dict[str, int]:
    """Every counter, summed over the CPUs; what counts sectors is told in kB."""
    state = _page_state(kernel)
    found = {name: state.total(name) for name in state.names}
    return found | {name: found[name] // 2 for name in _IN_SECTORS}


def vmstat_text(kernel: Kernel) -> str:
    """A line for each counter."""
    return "".join(f"{name} {value}\n" for name, value in vmstat_data(kernel).items())
