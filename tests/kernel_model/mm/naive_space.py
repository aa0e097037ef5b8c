# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's mmap family on a dictionary of pages, from the manual pages; it knows no VMAs.

Each operation changes the book and says what the call must answer. Two things it must be told,
because pages do not show them: where a VMA ends (mremap stops there), and which file a shared
anonymous mapping got.
"""

from collections.abc import Iterable

from kernel_model.structs.mm import VM_GROWSDOWN, VM_LOCKED
from tests.kernel_model.mm.vma_book import PAGE, Book, Page

TASK_PAGES = 0xC0000
FIRST_UNMAPPED = 0x40000
READ, WRITE, SHARED, MAYWRITE = 1, 2, 8, 0x20
EACCES, EFAULT, EINVAL, ENOMEM = 13, 14, 22, 12


class NaiveSpace:
    """One address space of 2.4. Pages are numbers; addresses are answered."""

    heap_flags = 0x77
    future_alone_unlocks = True
    shrinking_may_move = False
    """Whether ``mremap()`` to another place may make a mapping shorter."""

    def __init__(self, brk: int) -> None:
        self.pages: Book = {}
        self.def_flags = 0
        self.brk = brk

    def fork(self) -> "NaiveSpace":
        """Locks are not inherited."""
        child = type(self)(self.brk)
        child.pages = {n: p.with_flags(p.flags & ~VM_LOCKED) for n, p in self.pages.items()}
        return child

    def free(self, first: int, count: int) -> bool:
        return not any(number in self.pages for number in range(first, first + count))

    def room(self, count: int) -> int:
        """The first hole of that size above a third of user space."""
        first = FIRST_UNMAPPED
        for number in sorted(number for number in self.pages if number >= FIRST_UNMAPPED):
            if number - first >= count:
                break
            first = number + 1
        return first

    def put(self, first: int, pages: Iterable[Page]) -> None:
        self.pages.update(enumerate(pages, first))

    def munmap(self, first: int, count: int) -> int:
        for number in range(first, first + count):
            self.pages.pop(number, None)
        return 0 if count else -EINVAL

    def mmap(self, first: int, count: int, flags: int, file: int, index: int) -> int:
        """A private or shared mapping at a fixed place; ``flags`` but for the inherited ones."""
        self.munmap(first, count)
        flags |= self.def_flags
        self.put(first, (Page(flags, file, (index + i) * bool(file)) for i in range(count)))
        return first * PAGE

    def mprotect(self, first: int, count: int, prot: int) -> int:
        for number in range(first, first + count):
            page = self.pages.get(number)
            if page is None:
                return -ENOMEM
            if prot & WRITE and not page.flags & MAYWRITE:
                return -EACCES
            self.pages[number] = page.with_flags(page.flags & ~7 | prot)
        return 0

    def mlock(self, first: int, count: int, *, on: bool) -> int:
        for number in range(first, first + count):
            page = self.pages.get(number)
            if page is None:
                return -ENOMEM
            flags = page.flags | VM_LOCKED if on else page.flags & ~VM_LOCKED
            self.pages[number] = page.with_flags(flags)
        return 0

    def mlockall(self, *, current: bool, future: bool) -> int:
        self.def_flags = VM_LOCKED if future else 0
        for number in (
            list(self.pages) if current or self.future_alone_unlocks or not future else ()
        ):
            self.mlock(number, 1, on=current)
        return 0

    def move_brk(self, brk: int) -> int:
        old, new = -(-self.brk // PAGE), -(-brk // PAGE)
        if new < old:
            self.munmap(new, old - new)
        elif new > old:
            # A page more must be free, so that the heap never touches what is above it.
            if not self.free(old, new - old + 1):
                return self.brk
            self.mmap(old, new - old, self.heap_flags, 0, 0)
        self.brk = brk
        return brk

    def grow_stack(self, number: int) -> bool:
        """Whether the address has a page, after a stack above it grew down to it."""
        above = min((known for known in self.pages if known >= number), default=None)
        if above is None:
            return False
        page = self.pages[above]
        if above > number and not page.flags & VM_GROWSDOWN:
            return False
        for missing in range(number, above):
            index = page.index - (above - missing) if page.file else 0
            self.pages[missing] = Page(page.flags, page.file, index & 0xFFFFFFFF)
        return True

    def mremap(
        self, first: int, old: int, new: int, vma_end: int, target: int | None, *, may_move: bool
    ) -> int:
        """``target`` is MREMAP_FIXED's; ``vma_end`` is where the VMA of ``first`` ends."""
        if target is not None:
            # Nothing may be moved to where it is, not even a second view of no pages.
            if not may_move or target <= first < target + new or first <= target < first + old:
                return -EINVAL
            self.munmap(target, new)
            if target > first:
                vma_end = min(vma_end, target)
        if old >= new:
            self.munmap(first + new, old - new)
            vma_end = min(vma_end, first + new) if old > new else vma_end
            if target is None:
                return first * PAGE
            if self.shrinking_may_move:
                old = new
        if first not in self.pages or first + old > vma_end:
            return -EFAULT
        like = self.pages[first]
        wanted = [
            Page(like.flags, like.file, like.index + i if like.file else 0) for i in range(new)
        ]
        if target is None:
            if first + old == vma_end and self.free(vma_end, new - old):
                self.put(first, wanted)
                return first * PAGE
            if not may_move:
                return -ENOMEM
            target = self.room(new)
        self.munmap(first, old)
        self.put(target, wanted)
        return target * PAGE


class NaiveSpace26(NaiveSpace):
    """One address space of 2.6. Where a search ends up is not in the manual page: any hole will
    do, and :attr:`answered` is the one that the kernel took."""

    heap_flags = 0x73
    future_alone_unlocks = False
    shrinking_may_move = True
    answered = 0

    def room(self, count: int) -> int:
        assert self.free(self.answered, count)
        assert FIRST_UNMAPPED <= self.answered <= TASK_PAGES - count
        return self.answered
