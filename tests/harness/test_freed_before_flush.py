# SPDX-License-Identifier: GPL-2.0-or-later
"""No frame is given back while the TLB of a machine with two CPUs still has it (book 3.8).

With one CPU nobody can use the translation before the flush; 2.6 then frees first. With two, a
thread on the other CPU could: what is unmapped is gathered, flushed, and freed after that.
"""

from collections.abc import Callable
from typing import Any

import pytest

from harness.architecture import Access, Ring
from kernel_model.mm.memory.linux_2_4.zap import Zapper
from kernel_model.mm.memory.linux_2_6.gather import Gatherer, MmuGather
from kernel_model.structs.sched import CLONE_VM
from tests.harness.flush_stage import AT, RELEASES, Stage

Patch = pytest.MonkeyPatch


class Watch:
    """A listener that asks the MMU about the page at ``AT`` whenever a frame is given back."""

    def __init__(self, stage: Stage) -> None:
        self.cpu = stage.world.machine.cpu
        self.frame = stage.world.frame(stage.process, AT)
        self.given_back = 0
        self.too_early = False

    def frame_given_back(self, pfn: int, order: int) -> None:
        if pfn <= self.frame < pfn + (1 << order):
            self.given_back += 1
            self.too_early |= self.cpu.translate(AT, Access.WRITE, Ring.USER) is not None

    def __getattr__(self, name: str) -> Callable[..., None]:
        """What else is announced does not matter."""
        return lambda *arguments: None


def unmapped(stage: Stage) -> Watch:
    """The page was written to; it is unmapped while a thread runs in the same space."""
    stage.written()
    stage.world.spaces.fork(stage.process, CLONE_VM)
    watch = Watch(stage)
    stage.kernel.image.events.listeners.append(watch)
    stage.munmap()
    assert watch.given_back == 1
    return watch


@pytest.mark.book("3.8")
@pytest.mark.book("3.8", release="2.6")
@pytest.mark.parametrize("release", RELEASES)
def test_a_frame_goes_after_the_flush(release: str) -> None:
    assert not unmapped(Stage("SMP", release)).too_early


def frames_go_at_once(patch: Patch) -> None:
    """As if no other CPU were there."""
    patch.setattr(Zapper, "_others_may_use", lambda self, mm: False)
    patch.setattr(
        Gatherer,
        "tlb_gather_mmu",
        lambda self, mm, full_mm_flush=False: MmuGather(self, mm, fast_mode=True),
    )


def frames_go_first(patch: Patch) -> None:
    """All of them, then the flush."""

    def flush_and_free(self: Any, pgd: int, start: int, end: int, gathered: list[int]) -> None:
        for pte in filter(self.counted, gathered):
            self._free_pte(pte)
        gathered.clear()
        real(self, pgd, start, end, gathered)

    def flush(self: Any) -> None:
        for page in self._waiting:
            self._parts.swap.free_page_and_swap_cache(page)
        self._waiting.clear()
        real_26(self)

    real, real_26 = Zapper._flush_and_free, MmuGather._flush
    patch.setattr(Zapper, "_flush_and_free", flush_and_free)
    patch.setattr(MmuGather, "_flush", flush)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("plant", [frames_go_at_once, frames_go_first])
def test_one_that_goes_before_is_seen(
    release: str, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    assert unmapped(Stage("SMP", release)).too_early
