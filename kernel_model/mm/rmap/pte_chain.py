# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains of PTEs: a frame names every PTE that maps it.

Models linux-2.6.0 ``mm/rmap.c``: ``page_add_rmap()``, ``page_remove_rmap()``,
``pte_chain_alloc()``, and ``include/asm-generic/rmap.h`` (book 3.10). One PTE stands in the frame
itself: ``page->pte.direct``, with PG_direct. More stand in a chain of cache lines,
``page->pte.chain``, each with :data:`NRPTE` slots that are filled from the last one down; only the
first line of a chain has free slots. A PTE that goes leaves its slot to the one in the lowest
filled slot of the first line. Whose a PTE is, and of which address, stands with the frame of its
page table: ``mapping`` is the ``mm``, ``index`` the address that the table begins with.

In RAM besides: ``pte_chain_cache``, and in ``local_pte_chain`` a line that each CPU keeps for the
next need. A frame that is no file's has ``mapping`` 1: :data:`PAGE_MAPPING_ANON`, and no object.

What can fail: memory for a line. A PTE that is not in the chain it is taken from is a
:class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, phys_to_virt
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.structs.linux_2_6.mmzone import NRPTE

_FILE: Final = "rmap.c"
_FIRST_PTE: Final = 1
"""Words from a line to its first slot."""


