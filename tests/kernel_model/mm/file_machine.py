# SPDX-License-Identifier: GPL-2.0-or-later
"""Files and shared anonymous memory against plain bytes.

The oracle of each file is a ``bytearray`` of what everybody must read, and one of what must
have reached the disk. ``FileMachine`` is the state machine, of either release; its tests
are in ``filemap/test_state_machine.py``.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.arch_i386.pgtable import pte_dirty, pte_pfn
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.mm.filemap.sync import MS_ASYNC, MS_SYNC
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.shmem.shmem import BLOCKS_PER_PAGE
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.file_world import PRIVATE, Disk, SigBus
from tests.kernel_model.mm.file_world_2_6 import file_world

PAGES = 24
"""Pages that each file is mapped for; files are shorter or longer."""
SHMEM_PAGES = 40
_ZEROS = bytes(PAGE_SIZE)
PRIVATE_FROM = 3
MACHINES = {
    "plain": KernelConfig(ram=8 * MIB, swap_pages=60),
    "PAE": KernelConfig(ram=70 * MIB, highmem=Highmem.GB64, highmem_pages=6 << 8, swap_pages=60),
}
MACHINES_2_6 = {
    "plain": replace(MACHINES["plain"], release="2.6"),
    "PAE": replace(MACHINES["PAE"], release="2.6", rmap="pte_chain"),
}
LENGTHS = st.one_of(st.integers(1, 2 * PAGE_SIZE), st.integers(1, 20 * PAGE_SIZE))
PLACES = st.one_of(
    st.integers(0, PAGES * PAGE_SIZE - 1),
    st.integers(0, PAGES - 1).map(lambda page: page * PAGE_SIZE),
)


@dataclass
class Subject:
    """One file, how it is mapped, and what it must hold."""

    file: int
    shared: int
    private: int
    disk: Disk | None
    content: bytearray
    unsynced: set[int] = field(default_factory=set)
    """Pages that were changed since the disk must have had them."""


class FileMachine(RuleBasedStateMachine):
    """What processes do with files while memory is short."""

    machines: ClassVar = MACHINES
    writing_flags: ClassVar = (MS_SYNC, MS_ASYNC)
    """With which of its flags ``msync()`` begins to write."""

    @initialize(
        name=st.sampled_from(sorted(MACHINES)),
        room=st.sampled_from([10, 40, 400]),
        sizes=st.lists(st.sampled_from([0, 5000, 40_960, 70_000, 98_304]), min_size=2, max_size=2),
    )
    def boot(self, name: str, room: int, sizes: list[int]) -> None:
        """A machine with about ``room`` free frames above what it keeps for itself."""
        self.world = world = file_world(self.machines[name])
        self.gfp, self.flags = world.image.constants.gfp, world.image.constants.page_flags
        self.frames_before = set(world.ledger._owners)
        self.mms = [world.new_mm(), world.new_mm()]
        self.subjects = [self._open(number, size) for number, size in enumerate(sizes)]
        self.subjects.append(self._open_shmem(len(sizes)))
        self.stamp = 0
        allocator = world.kernel.allocator
        self.ballast: list[tuple[int, int]] = []
        keep = room + sum(int(zone.view.pages_high) for zone in for_each_zone(world.image))
        for order in range(9, -1, -1):
            while allocator.nr_free_pages() - (1 << order) >= keep:
                block = allocator.alloc_pages(self.gfp.atomic | self.gfp.highmem, order, "ballast")
                if not block:
                    break
                self.ballast.append((block, order))

    def _open(self, number: int, size: int, disk: Disk | None = None) -> Subject:
        content = (bytes(range(number + 1, 252)) * (size // 100 + 1))[:size]
        disk = disk or Disk(content)
        world, base = self.world, 0x10000000 * (number + 1)
        file = world.open(disk, f"file{number}")
        world.files.get_file(file)
        world.files.get_file(file)
        shared = world.map(self.mms[0], file, base, PAGES)
        private = world.map(self.mms[1], file, base, PAGES, PRIVATE_FROM, PRIVATE)
        return Subject(file, shared, private, disk, bytearray(disk.content))

    def _open_shmem(self, number: int) -> Subject:
        world, size = self.world, SHMEM_PAGES * PAGE_SIZE
        file = world.shmem_files.shmem_file_setup("dev/zero", size)
        assert file > 0
        world.files.get_file(file)
        world.files.get_file(file)
        base = 0x10000000 * (number + 1)
        shared = world.map(self.mms[0], file, base, SHMEM_PAGES)
        private = world.map(self.mms[1], file, base, SHMEM_PAGES, PRIVATE_FROM, PRIVATE)
        return Subject(file, shared, private, None, bytearray(size))

    def _bytes(self, length: int) -> bytes:
        """Bytes that were not written anywhere before."""
        self.stamp += 1
        return (self.stamp.to_bytes(4, "little") * (length // 4 + 1))[:length]

    def _pick(self, which: int) -> Subject:
        return self.subjects[which % len(self.subjects)]

    def _changed(self, subject: Subject, start: int, length: int) -> None:
        end = start + length
        subject.unsynced |= set(range(start // PAGE_SIZE, -(-end // PAGE_SIZE)))

    # -- system calls --------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), start=PLACES, length=LENGTHS)
    def read(self, which: int, start: int, length: int) -> None:
        subject = self._pick(which)
        data = self.world.filemap.read(subject.file, length, start)
        self._same(data, subject.content[start : start + length], "read()")

    @rule(which=st.integers(0, 1), start=PLACES, length=LENGTHS, press=st.booleans())
    def write(self, which: int, start: int, length: int, press: bool) -> None:
        subject, data = self._pick(which), self._bytes(length)
        assert self.world.filemap.write(subject.file, data, start) == length
        # What lies between the old end and here are zeros, whatever the last page held.
        gap = max(start - len(subject.content), 0)
        self._changed(subject, min(start, len(subject.content)), gap + length)
        subject.content.extend(bytes(gap))
        subject.content[start : start + length] = data
        self._press(press)

    @rule(
        which=st.integers(0, 2),
        size=st.one_of(PLACES, st.just(PAGES * PAGE_SIZE + 99)),
        press=st.booleans(),
    )
    def truncate(self, which: int, size: int, press: bool) -> None:
        self._press(press)
        subject = self._pick(which)
        inode = self.world.files.inode_of(subject.file)
        if subject.disk:
            assert self.world.filemap.vmtruncate(inode, size) == 0
        else:
            assert self.world.shmem.notify_change(inode, size) == 0
        subject.content[size:] = bytes(max(size - len(subject.content), 0))

    @rule(which=st.integers(0, 1))
    def fsync(self, which: int) -> None:
        subject = self._pick(which)
        dirty = self._mapped_dirty(subject)
        assert self.world.filemap.sys_fsync(subject.file) == 0
        subject.unsynced &= dirty
        self._synced(subject, waited=True)

    @rule(
        which=st.integers(0, 2),
        flags=st.sampled_from([MS_SYNC, MS_ASYNC, 0]),
        start=st.integers(0, 10),
        count=st.integers(1, PAGES),
    )
    def msync(self, which: int, flags: int, start: int, count: int) -> None:
        subject = self._pick(which)
        self.world.image.current_task.mm = self.mms[0]
        base, end = self._range(subject.shared, start, count)
        inside = set(range(start, start + (end - base) // PAGE_SIZE))
        owed = self._owed(subject) | (self._mapped_dirty(subject) & inside)
        assert self.world.filemap.sys_msync(base, end - base, flags) == 0
        dirty = self._mapped_dirty(subject)
        assert not dirty & inside
        if subject.disk and flags in self.writing_flags:
            subject.unsynced &= dirty
            self._synced(subject, waited=flags == MS_SYNC)
        elif subject.disk:
            assert self._owed(subject) == owed

    def _owed(self, subject: Subject) -> set[int]:
        """Which pages the kernel knows that it must write."""
        return {self.world.cache.index(page) for page in self.world.must_be_written(subject.file)}

    def _range(self, vma: int, start: int, count: int) -> tuple[int, int]:
        view = self.world.vma(vma)
        base = int(view.vm_start) + start * PAGE_SIZE
        return base, min(base + count * PAGE_SIZE, int(view.vm_end))

    def _mapped_dirty(self, subject: Subject) -> set[int]:
        """Pages with a dirty PTE: their bytes need not have reached the page cache's lists."""
        view, tables = self.world.vma(subject.shared), self.world.kernel.tables
        ptes = self.world.ptes(self.world.pgd(self.mms[0]), int(view.vm_start), int(view.vm_end))
        return {
            vaddr - int(view.vm_start) >> 12
            for vaddr, ptep in ptes
            if pte_dirty(tables.entry(ptep))
        }

    def _synced(self, subject: Subject, *, waited: bool) -> None:
        world = self.world
        assert not world.must_be_written(subject.file)
        assert not waited or not world.being_written(subject.file)

    # -- through mappings ------------------------------------------------------------------------

    @rule(which=st.integers(0, 2), start=PLACES, length=LENGTHS, private=st.booleans())
    def load(self, which: int, start: int, length: int, private: bool) -> None:
        subject = self._pick(which)
        vma = subject.private if private else subject.shared
        self.world.image.current_task.mm = self.mms[private]
        for at, part in self._parts(vma, start, length):
            place = at + PRIVATE_FROM * PAGE_SIZE * private
            beyond = place // PAGE_SIZE * PAGE_SIZE >= len(subject.content)
            try:
                data = self.world.load(vma, int(self.world.vma(vma).vm_start) + at, part)
            except SigBus:
                assert beyond, f"SIGBUS at {place:#x} of {len(subject.content):#x}"
                continue
            assert not beyond, f"a page at {place:#x}, behind the end"
            expected = bytes(subject.content[place : place + part])
            self._same(data[: len(expected)], expected, "a load")

    @rule(which=st.integers(0, 2), start=PLACES, length=LENGTHS, press=st.booleans())
    def store(self, which: int, start: int, length: int, press: bool) -> None:
        subject = self._pick(which)
        length = min(length, len(subject.content) - start)
        self.world.image.current_task.mm = self.mms[0]
        for at, part in self._parts(subject.shared, start, length):
            data = self._bytes(part)
            vaddr = int(self.world.vma(subject.shared).vm_start) + at
            self.world.store(subject.shared, vaddr, data)
            subject.content[at : at + part] = data
            self._changed(subject, at, part)
        self._press(press)

    def _parts(self, vma: int, start: int, length: int) -> list[tuple[int, int]]:
        """(offset, length) in the VMA of each page that a range touches."""
        end = min(start + length, int(self.world.vma(vma).vm_end - self.world.vma(vma).vm_start))
        parts = []
        while start < end:
            part = min(PAGE_SIZE - start % PAGE_SIZE, end - start)
            parts.append((start, part))
            start += part
        return parts

    @rule(which=st.integers(0, 2), private=st.booleans(), start=st.integers(0, 10))
    def do_not_need(self, which: int, private: bool, start: int) -> None:
        subject = self._pick(which)
        vma = subject.private if private else subject.shared
        assert self.world.filemap.madvise_dontneed(vma, *self._range(vma, start, 8)) == 0

    @rule(which=st.integers(0, 1), start=st.integers(0, 10), drop=st.booleans())
    def will_need(self, which: int, start: int, drop: bool) -> None:
        subject = self._pick(which)
        mapping = self.world.mapping(subject.file)
        if drop:
            self.world.filemap.invalidate_inode_pages(mapping)
        base, end = self._range(subject.shared, start, 5)
        error = self.world.filemap.madvise_willneed(subject.shared, base, end)
        assert error == 0 or start * PAGE_SIZE >= len(subject.content) - 7 * PAGE_SIZE
        present = self.world.filemap.mincore_vma(subject.shared, base, end)
        assert present == bytes(
            bool(self.world.cache.find_page(mapping, start + at)) for at in range(len(present))
        )

    # -- reclaim -------------------------------------------------------------------------------

    @rule(
        may_write=st.sampled_from([True, True, False]),
        wanted=st.sampled_from([5, 30, 200]),
        rounds=st.integers(1, 3),
        unmap=st.sampled_from([True, True, False]),
    )
    def reclaim(self, may_write: bool, wanted: int, rounds: int, unmap: bool) -> None:
        """A dirty page takes two rounds, one of shmem three: each writes it, or frees it."""
        self._reclaim(self.gfp.kernel if may_write else self.gfp.nofs, wanted, rounds, unmap=unmap)

    def _press(self, press: bool) -> None:
        """Memory is short at once, so that what was just done is seen to survive it."""
        if press:
            self._reclaim(self.gfp.kernel, 200, 3, unmap=True)

    def _reclaim(self, gfp: int, wanted: int, rounds: int, *, unmap: bool) -> None:
        if unmap:
            self.world.unmap_all()
        self.world.shrink(wanted, gfp, rounds)

    @rule(which=st.integers(0, 1))
    def close_and_open(self, which: int) -> None:
        subject = self._pick(which)
        self._close(subject)
        self.subjects[which] = self._open(which, 0, subject.disk)

    def _close(self, subject: Subject) -> None:
        self.world.unmap(subject.shared)
        self.world.unmap(subject.private)
        self.world.files.fput(subject.file)
        if subject.disk:
            self._same(bytes(subject.disk.content), subject.content, "the disk after the close")

    # -- what must hold --------------------------------------------------------------------------

    @staticmethod
    def _same(data: bytes, expected: bytes | bytearray, what: str) -> None:
        if data != expected:
            wrong = [at for at in range(min(len(data), len(expected))) if data[at] != expected[at]]
            sizes = f"{len(data)} bytes for {len(expected)}"
            raise AssertionError(f"{what}: {sizes}, {len(wrong)} wrong from {wrong[:1]}")

    @invariant()
    def each_frame_has_one_owner(self) -> None:
        """The other tests look after each step; here a step is dear, so after some."""
        self.steps = getattr(self, "steps", 0) + 1
        if hasattr(self, "ballast") and self.steps % 4 == 0:
            check_machine(self.world.kernel, self.world.ledger)

    @invariant()
    def the_cache_holds_what_the_files_do(self) -> None:
        if hasattr(self, "ballast"):
            users = self._users()
            for subject in self.subjects:
                self._check_cache(subject, users)

    def _check_cache(self, subject: Subject, users: dict[int, int]) -> None:
        world, memmap, flags = self.world, self.world.memmap, self.flags
        mapping = world.mapping(subject.file)
        pages, dirty = world.pages(subject.file), set(world.must_be_written(subject.file))
        assert world.memory.pages.space(mapping).nrpages == len(pages) == len(set(pages))
        for page in pages:
            index = world.cache.index(page)
            assert world.cache.mapping(page) == mapping
            assert world.cache.find_page(mapping, index) == page
            assert memmap.test(page, flags.uptodate)
            assert memmap.test(page, flags.lru)
            assert not memmap.test(page, flags.locked)
            mapped = users.get(memmap.pfn(page), 0)
            assert memmap.count(page) == 1 + mapped, f"page {index}"
            world.check_mapped(page, mapped)
            expected = bytes(subject.content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE])
            self._same(world.frame(page)[: len(expected)], expected, f"page {index} in the cache")
            if subject.disk and memmap.test(page, flags.dirty):
                assert page in dirty
        self._check_away(subject, {world.cache.index(page) for page in pages})

    def _check_away(self, subject: Subject, cached: set[int]) -> None:
        """Pages that are not in memory: the disk, or a swap slot, has them."""
        world = self.world
        if subject.disk:
            assert len(subject.disk.content) == len(subject.content)
            for index in range(-(-len(subject.content) // PAGE_SIZE)):
                if index not in cached or index not in subject.unsynced:
                    where = slice(index * PAGE_SIZE, (index + 1) * PAGE_SIZE)
                    self._same(
                        bytes(subject.disk.content[where]), subject.content[where], f"disk {index}"
                    )
            return
        inode = world.files.inode_of(subject.file)
        out = dict(world.shmem.entries.entries(inode))
        assert not out.keys() & cached
        assert world.shmem.entries.info(inode).swapped == len(out)
        for index in range(len(subject.content) // PAGE_SIZE):
            if index not in cached and index not in out:
                where = slice(index * PAGE_SIZE, (index + 1) * PAGE_SIZE)
                assert subject.content[where] == _ZEROS, f"page {index} of shmem is lost"
        sb, blocks = world.kernel.statics.shmem_sb, int(world.files.inode(inode).i_blocks)
        assert int(sb.max_blocks) - int(sb.free_blocks) == blocks // BLOCKS_PER_PAGE
        assert blocks // BLOCKS_PER_PAGE >= len(cached) + len(out)

    def _users(self) -> dict[int, int]:
        """How many PTEs name each frame."""
        users: dict[int, int] = {}
        for vma in self.world.vmas:
            view = self.world.vma(vma)
            span = int(view.vm_start), int(view.vm_end)
            for _, ptep in self.world.ptes(self.world.pgd(int(view.vm_mm)), *span):
                pfn = pte_pfn(self.world.kernel.tables.entry(ptep))
                users[pfn] = users.get(pfn, 0) + 1
        return users

    def teardown(self) -> None:
        if not hasattr(self, "ballast"):
            return
        for subject in self.subjects:
            self._close(subject)
        self.subjects.clear()
        self.world.settle()
        kernel = self.world.kernel
        check_machine(kernel, self.world.ledger)
        sb = kernel.statics.shmem_sb
        assert (sb.free_blocks, sb.free_inodes) == (sb.max_blocks, sb.max_inodes)
        assert not any(kernel.swap_areas.counts(0)[1:])
        owners = list(self.world.ledger._owners.values())
        assert not {"page cache", "shmem index"} & set(owners)


class FileMachine26(FileMachine):
    """The same with 2.6, which tags dirty pages and knows who maps a frame."""

    machines = MACHINES_2_6
    writing_flags = (MS_SYNC,)
