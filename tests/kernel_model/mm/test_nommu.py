# SPDX-License-Identifier: GPL-2.0-or-later
"""Mapping without an MMU, against dictionaries of bytes and the rules of Linux's nommu-mmap."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from kernel_model.arch_i386.page import PAGE_SIZE, phys_to_virt, virt_to_phys
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errno import EACCES, EFAULT, EINVAL, EIO, ENODEV, ENOMEM, ENOSYS, EPERM
from kernel_model.errors import BadConfig, KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.nommu import NoMmu
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE, S_APPEND
from kernel_model.structs.mman import (
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)

pytestmark = pytest.mark.book("3.10")

HEAP = 8 << 20
RW = PROT_READ | PROT_WRITE


class Blocks:
    """Memory in blocks of powers of two, as kmalloc's caches have them, and who holds which."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.free: dict[int, list[int]] = {}
        self.end = phys_to_virt(HEAP)
        self.refuse_after = -1
        """So many requests are still served; -1: all."""

    def kmalloc(self, size: int, flags: int) -> int:
        if not self.refuse_after or size > 128 << 10:
            return 0
        self.refuse_after -= 1
        block = max(32, 1 << (size - 1).bit_length())
        spare = self.free.setdefault(block, [])
        if spare:
            start = spare.pop()
        else:
            start = -(-self.end // block) * block
            self.end = start + block
        self.held[start] = block
        return start

    def kfree(self, objp: int) -> None:
        self.free[self.held[objp]].append(objp)
        del self.held[objp]

    def ksize(self, objp: int) -> int:
        return self.held[objp]


@dataclass
class File:
    content: bytes = b""
    inode: int = 1
    mode: int = FMODE_READ
    flags: int = 0
    mmap: bool = True
    memory: int = 0
    """Where a device's own memory lies; 0: an ordinary file."""
    users: int = 1
    readable: bool = True


@dataclass
class FileTable:
    files: dict[int, File] = field(default_factory=dict)

    def add(self, file: File) -> int:
        number = 0x1000 + len(self.files)
        self.files[number] = file
        return number

    def inode_of(self, file: int) -> int:
        return self.files[file].inode

    def i_flags(self, file: int) -> int:
        return self.files[file].flags

    def f_mode(self, file: int) -> int:
        return self.files[file].mode

    def has_mmap(self, file: int) -> bool:
        return self.files[file].mmap

    def memory_backed(self, file: int) -> bool:
        return bool(self.files[file].memory)

    def get_unmapped_area(self, file: int, length: int, pgoff: int) -> int:
        memory = self.files[file].memory
        return memory + pgoff * PAGE_SIZE if memory else -ENOSYS

    def mmap(self, file: int, vma: int) -> int:
        return 0 if self.files[file].memory else -ENOSYS

    def read(self, file: int, length: int, pos: int) -> bytes | int:
        known = self.files[file]
        return known.content[pos : pos + length] if known.readable else -EIO

    def get_file(self, file: int) -> None:
        self.files[file].users += 1

    def fput(self, file: int) -> None:
        self.files[file].users -= 1


class Bench:
    """One machine without an MMU, with memory and files of the test's own."""

    def __init__(self) -> None:
        self.image = KernelImage(KernelConfig(ram=16 << 20, release="2.6", mmu=False))
        self.blocks, self.table = Blocks(), FileTable()
        tree = self.image.symbol("nommu_vma_tree")
        self.nommu = NoMmu(self.image, self.blocks, self.table, tree)

    def mm(self) -> int:
        """A new process's address space, outside the blocks."""
        self.blocks.end += PAGE_SIZE
        self.image.ram.fill(virt_to_phys(self.blocks.end - PAGE_SIZE), PAGE_SIZE)
        return self.blocks.end - PAGE_SIZE

    def bytes(self, address: int, length: int) -> bytes:
        return self.image.ram.read(virt_to_phys(address), length)

    def mapped(self, mm: int) -> list[tuple[int, int]]:
        views = [self.nommu.vma(self.nommu._list(e).vma) for e in self.nommu.entries(mm)]
        return [(int(v.vm_start), int(v.vm_end)) for v in views]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_anonymous_memory_is_zero_and_in_one_piece(bench: Bench) -> None:
    mm = bench.mm()
    first = bench.nommu.do_mmap_pgoff(mm, 0, 0, 5000, RW, MAP_PRIVATE, 0)
    bench.image.ram.write(virt_to_phys(first), b"x" * 5000)
    assert bench.nommu.do_munmap(mm, first, 5000) == 0
    again = bench.nommu.do_mmap_pgoff(mm, 0, 0, 8192, RW, MAP_PRIVATE, 0)
    assert again == first, "the block is used again"
    assert not any(bench.bytes(again, 8192))
    assert bench.mapped(mm) == [(again, again + 8192)]


def test_a_private_file_is_copied_and_padded(bench: Bench) -> None:
    mm, file = bench.mm(), bench.table.add(File(bytes(range(256)) * 20))
    at = bench.nommu.do_mmap_pgoff(mm, file, 0, 2000, RW, MAP_PRIVATE, 1)
    content = (bytes(range(256)) * 20)[4096:]
    assert bench.bytes(at, 2000) == content.ljust(2000, b"\0")
    assert bench.table.files[file].users == 2


def test_what_nobody_writes_is_shared_by_all(bench: Bench) -> None:
    one, other = bench.mm(), bench.mm()
    file = bench.table.add(File(b"text" * 3000))
    code = PROT_READ | PROT_EXEC
    first = bench.nommu.do_mmap_pgoff(one, file, 0, 8192, code, MAP_PRIVATE, 0)
    assert bench.nommu.do_mmap_pgoff(other, file, 0, 8192, code, MAP_PRIVATE, 0) == first
    writable = bench.nommu.do_mmap_pgoff(other, file, 0, 8192, RW, MAP_PRIVATE, 0)
    assert writable != first, "what may be written is one's own"
    assert bench.nommu.do_mmap_pgoff(other, file, 0, 4096, code, MAP_PRIVATE, 0) == -EINVAL
    assert bench.nommu.do_mmap_pgoff(other, file, 0, 4096, code, MAP_PRIVATE, 2) > 0
    bench.nommu.exit_mmap(one)
    assert bench.bytes(first, 4) == b"text", "the other process has it still"
    bench.nommu.exit_mmap(other)
    assert not bench.blocks.held
    assert bench.table.files[file].users == 1


def test_a_device_is_mapped_where_its_memory_lies(bench: Bench) -> None:
    memory = phys_to_virt(14 << 20)
    mm = bench.mm()
    device = bench.table.add(File(memory=memory, mode=FMODE_READ | FMODE_WRITE))
    assert bench.nommu.do_mmap_pgoff(mm, device, 0, 4096, RW, MAP_SHARED, 3) == memory + 0x3000
    overlapping = bench.nommu.do_mmap_pgoff(mm, device, 0, 8192, RW, MAP_SHARED, 2)
    assert overlapping == memory + 0x2000, "a device settles overlaps for itself"
    bench.nommu.exit_mmap(mm)
    assert not bench.blocks.held, "and its memory was never kmalloc's"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"flags": MAP_PRIVATE | MAP_FIXED}, EINVAL),
        ({"addr": 0x10000}, EINVAL),
        ({"length": 0xC0000001}, EINVAL),
        ({"pgoff": 0xFFFFFFFF, "length": 8192}, EINVAL),
        ({"length": 1 << 20}, ENOMEM),
        ({"file": File(mmap=False)}, ENODEV),
        ({"file": File(), "flags": MAP_SHARED, "prot": PROT_READ}, EINVAL),
        ({"file": File(), "flags": MAP_SHARED}, EACCES),
        ({"file": File(memory=1, mode=3, flags=S_APPEND), "flags": MAP_SHARED}, EACCES),
        ({"file": File(readable=False)}, EIO),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    bench: Bench, request_: dict[str, object], error: int
) -> None:
    defaults = {"addr": 0, "length": 4096, "prot": RW, "flags": MAP_PRIVATE, "pgoff": 0}
    asked = defaults | request_
    file = asked.pop("file", None)
    number = bench.table.add(file) if isinstance(file, File) else 0
    mm = bench.mm()
    assert bench.nommu.do_mmap_pgoff(mm, number, *asked.values()) == -error  # type: ignore[arg-type]
    assert not bench.blocks.held
    assert not list(bench.nommu.shareable())
    assert not number or bench.table.files[number].users == 1