class PteChains:
    """The reverse map of 2.6.0, of one machine."""

    def __init__(
        self, image: KernelImage, memmap: MemMap, slab: ObjectCaches, tables: PageTables
    ) -> None:
        self._image = image
        self._words = image.ram.words
        self._memmap = memmap
        self._slab = slab
        self._pte = image.structs.page.word("pte")
        self._direct = image.constants.page_flags.direct
        self._gfp = image.constants.gfp
        self._ptep_to_paddr = tables.ptep_to_paddr
        self._physical = image.structs.abi.highmem
        self._shape = THREE_LEVEL if image.config.pae else TWO_LEVEL
        self._entry_shift = self._shape.entry_bytes.bit_length() - 1
        self.pages = MappedPages(image, memmap)

    # -- addresses of PTEs ---------------------------------------------------------------------

    def _to_addr(self, ptep: int) -> int:
        """``ptep_to_paddr()``, a ``pte_addr_t``: with high memory the physical address, because
        page tables may lie there; else the kernel's own."""
        paddr = self._ptep_to_paddr(ptep)
        return paddr if self._physical else phys_to_virt(paddr)

    def _to_paddr(self, addr: int) -> int:
        """Where that PTE is."""
        return addr if self._physical else addr - PAGE_OFFSET

    def owner(self, paddr: int) -> tuple[int, int]:
        """``ptep_to_mm()``, ``ptep_to_address()``: whose PTE it is, and of which address."""
        memmap, at = self._memmap, self._memmap.word(self._memmap.page(paddr >> PAGE_SHIFT), 0)
        index = (paddr & ~PAGE_MASK) >> self._entry_shift
        start = self._words[at + memmap.index_word]
        return self._words[at + memmap.mapping_word], start + index * PAGE_SIZE

    # -- lines ---------------------------------------------------------------------------------

    def reserve(self) -> bool:
        """``pte_chain_alloc()``: let this CPU have a line for the next need."""
        return self._have_line(self._gfp.kernel)

    def ready(self) -> bool:
        return self._have_line(self._gfp.atomic)

    def _have_line(self, gfp_mask: int) -> bool:
        spare = self._image.statics.local_pte_chain
        cpu = int(self._image.current_task.processor)
        if not spare[cpu]:
            spare[cpu] = self._alloc(gfp_mask)
        return bool(spare[cpu])

    def prepare(self, vma: int) -> bool:
        return self.reserve()

    def _alloc(self, gfp_mask: int) -> int:
        cache = int(self._image.statics.pte_chain_cache)
        chain = self._slab.kmem_cache_alloc(cache, gfp_mask)
        if chain:
            at = chain - PAGE_OFFSET >> 2
            self._words[at : at + _FIRST_PTE + NRPTE] = memoryview(
                bytes(4 * (_FIRST_PTE + NRPTE))
            ).cast("I")
        return chain

    def _take(self) -> int:
        """A line, empty: the one that :meth:`reserve` got."""
        spare = self._image.statics.local_pte_chain
        cpu = int(self._image.current_task.processor)
        chain, spare[cpu] = int(spare[cpu]), 0
        if not chain:
            raise KernelBug(_FILE, 0, "a PTE is added, and no line was kept for it")
        return chain

    def _give_back(self, chain: int) -> None:
        """``pte_chain_free()``: this CPU keeps one, the others go."""
        self._words[chain - PAGE_OFFSET >> 2] = 0
        spare = self._image.statics.local_pte_chain
        cpu = int(self._image.current_task.processor)
        if spare[cpu]:
            self._slab.kmem_cache_free(int(self._image.statics.pte_chain_cache), chain)
        else:
            spare[cpu] = chain

    def _next(self, chain: int) -> int:
        return self._words[chain - PAGE_OFFSET >> 2] & ~NRPTE

    def _first_used(self, chain: int) -> int:
        """The lowest slot that is filled."""
        return self._words[chain - PAGE_OFFSET >> 2] & NRPTE

    def _link(self, chain: int, following: int, first_used: int) -> None:
        self._words[chain - PAGE_OFFSET >> 2] = following | first_used

    def _slot(self, chain: int, index: int) -> int:
        """Index into ``Ram.words`` of a slot."""
        return (chain - PAGE_OFFSET >> 2) + _FIRST_PTE + index

    def _slots(self, page: int) -> Iterator[int]:
        """Every filled slot of a chain, by its index into ``Ram.words``."""
        chain = self._words[self._memmap.word(page, self._pte)]
        while chain:
            for index in range(self._first_used(chain), NRPTE):
                yield self._slot(chain, index)
            chain = self._next(chain)

    # -- who maps a frame ----------------------------------------------------------------------

    def ptes(self, page: int) -> Iterator[int]:
        """The PTEs that name the frame, as physical addresses."""
        pte = self._words[self._memmap.word(page, self._pte)]
        if self._memmap.test(page, self._direct):
            yield self._to_paddr(pte)
        elif pte:
            for slot in self._slots(page):
                yield self._to_paddr(self._words[slot])

    def mapcount(self, page: int) -> int:
        return sum(1 for _ in self.ptes(page))

    def mapped(self, page: int) -> bool:
        return self._words[self._memmap.word(page, self._pte)] != 0

    # -- books ---------------------------------------------------------------------------------

    def add_anon(self, page: int, vma: int, vaddr: int, ptep: int) -> None:
        if self._memmap.reserved(page):
            raise KernelBug(_FILE, 0, f"frame {self._memmap.pfn(page):#x} is reserved")
        if not self.mapped(page):
            self.pages.make_anon(page, 0, self.pages.linear_page_index(vma, vaddr))
        self.pages.count_anon_rss(self.pages.mm(vma), 1)
        self._add(page, ptep)

    def add_file(self, page: int, ptep: int) -> None:
        if not self._memmap.reserved(page):
            self._add(page, ptep)

    def duplicate(self, mm: int, page: int, ptep: int) -> None:
        if self.pages.anon(page):
            self.pages.count_anon_rss(mm, 1)
        self._add(page, ptep)

    def _add(self, page: int, ptep: int) -> None:
        """``page_add_rmap()``."""
        words, memmap, addr = self._words, self._memmap, self._to_addr(ptep)
        at = memmap.word(page, self._pte)
        if not words[at]:
            words[at] = addr
            memmap.set_bit(page, self._direct)
            self.pages.count_mapped(1)
            return
        if memmap.test(page, self._direct):
            chain = self._take()
            words[self._slot(chain, NRPTE - 1)] = words[at]
            words[self._slot(chain, NRPTE - 2)] = addr
            memmap.clear_bit(page, self._direct)
            self._link(chain, 0, NRPTE - 2)
            words[at] = chain
            return
        chain = words[at]
        if first := self._first_used(chain):
            words[self._slot(chain, first - 1)] = addr
            self._link(chain, self._next(chain), first - 1)
            return
        new = self._take()
        words[self._slot(new, NRPTE - 1)] = addr
        self._link(new, chain, NRPTE - 1)
        words[at] = new

    def remove(self, mm: int, page: int, ptep: int) -> None:
        """``page_remove_rmap()``. A chain of one PTE stays a chain, until reclaim looks at it."""
        if self.pages.anon(page):
            self.pages.count_anon_rss(mm, -1)
        words, memmap = self._words, self._memmap
        at = memmap.word(page, self._pte)
        if memmap.test(page, self._direct):
            if words[at] != self._to_addr(ptep):
                self._not_there(page, ptep)
            words[at] = 0
            memmap.clear_bit(page, self._direct)
        else:
            self._remove_from_chain(page, ptep)
        if not words[at]:
            self.pages.count_mapped(-1)

    def _remove_from_chain(self, page: int, ptep: int) -> None:
        words, addr = self._words, self._to_addr(ptep)
        at = self._memmap.word(page, self._pte)
        hole = next((slot for slot in self._slots(page) if words[slot] == addr), 0)
        if not hole:
            self._not_there(page, ptep)
        chain = words[at]
        first = self._first_used(chain)
        words[hole] = words[self._slot(chain, first)]
        words[self._slot(chain, first)] = 0
        if first < NRPTE - 1:
            self._link(chain, self._next(chain), first + 1)
        else:
            words[at] = self._next(chain)
            self._give_back(chain)

    def _not_there(self, page: int, ptep: int) -> None:
        pfn = self._memmap.pfn(page)
        paddr = self._ptep_to_paddr(ptep)
        raise KernelBug(_FILE, 0, f"the PTE at {paddr:#x} is not among those of frame {pfn:#x}")

    def moved(self, page: int, source: int, to: int) -> None:
        """The kernel removes one PTE and adds the other; here it keeps its place."""
        words, old = self._words, self._to_addr(source)
        at = self._memmap.word(page, self._pte)
        places = [at] if self._memmap.test(page, self._direct) else list(self._slots(page))
        place = next((place for place in places if words[place] == old), 0)
        if not place:
            self._not_there(page, source)
        words[place] = self._to_addr(to)

    def collapse(self, page: int) -> None:
        """A chain of one PTE goes back into the frame; reclaim does that when it looks by."""
        words, at = self._words, self._memmap.word(page, self._pte)
        if not words[at] or self._memmap.test(page, self._direct):
            return
        chain = words[at]
        if self._first_used(chain) == NRPTE - 1 and not self._next(chain):
            last = self._slot(chain, NRPTE - 1)
            words[at] = words[last]
            words[last] = 0
            self._memmap.set_bit(page, self._direct)
            self._give_back(chain)

    # -- page tables ---------------------------------------------------------------------------

    def table_made(self, mm: int, vaddr: int, paddr: int) -> None:
        """``pgtable_add_rmap()``: the frame of a page table knows whose it is."""
        memmap, page = self._memmap, self._memmap.page(paddr >> PAGE_SHIFT)
        self._words[memmap.word(page, memmap.mapping_word)] = mm
        self._words[memmap.word(page, memmap.index_word)] = vaddr & -self._shape.pmd_size

    def table_freed(self, table: int) -> None:
        """``pgtable_remove_rmap()``."""
        memmap, page = self._memmap, self._memmap.page(table >> PAGE_SHIFT)
        self._words[memmap.word(page, memmap.mapping_word)] = 0
        self._words[memmap.word(page, memmap.index_word)] = 0
