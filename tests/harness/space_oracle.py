# SPDX-License-Identifier: GPL-2.0-or-later
"""An address space as a dictionary of pages with their bytes, from the manual pages.

It knows no VMAs, frames, page tables or swap: only who sees which bytes, who may do what, and
what each call answers. What several pages share is one :class:`Shared`; what a process wrote to
a private page is its own. One thing it must be told: where a VMA ends, for ``mremap()`` stops
there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

PAGE = 4096
READ, WRITE, EXEC = 1, 2, 4
EFAULT, EINVAL, ENOMEM = 14, 22, 12
ACCESSES = {"read": READ | EXEC, "exec": READ | EXEC, "write": WRITE}
"""What a page must allow for each access: the i386 tells read and exec not apart."""


class Shared:
    """The bytes of a file, or of shared anonymous memory. Behind the end there are zeros."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    @property
    def pages(self) -> int:
        return -(-len(self.content) // PAGE)

    def page(self, index: int) -> bytes:
        return bytes(self.content[index * PAGE : (index + 1) * PAGE]).ljust(PAGE, b"\0")

    def write(self, start: int, data: bytes) -> None:
        """As ``write()`` does: what lies between the end and ``start`` becomes zeros."""
        self.content.extend(bytes(max(start - len(self.content), 0)))
        self.content[start : start + len(data)] = data

    def truncate(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))


@dataclass(eq=False)
class Page:
    """One page. ``own`` are the bytes of a private page that was written to."""

    prot: int
    shared: bool = False
    backing: Shared | None = None
    index: int = 0
    own: bytearray | None = None
    locked: bool = False
    written: bool = False
    """A shared page, written by this process since it last called ``msync()``."""
    chosen: int | None = None
    """Which page ``remap_file_pages()`` put here, in place of page ``index``."""

    @property
    def at(self) -> int:
        """Which page of its file this is."""
        return self.index if self.chosen is None else self.chosen

    @property
    def exists(self) -> bool:
        """False: it lies behind the end of its file."""
        return self.own is not None or self.backing is None or self.at < self.backing.pages

    @property
    def bytes(self) -> bytes:
        if self.own is not None:
            return bytes(self.own)
        return self.backing.page(self.at) if self.backing else bytes(PAGE)

    def refusal(self, access: str) -> str:
        """What a program gets for an access; nothing if it may."""
        if not self.prot & ACCESSES[access]:
            return "SEGV_ACCERR"
        return "" if self.exists else "BUS_ADRERR"

    def write(self, offset: int, data: bytes) -> None:
        if self.shared and self.backing:
            start = self.at * PAGE + offset
            self.backing.content[start : start + len(data)] = data
            self.written = True
            return
        self.take()
        assert self.own is not None
        self.own[offset : offset + len(data)] = data

    def take(self) -> None:
        """A private page becomes the process's own."""
        if not self.shared and self.own is None:
            self.own = bytearray(self.bytes)

    def populate(self) -> None:
        """As ``mlock()`` does: a page that may be written to is had as after a write."""
        if self.prot & WRITE and self.exists:
            self.take()

    def like(self, distance: int) -> "Page":
        """A new page of the same VMA, ``distance`` pages on."""
        index = self.index + distance
        return replace(self, index=index, own=None, written=False, chosen=None)

    def fork(self) -> "Page":
        own = None if self.own is None else bytearray(self.own)
        return replace(self, own=own, locked=False, written=False)