@pytest.mark.parametrize("served", range(3))
def test_no_memory_at_each_request(bench: Bench, served: int) -> None:
    mm, file = bench.mm(), bench.table.add(File(b"data"))
    bench.blocks.refuse_after = served
    assert bench.nommu.do_mmap_pgoff(mm, file, 0, 4096, RW, MAP_PRIVATE, 0) == -ENOMEM
    assert not bench.blocks.held
    assert bench.table.files[file].users == 1


def test_length_zero_maps_nothing(bench: Bench) -> None:
    assert bench.nommu.do_mmap_pgoff(bench.mm(), 0, 0, 0, RW, MAP_PRIVATE, 0) == 0


def test_mremap_stays_within_its_block(bench: Bench) -> None:
    mm, file = bench.mm(), bench.table.add(File(b"code"))
    at = bench.nommu.do_mmap_pgoff(mm, 0, 0, 5000, RW, MAP_PRIVATE, 0)
    mremap = bench.nommu.do_mremap
    assert mremap(mm, at, 5000, 8192, 0, 0) == at
    assert mremap(mm, at, 8192, 8193, 0, 0) == -ENOMEM
    assert mremap(mm, at, 5000, 6000, 0, 0) == -EFAULT
    assert mremap(mm, at + 4096, 4096, 100, 0, 0) == -EINVAL
    assert mremap(mm, at, 8192, 0, 0, 0) == -EINVAL
    assert mremap(mm, at, 8192, 100, MREMAP_FIXED, at + 4096) == -EINVAL
    assert mremap(mm, at, 8192, 100, MREMAP_FIXED, at) == at
    shared = bench.nommu.do_mmap_pgoff(mm, file, 0, 4096, PROT_READ, MAP_PRIVATE, 0)
    assert mremap(mm, shared, 4096, 100, 0, 0) == -EPERM


