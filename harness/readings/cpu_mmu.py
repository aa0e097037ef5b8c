# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulator's MMU, asked without running the guest.

It answers from its TLB where it can, as an access would: that is how a missing flush shows. It
does not tell error codes. Its own tables and CR2 are as before when the questions end; see
:mod:`harness.cpu.query`. Nothing here raises for what the tables hold.
"""

from typing import Final

import numpy as np

from harness.cpu.interface import Cpu
from harness.mappings import I64, PAGE_SHIFT
from harness.progress import Meter
from harness.readings.reading import FAULT, QUESTIONS, Reading

__all__ = ["NAME", "ask_mmu"]

NAME: Final = "cpu"
_NO_PAGES: Final = np.empty(0, np.int64)
_BLOCK: Final = 1 << 15
"""Pages between two moves of the progress bar."""
_URGENT_BLOCK: Final = 64
"""Pages asked about at a time where old translations must not be evicted by new ones: the TLB
has 256 entries to begin with."""


def ask_mmu(cpu: Cpu, pages: I64, meter: Meter, urgent: I64 = _NO_PAGES) -> Reading:
    """Put all questions about ``pages`` (numbers, sorted) to the MMU.

    The address space is the one that CR3 names. Nothing is flushed before. ``urgent`` are those
    of the pages that come first and in this order, each with all its questions: their
    translations may be old.
    """
    answers = np.empty((len(QUESTIONS), len(pages)), np.int64)
    addresses = pages.astype(np.uint64) << np.uint64(PAGE_SHIFT)
    first = np.searchsorted(pages, urgent[np.isin(urgent, pages)])
    rest = np.setdiff1d(np.arange(len(pages)), first)
    meter.start("asking the MMU", len(pages))
    with cpu.asking():
        for indices, size in ((first, _URGENT_BLOCK), (rest, _BLOCK)):
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                for row, (ring, access) in enumerate(QUESTIONS):
                    reached = cpu.translate_many(addresses[part], access, ring)
                    answers[row, part] = np.where(reached < 0, FAULT, reached >> PAGE_SHIFT)
                meter.advance(len(part))
    return Reading(NAME, pages, answers)
