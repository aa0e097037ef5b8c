# SPDX-License-Identifier: GPL-2.0-or-later
"""The first process and the kernel's own address space, as the linked image has them.

Models linux-2.4.22 ``arch/i386/kernel/init_task.c``: ``init_mm`` and ``init_task`` with
``INIT_RLIMITS`` (book 4.3.2). In RAM: the static objects of these names. The kernel's threads
have no ``mm``; they run on somebody's, at first on ``init_mm``.
"""

from typing import Final

from kernel_model.arch_i386.page import phys_to_virt
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.lists import Lists
from kernel_model.structs.mm import DEFAULT_MAX_MAP_COUNT
from kernel_model.structs.sched import (
    CAP_SETPCAP,
    RLIM_INFINITY,
    RLIM_NLIMITS,
    RLIMIT_CORE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    RLIMIT_STACK,
)

KERNEL_DS: Final = 0xFFFFFFFF
"""``addr_limit`` of the kernel: it may name any address."""
INIT_RLIMITS: Final = {
    RLIMIT_STACK: (8 << 20, RLIM_INFINITY),
    RLIMIT_CORE: (0, RLIM_INFINITY),
    RLIMIT_NPROC: (0, 0),
    RLIMIT_NOFILE: (1024, 1024),
}
"""The limits that are not infinite."""


def init_task(image: KernelImage) -> None:
    """Fill ``init_mm``, ``init_task`` and the limits that sysctl may change."""
    statics, lists = image.statics, Lists(image.ram)
    mm, kind = statics.init_mm, image.structs.mm_struct
    mm.pgd = phys_to_virt(SWAPPER_PG_DIR)
    # The image holds on to init_mm, and cpu_init() once more for the idle task that borrows it.
    mm.mm_users, mm.mm_count = 2, 2
    lists.init(image.symbol("init_mm") + kind.offset("mmlist"))
    lists.init(
        image.symbol("init_mm")
        + kind.offset("mmap_sem")
        + image.structs.rw_semaphore.offset("wait_list")
    )
    task = image.current_task
    task.addr_limit = KERNEL_DS
    task.comm[:7] = b"swapper"
    lists.init(image.init_task + image.structs.task_struct.offset("local_pages"))
    task.active_mm = image.symbol("init_mm")
    task.cap_effective = 0xFFFFFFFF & ~(1 << CAP_SETPCAP)
    for resource in range(RLIM_NLIMITS):
        limit = task.rlim[resource]
        limit.rlim_cur, limit.rlim_max = INIT_RLIMITS.get(resource, (RLIM_INFINITY,) * 2)
    statics.swap_mm = image.symbol("init_mm")
    statics.max_map_count = DEFAULT_MAX_MAP_COUNT
