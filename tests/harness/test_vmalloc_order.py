# SPDX-License-Identifier: GPL-2.0-or-later
"""When vmalloc() has its frames, and when it maps them: 2.4 one by one, 2.6 all frames first."""

import pytest

from kernel_model.config import MIB, KernelConfig
from kernel_model.events import Announcer
from kernel_model.kernel import Kernel

PAGE = 4096
PAGES = 5


@pytest.mark.book("7.2", "7.4")
@pytest.mark.parametrize(
    ("release", "order"),
    [("2.4", "frame PTE " * PAGES), ("2.6", "frame " * PAGES + "PTE " * PAGES)],
)
def test_frames_and_ptes_come_in_the_order_of_the_release(
    release: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(KernelConfig(release=release, ram=16 * MIB))
    kernel.start_kernel()
    happened: list[str] = []
    taken, mapped = Announcer.frame_taken, Announcer.page_mapped

    def frame_taken(self: Announcer, pfn: int, order: int, purpose: str) -> None:
        if purpose == "vmalloc":
            happened.append("frame")
        taken(self, pfn, order, purpose)

    def page_mapped(self: Announcer, *what: object) -> None:
        happened.append("PTE")
        mapped(self, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(Announcer, "frame_taken", frame_taken)
    monkeypatch.setattr(Announcer, "page_mapped", page_mapped)
    assert kernel.vmalloc.vmalloc(PAGES * PAGE)
    assert happened == order.split()
