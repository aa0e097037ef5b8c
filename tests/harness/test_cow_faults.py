# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted faults of copy on write, each found by a row of its table."""

from collections.abc import Callable
from typing import Any

import pytest

from kernel_model.errors import MmucheckError
from kernel_model.mm.memory.fault import ZERO_PFN, Fault, FaultHandler
from kernel_model.mm.swapfile import SwapAreas
from tests.harness.process_machine import (
    CONFIGS,
    ProcessMachine,
)
from tests.harness.test_cow import rows
from tests.harness.test_cow import test_row as check_row

# -- planted faults --------------------------------------------------------------------------


def the_parent_may_still_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.memory.copy.PAGE_RW", 0)


def the_child_inherits_dirt_of_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.memory.copy.PAGE_DIRTY", 0)


def the_child_inherits_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.memory.copy.PAGE_ACCESSED", 0)


def a_slot_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SwapAreas, "swap_duplicate", lambda self, entry: True)


def everybody_reuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultHandler, "_reusable", lambda self, page: True)


def nobody_reuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultHandler, "_reusable", lambda self, page: False)


def the_copy_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FaultHandler, "copy_user_highpage", lambda self, to, source: self.clear_user_highpage(to)
    )


def the_old_frame_keeps_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FaultHandler._do_wp_page

    def do_wp_page(
        self: Any, mm: int, pgd: int, vma: int, vaddr: int, ptep: int, pte: int
    ) -> Fault:
        if pte >> 12 != ZERO_PFN:
            self._allocator.get_page(self._memmap.page(pte >> 12))
        return real(self, mm, pgd, vma, vaddr, ptep, pte)

    monkeypatch.setattr(FaultHandler, "_do_wp_page", do_wp_page)


def dontcopy_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.fork.VM_DONTCOPY", 0)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (the_parent_may_still_write, "written"),
        (the_child_inherits_dirt_of_shared_memory, "shared anonymous"),
        (the_child_inherits_age, "written"),
        (a_slot_is_not_counted, "swapped out"),
        (everybody_reuses, "written"),
        (nobody_reuses, "written"),
        (the_copy_is_empty, "private file, read"),
        (the_old_frame_keeps_its_user, "written"),
        (dontcopy_is_copied, "not to be copied"),
    ],
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ProcessMachine(CONFIGS["2-level"])
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        check_row(world, next(row for row in rows() if row.what == what))
