# SPDX-License-Identifier: GPL-2.0-or-later
"""The first process: what the linked image says of it."""

import pytest

from kernel_model.config import Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists

INFINITE = 0xFFFFFFFF
LIMITS = {
    3: (8 << 20, INFINITE),
    4: (0, INFINITE),
    6: (0, 0),
    7: (1024, 1024),
}
"""Stack, core, processes, open files, as ``ulimit`` shows them for init."""


@pytest.mark.book("4.3.2")
@pytest.mark.parametrize("highmem", Highmem)
def test_a_kernel_thread_borrows_init_mm(highmem: Highmem) -> None:
    kernel = Kernel(KernelConfig(highmem=highmem))
    task, init_mm = kernel.image.current_task, kernel.image.symbol("init_mm")
    assert (task.mm, task.active_mm) == (0, init_mm)
    assert kernel.statics.init_mm.pgd == 0xC0101000
    mmlist = init_mm + kernel.image.structs.mm_struct.offset("mmlist")
    assert Lists(kernel.ram).empty(mmlist)


def test_limits_and_privileges_of_the_first_process() -> None:
    task = Kernel().image.current_task
    assert task.addr_limit == INFINITE
    limits = {i: (limit.rlim_cur, limit.rlim_max) for i, limit in enumerate(task.rlim)}
    assert limits == {i: LIMITS.get(i, (INFINITE, INFINITE)) for i in range(11)}
    assert task.cap_effective == INFINITE - (1 << 8)
