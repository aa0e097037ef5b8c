# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel model means an address space to be, from its records alone.

The kernel's part comes from ``Kernel.kernel_mappings()``; the user part, and what the kernel
maps without a record of it, from the frame ledger (:mod:`harness.monitors.frames`). No page
table is read for it: they are what gets compared.

A user page needs a second leave: its VMA's (:mod:`harness.readings.areas`). Where the ledger has
a page that lies in no VMA, or has more rights than its VMA gives, the model contradicts itself,
whatever the page tables hold: :func:`beyond_areas`.

One thing is meant in two ways. What the kernel mapped under a new entry of its own directory
reaches any other one by its vmalloc fault: until then the entry may be absent there, and nothing
else. :func:`intended_space` takes the way that it finds.

What can fail: :class:`~kernel_model.errors.MmucheckError` for a kernel that has not started,
or a user address space that nobody kept book of.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from harness.mappings import (
    I64,
    PAGE_SHIFT,
    PAGES,
    RIGHT_BAD_TABLE,
    RIGHT_GLOBAL,
    RIGHT_NX,
    RIGHT_PRESENT,
    RIGHT_RESERVED,
    RIGHT_USER,
    RIGHT_WRITE,
    Pages,
)
from harness.monitors.frames import FrameLedger, rights_bits
from harness.readings.areas import areas_of
from harness.readings.spec import SpecView
from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.errors import MmucheckError
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel

__all__ = [
    "NAME",
    "allowed_pages",
    "beyond_areas",
    "contradicts",
    "intended_pages",
    "intended_space",
]

NAME: Final = "intent"
_COMPARED: Final = RIGHT_PRESENT | RIGHT_WRITE | RIGHT_USER | RIGHT_RESERVED | RIGHT_BAD_TABLE


def intended_pages(kernel: Kernel, mm: int, *, no_execute: bool) -> Pages:
    """The address space ``mm`` (physical address of its page directory) as it is meant.

    ``no_execute``: the CPU has NX in effect; without it every page may be executed.
    """
    if not kernel.started:
        raise MmucheckError("the kernel has not started: its records say nothing yet")
    pfn = np.full(PAGES, -1, np.int64)
    rights = np.zeros(PAGES, np.uint16)
    for mapping in kernel.kernel_mappings():
        first, count = mapping.vaddr >> PAGE_SHIFT, mapping.size >> PAGE_SHIFT
        pfn[first : first + count] = np.arange(count) + (mapping.paddr >> PAGE_SHIFT)
        rights[first : first + count] = rights_bits(mapping.rights)
    ledger = FrameLedger.of(kernel.image.events)
    if ledger is not None:
        # The kernel's part is the same in every address space.
        for space in (SWAPPER_PG_DIR, mm):
            numbers, frames, meant = ledger.pages(space)
            pfn[numbers] = np.where(meant & RIGHT_PRESENT, frames, -1)
            rights[numbers] = meant
    elif mm != SWAPPER_PG_DIR:
        raise MmucheckError(
            f"nobody kept book of the address space {mm:#x}: let a FrameLedger listen to the "
            f"kernel's events before its first page is mapped"
        )
    if not no_execute:
        rights &= np.uint16(0xFFFF & ~RIGHT_NX)
    return Pages(pfn, rights, no_execute)


def intended_space(kernel: Kernel, spec: SpecView) -> Pages:
    """What the address space that ``spec`` shows is meant to be.

    Pages under an entry that its directory still waits for are absent if the entry is.
    """
    mm = spec.registers.cr3
    intent = intended_pages(kernel, mm, no_execute=spec.pages.no_execute)
    ledger = FrameLedger.of(kernel.image.events)
    for pages in ledger.awaited_tables(mm) if ledger is not None else ():
        if spec.table_absent(pages.start << PAGE_SHIFT):
            intent.pfn[pages.start : pages.stop] = -1
            intent.rights[pages.start : pages.stop] = 0
    return intent


def beyond_areas(kernel: Kernel, mm: int) -> I64:
    """The user pages that the ledger has beyond what the VMAs of ``mm`` allow, sorted."""
    ledger = FrameLedger.of(kernel.image.events)
    if ledger is None:
        return np.empty(0, np.int64)
    numbers, _, rights = ledger.pages(mm)
    user = numbers < TASK_SIZE >> PAGE_SHIFT
    numbers, rights = numbers[user], rights[user]
    return numbers[areas_of(kernel, mm).exceeded(numbers, rights)] if len(numbers) else numbers


def allowed_pages(kernel: Kernel, mm: int, intent: Pages, pages: I64) -> Pages:
    """``intent``, with ``pages`` cut down to what the VMAs of ``mm`` allow."""
    pfn, rights = intent.pfn.copy(), intent.rights.copy()
    rights[pages] &= areas_of(kernel, mm).rights(pages)
    pfn[pages[rights[pages] == 0]] = -1
    return Pages(pfn, rights, intent.no_execute)


def contradicts(intent: Pages, spec: Pages) -> npt.NDArray[np.bool_]:
    """The pages whose tables do not hold what is meant.

    A global page stays in the TLB when the address space changes. The kernel's pages may be
    global, or not; a user page that is would be seen by the next process.
    """
    compared = np.uint16(_COMPARED | (RIGHT_NX if intent.no_execute else 0))
    wrong = (intent.rights ^ spec.rights) & compared != 0
    wrong |= intent.pfn != spec.pfn
    wrong |= (intent.rights & RIGHT_USER != 0) & (spec.rights & RIGHT_GLOBAL != 0)
    return np.asarray(wrong)
