# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that processes map, as every reverse map sees them: what they are, and whose.

Models the questions of linux-2.6.11 ``include/linux/mm.h`` that turn on ``page->mapping``:
``PageAnon()``, ``page_mapping()``, ``page_index()``; and the counters that go with a mapping:
``mm->anon_rss``, ``page_state.nr_mapped`` (book 3.10). In RAM: all of these. Nothing can fail.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.page_state import PageState
from kernel_model.mm.mmzone import MemMap
from kernel_model.structs.linux_2_6.mm import PAGE_MAPPING_ANON

_WORD = 0xFFFFFFFF


class MappedPages:
    """Fields of frames and of VMAs that reverse maps look at."""

    def __init__(self, image: KernelImage, memmap: MemMap) -> None:
        structs, self._words = image.structs, image.ram.words
        self._memmap = memmap
        self._private = structs.page.word("private")
        self._swapcache = image.constants.page_flags.swapcache
        self._swapper_space = image.symbol("swapper_space")
        vma, mm = structs.vm_area_struct, structs.mm_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_pgoff, self._vm_mm = vma.word("vm_pgoff"), vma.word("vm_mm")
        self._vm_flags, self._anon_vma = vma.word("vm_flags"), vma.word("anon_vma")
        self._rss, self._anon_rss = mm.word("rss"), mm.word("anon_rss")
        self._state = PageState(image)

    # -- frames --------------------------------------------------------------------------------

    def anon(self, page: int) -> bool:
        """``PageAnon()``: a process's own page, in no file."""
        memmap = self._memmap
        return bool(self._words[memmap.word(page, memmap.mapping_word)] & PAGE_MAPPING_ANON)

    def anon_vma(self, page: int) -> int:
        """The ``anon_vma`` of such a frame; 0 when it is none."""
        memmap = self._memmap
        mapping = self._words[memmap.word(page, memmap.mapping_word)]
        return mapping - PAGE_MAPPING_ANON if mapping & PAGE_MAPPING_ANON else 0

    def make_anon(self, page: int, anon_vma: int, index: int) -> None:
        """Let the frame be that of page ``index`` of the VMAs of ``anon_vma``."""
        memmap, words = self._memmap, self._words
        words[memmap.word(page, memmap.index_word)] = index
        words[memmap.word(page, memmap.mapping_word)] = anon_vma + PAGE_MAPPING_ANON

    def page_mapping(self, page: int) -> int:
        """``page_mapping()``: the address space that caches a frame, that of swap included."""
        memmap = self._memmap
        if memmap.test(page, self._swapcache):
            return self._swapper_space
        mapping = self._words[memmap.word(page, memmap.mapping_word)]
        return 0 if mapping & PAGE_MAPPING_ANON else mapping

    def index(self, page: int) -> int:
        """``page->index``: which page of its file, or of its VMAs, a frame is."""
        memmap = self._memmap
        return self._words[memmap.word(page, memmap.index_word)]

    def swap_entry(self, page: int) -> int:
        """The slot of a frame in the swap cache; 0 when it is not in it."""
        memmap = self._memmap
        if not memmap.test(page, self._swapcache):
            return 0
        return self._words[memmap.word(page, self._private)]

    # -- VMAs ----------------------------------------------------------------------------------

    def mm(self, vma: int) -> int:
        """``vma->vm_mm``."""
        return self._words[(vma - PAGE_OFFSET >> 2) + self._vm_mm]

    def vm_flags(self, vma: int) -> int:
        return self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags]

    def vma_anon_vma(self, vma: int) -> int:
        """``vma->anon_vma``; 0 before its first anonymous page."""
        return self._words[(vma - PAGE_OFFSET >> 2) + self._anon_vma]

    def span(self, vma: int) -> tuple[int, int]:
        """``vm_start`` and ``vm_end``."""
        at = vma - PAGE_OFFSET >> 2
        return self._words[at + self._vm_start], self._words[at + self._vm_end]

    def linear_page_index(self, vma: int, vaddr: int) -> int:
        """``linear_page_index()``: which page belongs at ``vaddr``."""
        at = vma - PAGE_OFFSET >> 2
        return (vaddr - self._words[at + self._vm_start] >> PAGE_SHIFT) + self._words[
            at + self._vm_pgoff
        ]

    def vma_address(self, page: int, vma: int) -> int | None:
        """``vma_address()``: where the VMA would have the frame; ``None``: it does not reach it."""
        at = vma - PAGE_OFFSET >> 2
        start, words = self._words[at + self._vm_start], self._words
        pages = self.index(page) - words[at + self._vm_pgoff]
        vaddr = start + (pages << PAGE_SHIFT) & _WORD
        return vaddr if start <= vaddr < words[at + self._vm_end] else None

    # -- counters ------------------------------------------------------------------------------

    def rss(self, mm: int) -> int:
        """Pages that an address space has in memory."""
        return self._words[(mm - PAGE_OFFSET >> 2) + self._rss]

    def count_rss(self, mm: int, pages: int) -> None:
        at = (mm - PAGE_OFFSET >> 2) + self._rss
        self._words[at] = self._words[at] + pages & _WORD

    def count_anon_rss(self, mm: int, pages: int) -> None:
        at = (mm - PAGE_OFFSET >> 2) + self._anon_rss
        self._words[at] = self._words[at] + pages & _WORD

    def count_mapped(self, pages: int) -> None:
        """``inc_page_state(nr_mapped)`` and its opposite."""
        self._state.add("nr_mapped", pages)