def test_munmap_takes_whole_mappings_only(bench: Bench) -> None:
    mm = bench.mm()
    at = bench.nommu.do_mmap_pgoff(mm, 0, 0, 8192, RW, MAP_PRIVATE, 0)
    assert bench.nommu.do_munmap(mm, at, 4096) == -EINVAL
    assert bench.nommu.do_munmap(mm, at + 4096, 4096) == -EINVAL
    assert bench.nommu.do_munmap(mm, at, 8192) == 0
    assert bench.nommu.do_munmap(mm, at, 8192) == -EINVAL


def test_the_break_moves_within_its_memory(bench: Bench) -> None:
    mm = bench.mm()
    view = bench.nommu._mm(mm)
    view.start_brk = view.brk = 0x10000
    view.context.end_brk = 0x14000
    assert [bench.nommu.sys_brk(mm, to) for to in (0x12000, 0x14000, 0x14001, 0xFFFF, 0x10000)] == [
        *(0x12000, 0x14000, 0x14000, 0x14000, 0x10000)
    ]


def test_what_only_an_mmu_can_do_is_a_bug(bench: Bench) -> None:
    with pytest.raises(KernelBug, match="vmap of 2 pages"):
        bench.nommu.vmap([0, 0])
    with pytest.raises(KernelBug, match="vunmap"):
        bench.nommu.vunmap(0)
    assert bench.nommu.do_brk(0, 4096) == -ENOMEM
    bench.nommu.vfree(bench.nommu.vmalloc(10000))
    assert not bench.blocks.held


@pytest.mark.parametrize("wrong", [{"release": "2.4"}, {"release": "2.6", "highmem": "4G"}])
def test_a_kernel_without_mmu_is_a_2_6_without_highmem(wrong: dict[str, str]) -> None:
    highmem = Highmem(wrong.get("highmem", "none"))
    with pytest.raises(BadConfig, match="without MMU"):
        KernelConfig(release=wrong["release"], highmem=highmem, mmu=False)


