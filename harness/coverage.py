# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages a comparison puts to the CPU, when it does not take all 1,048,576.

* every page that the tables map, or fail to map because of a reserved bit;
* every absent page beside one of those;
* under every entry of the page directory, present or not: the first page, the last, and one
  chosen by the seed, as far as they are absent;
* a sample of the other absent pages, chosen by the seed;
* every page that the caller names.

Nothing here can fail. Pages behind a table outside RAM are left out: there the architecture
says nothing that a CPU could contradict.
"""

from typing import Final

import numpy as np

from harness.mappings import I64, PAGES, RIGHT_BAD_TABLE, Pages

SAMPLE: Final = 1024
"""Absent pages in the sample."""


def pages_to_ask(
    pages: Pages,
    pages_per_directory_entry: int,
    seed: int,
    *named: I64,
    sample: int = SAMPLE,
) -> I64:
    """The page numbers, sorted. The same seed chooses the same pages."""
    random = np.random.default_rng(seed)
    chosen = (pages.rights != 0) & (pages.rights != RIGHT_BAD_TABLE)
    beside = np.zeros(PAGES, np.bool_)
    beside[1:] |= chosen[:-1]
    beside[:-1] |= chosen[1:]
    first = np.arange(0, PAGES, pages_per_directory_entry)
    inside = random.integers(0, pages_per_directory_entry, len(first))
    scattered = random.integers(0, PAGES, sample)
    chosen |= beside
    last = first + pages_per_directory_entry - 1
    for numbers in (first, last, first + inside, scattered, *named):
        chosen[numbers] = True
    chosen &= pages.rights != RIGHT_BAD_TABLE
    return np.flatnonzero(chosen)
