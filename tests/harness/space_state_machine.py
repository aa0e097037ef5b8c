# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs of several processes, run on the CPU, against dictionaries of bytes.

A run is a program of calls, and prints as one: Hypothesis shows the shortest that fails. All
calls are those of the process that was switched to last. Pages are called ``map+N``, from a
third of user space on, and ``heap+N``; a ``what`` of ``file1 private`` maps that file.
"""

import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.structs.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
)
from tests.harness.space_machine import MACHINES, MACHINES_2_6, SpaceMachine
from tests.harness.space_oracle import PAGE, Page, Shared, Space, Space26

MAP = 0x40000
"""The page where the kernel puts mappings that say no place."""
PROCESSES = 4
PROTS = {"---": 0, "r--": 1, "r-x": 5, "rw-": 3, "rwx": 7}
MS_SYNC = 4

mapped = st.integers(0, 5).map(lambda number: f"map+{number}")
places = st.one_of(mapped, mapped, mapped, st.sampled_from(["heap+0", "heap+1"]))
counts = st.integers(1, 4)
"""Few pages, so that calls meet."""
targets = st.integers(0, 11).map(lambda number: f"map+{number}")
"""More room, for what moves may not overlap with where it was."""
prots = st.sampled_from(["rw-", "rw-", "rw-", "rwx", "r-x", "r--", "---"])
kinds = st.sampled_from(
    ["zeros private", "zeros private", "zeros shared"]
    + [f"file{number} {how}" for number in (0, 1) for how in ("private", "shared")]
)
offsets = st.sampled_from([2044, 4092])
sizes = st.sampled_from([0, 100, PAGE, 5000, 3 * PAGE, 15_000, 24_000])
lengths = st.sampled_from([4, 64, 6000])


def code(value: int) -> bytes:
    """``mov $value, %eax; ret``, in two words; ``value`` has 24 bits."""
    return (0xB8 | value << 8 | 0x9090C300 << 32).to_bytes(8, "little")


def file_content(number: int, size: int) -> bytes:
    """Each page begins with code that returns which one it is."""
    pages = (code(0x10000 * number + i + 1) + bytes([17 * i % 251 + 1]) * 4088 for i in range(8))
    return b"".join(pages)[:size]


def call(**arguments: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """A rule, and the look after it; as an invariant it would be in each printed program."""

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def and_look(self: "SpaceStateMachine", **chosen: Any) -> None:
            function(self, **chosen)
            self.look()

        return rule(**arguments)(and_look)

    return decorate


class SpaceStateMachine(RuleBasedStateMachine):
    """Whatever processes do, each sees the bytes it must, gets the signals it must, no others."""

    machines = MACHINES
    oracle: type[Space] = Space

    @initialize(on=st.sampled_from(sorted(MACHINES)), mapped=kinds)
    def boot(self, on: str, mapped: str) -> None:
        """The first process begins with four pages at ``map+0``, so that calls find some."""
        contents = [file_content(0, 24_000), file_content(1, 5000)]
        self.system = SpaceMachine(self.machines[on], contents, list(range(MAP, MAP + 16)))
        self.files = [Shared(content) for content in contents]
        self.calls = self.system.kernel.spaces
        heap = int(self.calls.areas.mm(self.system.mm).brk)
        self.heap = -(-heap // PAGE)
        self.pid, self.stamp, self.steps = 1, 0, 0
        self.spaces = {1: self.oracle(heap, MAP)}
        self._mmap("map+0", 4, "rwx", mapped)

    @property
    def space(self) -> Space:
        return self.spaces[self.pid]

    def number(self, place: str) -> int:
        """The number of a page, by its name."""
        region, _, number = place.partition("+")
        return {"map": MAP, "heap": self.heap}[region] + int(number)

    def fresh(self) -> int:
        """A value of 24 bits that was not written anywhere before."""
        self.stamp += 1
        return 0x100000 + self.stamp * 0x101

    # -- mapping -------------------------------------------------------------------------------

    @call(at=st.one_of(mapped, mapped, st.just("anywhere")), pages=counts, prot=prots, what=kinds)
    def mmap(self, at: str, pages: int, prot: str, what: str) -> None:
        self._mmap(at, pages, prot, what)

    def _mmap(self, at: str, pages: int, prot: str, what: str) -> None:
        source, how = what.split()
        shared, fixed = how == "shared", at != "anywhere"
        backing, file = (Shared(bytes(pages * PAGE)) if shared else None), 0
        if source != "zeros":
            index = int(source[-1])
            backing, file = self.files[index], self.system.files[index]
        flags = MAP_SHARED if shared else MAP_PRIVATE
        flags |= (MAP_FIXED if fixed else 0) | (0 if file else MAP_ANONYMOUS)
        address = self.number(at) * PAGE if fixed else 0
        got = self.calls.do_mmap_pgoff(file, address, pages * PAGE, PROTS[prot], flags, 0)
        first = self.number(at) if fixed else self.space.room(pages, got)
        new = [Page(PROTS[prot], shared, backing, index) for index in range(pages)]
        assert got == self.space.put(first, new)

    @call(at=places, pages=counts)
    def munmap(self, at: str, pages: int) -> None:
        first = self.number(at)
        got = self.calls.do_munmap(self.system.mm, first * PAGE, pages * PAGE)
        assert got == self.space.munmap(first, pages)

    @call(at=places, pages=counts, prot=prots)
    def mprotect(self, at: str, pages: int, prot: str) -> None:
        first = self.number(at)
        got = self.calls.sys_mprotect(first * PAGE, pages * PAGE, PROTS[prot])
        assert got == self.space.mprotect(first, pages, PROTS[prot])

    @call(at=places, old=counts, new=counts, to=st.one_of(targets, st.just("anywhere")))
    def mremap(self, at: str, old: int, new: int, to: str) -> None:
        first, fixed = self.number(at), to != "anywhere"
        target = self.number(to) if fixed else None
        vma_end = self.system.vma_end(first)
        flags = MREMAP_MAYMOVE | (MREMAP_FIXED if fixed else 0)
        got = self.calls.do_mremap(
            first * PAGE, old * PAGE, new * PAGE, flags, (target or 0) * PAGE
        )
        assert got == self.space.mremap(first, old, new, target, vma_end, got)

    @call(pages=st.integers(0, 4))
    def brk(self, pages: int) -> None:
        to = (self.heap + pages) * PAGE
        assert self.calls.sys_brk(to) == self.space.move_brk(to)

    @call(at=places, pages=counts, lock=st.booleans())
    def mlock(self, at: str, pages: int, lock: bool) -> None:
        first = self.number(at)
        if lock and not self.space.may_lock(first, pages):
            return
        call = self.calls.sys_mlock if lock else self.calls.sys_munlock
        assert call(first * PAGE, pages * PAGE) == self.space.mlock(first, pages, locked=lock)

    @call(at=places, pages=counts)
    def madvise_dontneed(self, at: str, pages: int) -> None:
        first = self.number(at)
        got = self.system.madvise_dontneed(first * PAGE, pages * PAGE)
        assert got == self.space.madvise_dontneed(first, pages)

    # -- accesses ------------------------------------------------------------------------------

    @call(at=places, pages=counts, offset=offsets)
    def read(self, at: str, pages: int, offset: int) -> None:
        """Ring 3 loads a word of each page."""
        for number in self._numbers(at, pages):
            self._load(number, offset)

    def _numbers(self, at: str, pages: int) -> range:
        return range(self.number(at), self.number(at) + pages)

    def _load(self, number: int, offset: int) -> None:
        signal, value = self.system.user("read", number * PAGE + offset)
        assert signal == self.space.refusal(number, "read")
        if not signal:
            word = self.space.pages[number].bytes[offset : offset + 4]
            assert value == int.from_bytes(word, "little")

    @call(at=places, pages=counts, offset=offsets)
    def write(self, at: str, pages: int, offset: int) -> None:
        """Ring 3 stores a word into each page."""
        for number in self._numbers(at, pages):
            self._store(number, offset, self.fresh())

    @call(at=places, pages=counts)
    def write_code(self, at: str, pages: int) -> None:
        """Ring 3 stores code at the start of each page."""
        for number in self._numbers(at, pages):
            words = code(self.fresh())
            self._store(number, 0, int.from_bytes(words[:4], "little"))
            self._store(number, 4, int.from_bytes(words[4:], "little"))

    def _store(self, number: int, offset: int, value: int) -> None:
        page = self.space.pages.get(number)
        if page and not self._before_end(page, offset, 4):
            return
        signal, _ = self.system.user("write", number * PAGE + offset, value)
        assert signal == self.space.refusal(number, "write")
        if page and not signal:
            page.write(offset, value.to_bytes(4, "little"))

    @staticmethod
    def _before_end(page: Page, offset: int, length: int) -> bool:
        """Not in a file's last page behind its end: how long that stays is not said."""
        if not page.shared or page.backing is None or not page.exists:
            return True
        return page.at * PAGE + offset + length <= len(page.backing.content)

    @call(at=places, pages=counts)
    def run(self, at: str, pages: int) -> None:
        """Ring 3 calls the code at the start of each page, if there is some or it may not."""
        for number in self._numbers(at, pages):
            self._run(number)

    def _run(self, number: int) -> None:
        refusal = self.space.refusal(number, "exec")
        begin = b"" if refusal else self.space.pages[number].bytes[:8]
        if not refusal and (begin[0] != 0xB8 or begin[5] != 0xC3):
            return
        signal, value = self.system.user("exec", number * PAGE)
        assert signal == refusal
        assert signal or value == int.from_bytes(begin[1:5], "little")

    @call(at=places, offset=offsets, length=lengths)
    def copy_to_user(self, at: str, offset: int, length: int) -> None:
        """Ring 0 stores; it goes on up to the first page that refuses."""
        start = self.number(at) * PAGE + offset
        data = (self.fresh().to_bytes(4, "little") * (length // 4 + 1))[:length]
        pieces = list(self._pieces(start, length, "write"))
        for number, first, size in pieces:
            if not self._before_end(self.space.pages[number], first, size):
                return
        left = self.system.uaccess.copy_to_user(start, data)
        assert left == length - sum(size for _, _, size in pieces)
        for number, first, size in pieces:
            self.space.pages[number].write(first, data[:size])
            data = data[size:]

    @call(at=places, offset=offsets, length=lengths)
    def copy_from_user(self, at: str, offset: int, length: int) -> None:
        self._same(self.number(at) * PAGE + offset, length)

    def _pieces(self, start: int, length: int, access: str) -> list[tuple[int, int, int]]:
        """(page number, offset, bytes) of each page that may be accessed, up to the first that
        may not."""
        pieces = []
        while length:
            number, offset = divmod(start, PAGE)
            if self.space.refusal(number, access):
                break
            size = min(length, PAGE - offset)
            pieces.append((number, offset, size))
            start, length = start + size, length - size
        return pieces

    def _same(self, start: int, length: int) -> None:
        """What ring 0 reads is what must be there."""
        wanted = b"".join(
            self.space.pages[number].bytes[offset : offset + size]
            for number, offset, size in self._pieces(start, length, "read")
        )
        got = self.system.uaccess.copy_from_user(start, length)
        differs = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), -1)
        assert len(got) == len(wanted)
        assert differs < 0, f"another byte at {start + differs:#x}"

    # -- files ---------------------------------------------------------------------------------

    @call(file=st.integers(0, 1), start=sizes, length=lengths)
    def write_file(self, file: int, start: int, length: int) -> None:
        data = (self.fresh().to_bytes(4, "little") * (length // 4 + 1))[:length]
        filemap = self.system.kernel.file_memory.filemap
        assert filemap.write(self.system.files[file], data, start) == length
        self.files[file].write(start, data)

    @call(file=st.integers(0, 1), size=sizes)
    def truncate(self, file: int, size: int) -> None:
        kernel = self.system.kernel
        inode = kernel.files.inode_of(self.system.files[file])
        assert kernel.file_memory.filemap.vmtruncate(inode, size) == 0
        self.files[file].truncate(size)
        for space in self.spaces.values():
            space.truncated(self.files[file])

    @call(at=places, pages=counts)
    def msync(self, at: str, pages: int) -> None:
        """What the process wrote to a file through the range is in the file then."""
        first = self.number(at)
        sync = self.system.kernel.file_memory.filemap.sys_msync
        hole = self.space.free(first, pages) or None in self.space.span(first, pages)
        assert sync(first * PAGE, pages * PAGE, MS_SYNC) == (-12 if hole else 0)
        for page in self.space.span(first, pages):
            if page and page.written and page.backing in self.files:
                disk = self.system.disks[self.files.index(page.backing)].content
                kept = disk[page.at * PAGE : (page.at + 1) * PAGE].ljust(PAGE, b"\0")
                assert not page.exists or page.bytes == bytes(kept), "the file has other bytes"
                page.written = False

    # -- processes -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.spaces) < PROCESSES)
    @call()
    def fork(self) -> None:
        self.spaces[self.system.fork()] = self.space.fork()

    @precondition(lambda self: len(self.spaces) > 1)
    @call(to=st.integers(1, PROCESSES))
    def switch(self, to: int) -> None:
        """To the ``to``-th oldest process that still lives."""
        self.pid = sorted(self.spaces)[to % len(self.spaces)]
        self.system.switch(self.pid)

    @precondition(lambda self: len(self.spaces) > 1)
    @call()
    def exit(self) -> None:
        """The process ends; the oldest one goes on."""
        self.system.exit(self.pid)
        del self.spaces[self.pid]
        self.pid = min(self.spaces)
        self.system.switch(self.pid)

    @call(write=st.booleans())
    def swap_out(self, write: bool) -> None:
        self.system.press(write=write)

    # -- what must hold ------------------------------------------------------------------------

    def look(self) -> None:
        """After each call: the tables of the current space; now and then more."""
        self.steps += 1
        self.system.check_user_tables(self.system.pgd)
        if self.steps % 4 == 0:
            self.system.check_frames()
            self.system.check_tlb()
            for pgd in self.system.pgds.values():
                self.system.check_user_tables(pgd)

    def last_look(self) -> None:
        """Before the processes exit: every page of every space."""
        for pgd in (*self.system.pgds.values(), SWAPPER_PG_DIR):
            self.system.check_tables(pgd)

    def teardown(self) -> None:
        """At the end of a run that failed nothing is looked at any more."""
        try:
            if hasattr(self, "spaces") and sys.exc_info()[0] is None:
                self._end()
        finally:
            vars(self).pop("system", None)
            vars(self).pop("calls", None)
            gc.collect()

    def _end(self) -> None:
        self.last_look()
        for pid in sorted(self.spaces):
            self.pid = pid
            self.system.switch(pid)
            for number in sorted(self.space.pages):
                self._same(number * PAGE, PAGE)
        self.system.close()
        for disk, file in zip(self.system.disks, self.files, strict=True):
            assert bytes(disk.content) == bytes(file.content), "the file has other bytes"


class SpaceStateMachine26(SpaceStateMachine):
    """The same programs on 2.6, which can have the pages of a file in any order."""

    machines = MACHINES_2_6
    oracle = Space26

    @call(at=mapped, pages=counts, chosen=st.integers(0, 6))
    def remap_file_pages(self, at: str, pages: int, chosen: int) -> None:
        first = self.number(at)
        vma_end, space = self.system.vma_end(first), self.space
        assert isinstance(space, Space26)
        got = self.calls.sys_remap_file_pages(first * PAGE, pages * PAGE, 0, chosen, 0)
        assert got == space.remap_file_pages(first, pages, chosen, vma_end)
