# SPDX-License-Identifier: GPL-2.0-or-later
"""Which flush of the CPU each call of the flush API asks for."""

from collections.abc import Callable

import pytest

from kernel_model.arch_i386.processor import X86_CR4_PGE, NoProcessor
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel

LOADED, OTHER = 0x500000, 0x600000
Call = Callable[[Tlb], None]


class Recorder(NoProcessor):
    """A processor that notes every flush."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes: list[object] = []

    def flush_tlb_one(self, vaddr: int) -> None:
        self.flushes.append(vaddr)

    def flush_tlb_all(self) -> None:
        self.flushes.append("all but global")

    def flush_tlb_global(self) -> None:
        self.flushes.append("all")


ALL = "all but global"
CALLS: list[tuple[str, Call, list[object]]] = [
    ("flush_tlb", lambda tlb: tlb.flush_tlb(), [ALL]),
    ("flush_tlb_mm", lambda tlb: tlb.flush_tlb_mm(LOADED), [ALL]),
    ("flush_tlb_mm other", lambda tlb: tlb.flush_tlb_mm(OTHER), []),
    ("flush_tlb_range", lambda tlb: tlb.flush_tlb_range(LOADED, 0x1000, 0x3000), [ALL]),
    ("flush_tlb_range other", lambda tlb: tlb.flush_tlb_range(OTHER, 0x1000, 0x3000), []),
    ("flush_tlb_page", lambda tlb: tlb.flush_tlb_page(LOADED, 0x8048000), [0x8048000]),
    ("flush_tlb_page other", lambda tlb: tlb.flush_tlb_page(OTHER, 0x8048000), []),
    ("flush_tlb_pgtables", lambda tlb: tlb.flush_tlb_pgtables(LOADED, 0, 0x400000), []),
    ("update_mmu_cache", lambda tlb: tlb.update_mmu_cache(0x8048000, 0x67), []),
    ("flush_cache_all", lambda tlb: tlb.caches.flush_cache_all(), []),
    ("flush_cache_mm", lambda tlb: tlb.caches.flush_cache_mm(LOADED), []),
    ("flush_cache_range", lambda tlb: tlb.caches.flush_cache_range(LOADED, 0, 0x1000), []),
    ("flush_cache_page", lambda tlb: tlb.caches.flush_cache_page(LOADED, 0), []),
    ("flush_page_to_ram", lambda tlb: tlb.caches.flush_page_to_ram(0xC1000000), []),
    ("flush_dcache_page", lambda tlb: tlb.caches.flush_dcache_page(0xC1000000), []),
    ("flush_icache_range", lambda tlb: tlb.caches.flush_icache_range(0, 0x1000), []),
    ("flush_icache_page", lambda tlb: tlb.caches.flush_icache_page(0xC1000000), []),
]


@pytest.mark.book("3.8", "3.9")
@pytest.mark.parametrize(
    ("call", "flushes"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS]
)
def test_a_call_flushes_what_it_must_and_only_of_the_loaded_space(
    call: Call, flushes: list[object]
) -> None:
    processor = Recorder()
    processor.load_cr3(LOADED)
    call(Tlb(Kernel(KernelConfig()).image, processor))
    assert processor.flushes == flushes


@pytest.mark.book("3.8")
@pytest.mark.parametrize(("features", "flush"), [(0, ALL), (X86_CR4_PGE, "all")])
def test_flushing_everything_includes_global_pages_once_there_are_any(
    features: int, flush: str
) -> None:
    kernel, processor = Kernel(KernelConfig()), Recorder()
    kernel.statics.mmu_cr4_features = features
    Tlb(kernel.image, processor).flush_tlb_all()
    assert processor.flushes == [flush]