class Space:
    """One address space; pages are numbers, addresses are answered."""

    def __init__(self, brk: int, first_unmapped: int) -> None:
        self.pages: dict[int, Page] = {}
        self.brk = brk
        self._first_unmapped = first_unmapped

    def fork(self) -> "Space":
        child = type(self)(self.brk, self._first_unmapped)
        child.pages = {number: page.fork() for number, page in self.pages.items()}
        return child

    def refusal(self, number: int, access: str) -> str:
        page = self.pages.get(number)
        return page.refusal(access) if page else "SEGV_MAPERR"

    def span(self, first: int, count: int) -> Iterator[Page | None]:
        return (self.pages.get(number) for number in range(first, first + count))

    def truncated(self, backing: Shared) -> None:
        """A file was cut: copies of pages that it has no more are gone, too."""
        for page in self.pages.values():
            if page.backing is backing and page.at >= backing.pages:
                page.own = None

    # -- calls ---------------------------------------------------------------------------------

    def free(self, first: int, count: int) -> bool:
        return not any(page for page in self.span(first, count))

    def room(self, count: int, answer: int) -> int:
        """The first hole of that size above a third of user space; ``answer`` is what was said."""
        first = self._first_unmapped
        for number in sorted(number for number in self.pages if number >= first):
            if number - first >= count:
                break
            first = number + 1
        return first

    def put(self, first: int, pages: list[Page]) -> int:
        self.munmap(first, len(pages))
        self.pages.update(enumerate(pages, first))
        return first * PAGE

    def munmap(self, first: int, count: int) -> int:
        for number in range(first, first + count):
            self.pages.pop(number, None)
        return 0

    def each(self, first: int, count: int, change: Callable[[Page], None]) -> int:
        """Page by page up to the first hole."""
        for page in self.span(first, count):
            if page is None:
                return -ENOMEM
            change(page)
        return 0

    def mprotect(self, first: int, count: int, prot: int) -> int:
        return self.each(first, count, lambda page: setattr(page, "prot", prot))

    def mlock(self, first: int, count: int, *, locked: bool) -> int:
        def change(page: Page) -> None:
            if locked and not page.locked:
                page.populate()
            page.locked = locked

        return self.each(first, count, change)

    def madvise_dontneed(self, first: int, count: int) -> int:
        """A hole shows at the end; a locked page at once."""
        result = 0
        for page in self.span(first, count):
            if page is None:
                result = -ENOMEM
            elif page.locked:
                return -EINVAL
            else:
                page.own = None
        return result

    def move_brk(self, brk: int) -> int:
        old, new = -(-self.brk // PAGE), -(-brk // PAGE)
        if new < old:
            self.munmap(new, old - new)
        elif new > old and not self.free(old, new - old + 1):
            # A page more must be free, so that the heap never touches what is above it.
            return self.brk
        self.put(old, [Page(READ | WRITE | EXEC) for _ in range(new - old)])
        self.brk = brk
        return brk

    def shrunk(self, old: int, new: int) -> int:
        """How many pages ``mremap()`` moves of ``old`` that were cut to ``new``: 2.4 forgets that
        it cut them, and fails at the end."""
        return old

    def may_lock(self, first: int, count: int) -> bool:
        """Whether it is known what comes of locking these."""
        return True

    def mremap(
        self, first: int, old: int, new: int, target: int | None, vma_end: int, answer: int
    ) -> int:
        """``MREMAP_MAYMOVE``; with a ``target`` ``MREMAP_FIXED``."""
        if target is not None:
            if target < first + old and first < target + new:
                return -EINVAL
            self.munmap(target, new)
            if target > first:
                vma_end = min(vma_end, target)
        if old >= new:
            self.munmap(first + new, old - new)
            vma_end = min(vma_end, first + new) if old > new else vma_end
            if target is None:
                return first * PAGE
            old = self.shrunk(old, new)
        if first not in self.pages or first + old > vma_end:
            return -EFAULT
        moved = [self.pages[first + i] for i in range(old)]
        added = [moved[0].like(i) for i in range(old, new)]
        if target is None and first + old == vma_end and self.free(vma_end, new - old):
            target = first
        elif target is None:
            target = self.room(new, answer)
        for page in added:
            if page.locked:
                page.populate()
        self.munmap(first, old)
        return self.put(target, moved + added)


class Space26(Space):
    """What 2.6 answers otherwise."""

    def room(self, count: int, answer: int) -> int:
        """Some hole: the search goes on where the last one ended."""
        first = answer // PAGE
        assert first >= self._first_unmapped
        assert self.free(first, count)
        return first

    def shrunk(self, old: int, new: int) -> int:
        return min(old, new)

    def remap_file_pages(self, first: int, count: int, chosen: int, vma_end: int) -> int:
        """All must be of one VMA, which is shared; and the file must have them."""
        page = self.pages.get(first)
        if page is None or not page.shared or first + count > vma_end:
            return -EINVAL
        assert page.backing is not None
        if chosen + count > page.backing.pages:
            return -EINVAL
        for number in range(count):
            self.pages[first + number].chosen = chosen + number
            self.pages[first + number].written = False
        return 0

    def may_lock(self, first: int, count: int) -> bool:
        """``mlock()`` tells of a page that cannot come, and stops at its VMA, of which nothing is
        known here."""
        pages = [page for page in self.span(first, count) if page is not None]
        return all(page.exists and page.prot for page in pages)
