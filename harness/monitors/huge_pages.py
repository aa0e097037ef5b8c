# SPDX-License-Identifier: GPL-2.0-or-later
"""The census of huge pages: every one is free, or has exactly the users that can be found.

Looks at RAM alone: the pool's lists and numbers (linux-2.6.11 ``mm/hugetlb.c``), ``struct page`` of
every frame, and the page directories of all address spaces. A huge page in use is in the page
cache, or mapped by entries with the PSE bit, and its count is the number of both.

What can fail is what it is for: :class:`HugePagesWrong` names the frame, or the number, that
contradicts the rest.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel

__all__ = ["HugeEntry", "HugePagesWrong", "huge_entries", "huge_pages_census"]

_PAGE_OFFSET: Final = 0xC0000000
_PG_COMPOUND: Final = 1 << 15
_PSE: Final = 0x80
_NODES: Final = 4
_LONGEST: Final = 1 << 16

HugeEntry = tuple[int, int, int]
"""(page directory, address, first frame) of a huge page that is mapped."""


class HugePagesWrong(MmucheckError):
    """The pool, the frames and the page tables do not tell the same."""


def huge_pages_census(kernel: Kernel, pgds: Iterable[int]) -> list[HugeEntry]:
    """Compare everything; ``pgds`` are the page directories of all processes.

    Returns the entries that map huge pages.
    """
    entries = [entry for pgd in dict.fromkeys(pgds) for entry in huge_entries(kernel, pgd)]
    users = Counter(pfn for _, _, pfn in entries)
    free = _free_lists(kernel)
    in_use = _in_use(kernel, set(free))
    statics = kernel.statics
    total = len(free) + len(in_use)
    if total != statics.nr_huge_pages:
        raise HugePagesWrong(f"nr_huge_pages is {statics.nr_huge_pages}, but there are {total}")
    for pfn in users.keys() - in_use.keys():
        where = next(f"{address:#x}" for _, address, frame in entries if frame == pfn)
        raise HugePagesWrong(f"{where} maps frame {pfn:#x}, which is no huge page in use")
    for pfn, (count, cached) in in_use.items():
        found = users[pfn] + cached
        if count != found:
            raise HugePagesWrong(
                f"the huge page of frame {pfn:#x} counts {count} users, but {users[pfn]} entries "
                f"map it and it is{'' if cached else ' not'} cached"
            )
    return entries


def huge_entries(kernel: Kernel, pgd: int) -> Iterator[HugeEntry]:
    """Every huge page that the user part of a page directory maps."""
    ram, wide = kernel.ram, kernel.config.pae
    directories = [(pgd, 0, 768)]
    if wide:
        above = ram.table(pgd, 3, np.uint64).tolist()
        directories = [(entry & ~0xFFF, at << 30, 512) for at, entry in enumerate(above) if entry]
    shift, dtype = (21, np.uint64) if wide else (22, np.uint32)
    for table, start, count in directories:
        for at, entry in enumerate(ram.table(table, count, dtype).tolist()):
            if entry & _PSE:
                yield pgd, start + (at << shift), entry >> shift << shift - 12


def _free_lists(kernel: Kernel) -> list[int]:
    """First frames of the free huge pages."""
    memmap, statics = kernel.allocator.memmap, kernel.statics
    link, found = kernel.image.structs.page.offset("lru"), []
    for nid in range(_NODES):
        head = kernel.image.symbol("hugepage_freelists") + nid * 8
        entry, length = kernel.ram.words[head - _PAGE_OFFSET >> 2], 0
        while entry != head and length < _LONGEST:
            found.append(memmap.pfn(entry - link))
            entry = kernel.ram.words[entry - _PAGE_OFFSET >> 2]
            length += 1
        if length != statics.free_huge_pages_node[nid]:
            said = int(statics.free_huge_pages_node[nid])
            raise HugePagesWrong(f"node {nid} says {said} free huge pages, its list has {length}")
    if len(found) != statics.free_huge_pages:
        raise HugePagesWrong(
            f"free_huge_pages is {statics.free_huge_pages}, the lists have {len(found)}"
        )
    return found


def _in_use(kernel: Kernel, free: set[int]) -> dict[int, tuple[int, bool]]:
    """(users, whether it is cached) of every huge page that is not free, by its first frame.

    They are known by their destructor, in the second frame.
    """
    memmap, page = kernel.allocator.memmap, kernel.image.structs.page
    frames = 512 if kernel.config.pae else 1024
    rows = memmap.rows(memmap.page(0), int(kernel.statics.max_mapnr))
    rows = rows[: len(rows) // frames * frames]
    mapping, flags = rows[:, page.word("mapping")], rows[:, page.word("flags")]
    count = rows[:, page.word("_count")]
    heads = np.arange(0, len(rows), frames)
    compound = (flags[heads] & flags[heads + 1] & _PG_COMPOUND) != 0
    used = heads[compound & (mapping[heads + 1] != 0)].tolist()
    for pfn in free:
        if pfn in used or not flags[pfn] & _PG_COMPOUND:
            raise HugePagesWrong(f"frame {pfn:#x} is on a free list, but is no free huge page")
    return {pfn: (int(count[pfn]) + 1 & 0xFFFFFFFF, bool(mapping[pfn])) for pfn in used}
