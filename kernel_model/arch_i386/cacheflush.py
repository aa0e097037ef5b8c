# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache flush API, which the i386 does not need.

Models linux-2.4.22 ``include/asm-i386/pgtable.h`` and linux-2.6.11
``include/asm-i386/cacheflush.h`` (book 3.9, 3.10). The caches of an i386 are physically tagged and
snoop the bus, so every function here is empty. The calls exist because other machines need them:
where caches are found by virtual address, one frame may lie in them under several addresses, and an
entry must not change while they still hold what it mapped. A monitor that takes the place of this
object sees whether the kernel would do on such a machine.

``mm`` is the physical address of a page directory, ``page`` a ``struct page *``. Nothing can fail.
"""


class CacheFlush:
    """Every call is empty on the i386."""

    def flush_cache_all(self) -> None:
        """Before any mapping of the kernel changes, or after it did."""

    def flush_cache_mm(self, mm: int) -> None:
        """Before the whole address space changes: ``fork()``, ``exit()``."""

    def flush_cache_range(self, mm: int, start: int, end: int) -> None:
        """Before the mappings from ``start`` to ``end`` change."""

    def flush_cache_page(self, mm: int, vaddr: int) -> None:
        """Before the mapping of one page changes."""

    def flush_cache_vmap(self, start: int, end: int) -> None:
        """After the kernel mapped pages there (2.6)."""

    def flush_cache_vunmap(self, start: int, end: int) -> None:
        """Before the kernel unmaps pages there (2.6)."""

    def flush_page_to_ram(self, page: int) -> None:
        """The kernel wrote to a frame that a process is about to see.

        2.6 has no such call, and nothing may come of it there: who fills a frame says for which
        address, or that it is a file's.
        """

    def flush_dcache_page(self, page: int) -> None:
        """The kernel wrote to a page of a file, or is about to read one that processes write."""

    def flush_icache_range(self, start: int, end: int) -> None:
        """The kernel wrote instructions there."""

    def flush_icache_page(self, page: int) -> None:
        """A process is about to see a frame that may hold instructions."""

    def clear_user_page(self, page: int, vaddr: int) -> None:
        """The frame was cleared for the page at ``vaddr`` of a process."""

    def copy_user_page(self, page: int, vaddr: int) -> None:
        """The frame was filled by copying for the page at ``vaddr`` of a process."""
