# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program of 2.6 gets of its address space, and that nothing of it stays when it ends."""

import pytest

from harness.machine import Machine
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT
from tests.harness.running import Running

PROGRAMS = ("hello", "any_order", "signal_children")
PAGE = 4096
STACK_PAGES = 21
"""One of arguments, and twenty below."""


def anon_vmas(kernel: Kernel) -> int:
    """Those that somebody has: what lies in the cache's array is free."""
    cache, structs = kernel.slab.find("anon_vma"), kernel.image.structs
    assert cache is not None
    arrays = kernel.slab.cpu_caches
    assert arrays is not None
    waiting = kernel.image.at(structs.array_cache, arrays.array(cache)).avail
    return sum(cache.inuse(slab) for slab in cache.all_slabs()) - int(waiting)


@pytest.mark.book("4.8")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_laid_out_charged_and_gone(name: str) -> None:
    kernel = Kernel(KernelConfig(release="2.6"))
    running = Running(Machine(kernel), name)
    areas, mm = kernel.spaces.areas, running.process.mm
    space, views = areas.mm(mm), [areas.vma(vma) for vma in areas.list(mm)]
    assert (space.mmap_base, space.stack_vm) == (0xC0000000 - (128 << 20), STACK_PAGES)
    charged = [v.vm_end - v.vm_start for v in views if v.vm_flags & VM_ACCOUNT]
    assert kernel.statics.vm_committed_space == sum(charged) // PAGE >= STACK_PAGES
    assert anon_vmas(kernel) > 0, "its arguments are pages of its own"
    assert running.run().status == 0
    assert (kernel.statics.vm_committed_space, anon_vmas(kernel)) == (0, 0)