class Mappings(RuleBasedStateMachine):
    """Three processes, two files: what each mapping holds, and who shares what."""

    held = Bundle("held")

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.mms = [self.bench.mm() for _ in range(3)]
        self.contents = [bytes([number]) * 9000 for number in (1, 2)]
        self.files = [
            self.bench.table.add(File(content, inode=number))
            for number, content in enumerate(self.contents, 10)
        ]
        self.expected: dict[int, list[tuple[int, int]]] = {mm: [] for mm in self.mms}
        self.bytes: dict[int, bytearray] = {}
        self.read_only: dict[tuple[int, int, int], tuple[int, int]] = {}

    @rule(who=st.integers(0, 2), length=st.integers(1, 20000), target=held)
    def anonymous(self, who: int, length: int) -> tuple[int, int, int]:
        mm = self.mms[who]
        at = self.bench.nommu.do_mmap_pgoff(mm, 0, 0, length, RW, MAP_PRIVATE, 0)
        assert at > 0
        self.expected[mm].insert(0, (at, at + length))
        self.bytes[at] = bytearray(length)
        return who, at, length

    @rule(
        who=st.integers(0, 2),
        which=st.integers(0, 1),
        pages=st.integers(1, 3),
        pgoff=st.integers(0, 2),
        target=held,
    )
    def file(self, who: int, which: int, pages: int, pgoff: int):  # type: ignore[no-untyped-def]
        mm, length = self.mms[who], pages * PAGE_SIZE
        at = self.bench.nommu.do_mmap_pgoff(
            mm, self.files[which], 0, length, PROT_READ, MAP_PRIVATE, pgoff
        )
        overlapping = [
            (key, value)
            for key, value in self.read_only.items()
            if key[0] == which and key[1] < pgoff + pages and pgoff < key[1] + key[2]
        ]
        same = self.read_only.get((which, pgoff, pages))
        if same is None and overlapping:
            assert at == -EINVAL
            return multiple()
        if same is None:
            content = self.contents[which][pgoff * PAGE_SIZE :][:length]
            self.bytes[at] = bytearray(content.ljust(length, b"\0"))
        else:
            # Any of several overlapping mappings may be met first, and refuse.
            if at == -EINVAL:
                assert len(overlapping) > 1
                return multiple()
            assert at == same[0]
        self.read_only[which, pgoff, pages] = (at, (same[1] if same else 0) + 1)
        self.expected[mm].insert(0, (at, at + length))
        return who, at, length

    @rule(place=held, offset=st.integers(0, 19999), value=st.integers(0, 255))
    def write(self, place: tuple[int, int, int], offset: int, value: int) -> None:
        _, at, _length = place
        shared = any(where == at for where, _ in self.read_only.values())
        if at not in self.bytes or shared or offset >= len(self.bytes[at]):
            return
        self.bench.image.ram.write(virt_to_phys(at + offset), bytes([value]))
        self.bytes[at][offset] = value

    @rule(place=held)
    def unmap(self, place: tuple[int, int, int]) -> None:
        who, at, length = place
        mm = self.mms[who]
        there = (at, at + length) in self.expected[mm]
        assert self.bench.nommu.do_munmap(mm, at, length) == (0 if there else -EINVAL)
        if there:
            self.expected[mm].remove((at, at + length))
            self._gone(at)

    def _gone(self, at: int) -> None:
        for key, (where, users) in list(self.read_only.items()):
            if where == at:
                if users > 1:
                    self.read_only[key] = (where, users - 1)
                    return
                del self.read_only[key]
        del self.bytes[at]

    @rule(who=st.integers(0, 2))
    def exit(self, who: int) -> None:
        mm = self.mms[who]
        self.bench.nommu.exit_mmap(mm)
        for start, _ in self.expected[mm]:
            self._gone(start)
        self.expected[mm] = []

    @invariant()
    def agree(self) -> None:
        bench = self.bench
        for mm in self.mms:
            assert bench.mapped(mm) == self.expected[mm]
        starts = [int(bench.nommu.vma(vma).vm_start) for vma in bench.nommu.shareable()]
        assert starts == sorted(self.bytes)
        for at, content in self.bytes.items():
            assert bench.bytes(at, len(content)) == content, hex(at)
        lists = sum(len(entries) for entries in self.expected.values())
        assert len(bench.blocks.held) == lists + 2 * len(self.bytes)


TestMappings = Mappings.TestCase
TestMappings.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)


def forget_a_user(nommu: NoMmu, vma: int) -> None:
    nommu.vma(vma).vm_usage = 1
    PUT_VMA(nommu, vma)


def highest_first(nommu: NoMmu, vma: int) -> None:
    view = nommu.vma(vma)
    start, view.vm_start = view.vm_start, 0
    INSERT(nommu, vma)
    view.vm_start = start


def not_cleared(nommu: NoMmu, view: Any, file: int, length: int, pgoff: int) -> int:
    error = ALLOCATE(nommu, view, file, length, pgoff)
    nommu._image.ram.write(virt_to_phys(view.vm_end - 1), b"!")
    return error


def keep_the_entry(nommu: NoMmu, mm: int, before: int, entry: int) -> None:
    kfree, nommu._memory.kfree = nommu._memory.kfree, lambda objp: None  # type: ignore[method-assign]
    UNLINK(nommu, mm, before, entry)
    nommu._memory.kfree = kfree  # type: ignore[method-assign]


PUT_VMA, INSERT = NoMmu._put_vma, NoMmu._insert
ALLOCATE, UNLINK = NoMmu._allocate, NoMmu._unlink
FAULTS = {
    "_put_vma": forget_a_user,
    "_insert": highest_first,
    "_allocate": not_cleared,
    "_unlink": keep_the_entry,
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoMmu, name, FAULTS[name])
    search = settings(
        TestMappings.settings, max_examples=100, phases=[Phase.generate], report_multiple_bugs=False
    )
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Mappings, settings=search)
