# SPDX-License-Identifier: GPL-2.0-or-later
"""A process with pages of every kind, short of memory, and what an operation changed of it all.

The process has three pages written, and one each of the zero page, a private file, shared memory,
and one that is out, each kind in a page table of its own.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from harness.binfmt_elf import ElfLoader, NoMemory
from harness.elf import load_elf
from harness.guests import guest_path
from harness.uaccess import UserAccess
from kernel_model.exec import BinaryParameters
from kernel_model.fork import CLONE_VM
from kernel_model.mm.slab.flags import SLAB_CACHE_DMA, SLAB_DMA, SLAB_NO_GROW
from kernel_model.structs.fs import FMODE_READ
from kernel_model.structs.mm import VM_GROWSDOWN, VM_LOCKED
from tests.harness.process_machine import (
    ANONYMOUS,
    FIXED,
    MCL_CURRENT,
    MCL_FUTURE,
    PAGE,
    PRIVATE,
    RW,
    SHARED,
    Content,
    ProcessMachine,
)
from tests.harness.program_file import ProgramFile

WRITTEN, ZERO, FILE, SHM, OUT = 0x50000000, 0x51000000, 0x52000000, 0x53000000, 0x54000000
FRESH, ELSEWHERE, BORDER = 0x55000000, 0x56000000, 0x563FE000
WORD = 0x11110000
ENOMEM, EAGAIN, EPERM, EFAULT = -12, -11, -1, 0xFFFFFFF2
ARGUMENTS = [b"a" * 2 * PAGE]


@dataclass(frozen=True)
class Moment:
    """Everything of the process and of the machine that an operation could change."""

    areas: list[tuple[int, int, int]]
    pages: dict[int, tuple[str, int, int]]
    """Address -> bits of the PTE, frame or slot, check sum of the contents."""
    counts: dict[int, int]
    owners: dict[int, str]
    slots: list[int]


class Stage:
    """A process: three pages written, and one each of the zero page, a private file, shared
    memory, and one that is out; each in a page table of its own."""

    def __init__(self, world: ProcessMachine) -> None:
        self.world, self.kernel = world, world.kernel
        self.before = world.owners()
        self.slots = self._slots()
        self.descendants: list[int] = []
        self.thread = 0
        self.process = process = world.spaces.fork(world.first)
        world.spaces.enter(process)
        assert self.kernel.spaces.sys_mlockall(MCL_CURRENT) == 0
        world.map(OUT)
        world.write(process, OUT, WORD)
        world.reclaim()
        world.map(WRITTEN, pages=3)
        for page in range(3):
            world.write(process, WRITTEN + page * PAGE, WORD + page)
        world.map(ZERO)
        world.map_file(FILE, Content(WORD), PRIVATE)
        world.map(SHM, RW, SHARED | ANONYMOUS)
        world.read(process, ZERO)
        world.read(process, FILE)
        world.write(process, SHM, WORD)
        self.kernel.spaces.sys_munlockall()

    @property
    def mm(self) -> int:
        return self.world.spaces.mm(self.process)

    def _slots(self) -> list[int]:
        return list(self.kernel.swap_areas.counts(0))

    def moment(self) -> Moment:
        areas, tables = self.kernel.spaces.areas, self.kernel.memory.tables
        vmas = [areas.vma(vma) for vma in areas.list(self.mm)]
        pages = {}
        counts = {}
        for vaddr, ptep in tables.ptes(self.process, 0, 0xC0000000):
            pte = self.kernel.tables.entry(ptep)
            content = 0
            if pte & 0x81:
                content = crc32(self.world.machine.ram.read(pte >> 12 << 12, PAGE))
            pages[vaddr] = (self.world.bits(self.process, vaddr), pte >> 12, content)
            counts[vaddr] = self.world.count(self.process, vaddr)
        self._counters_are_right(vmas)
        ranges = [(int(v.vm_start), int(v.vm_end), int(v.vm_flags)) for v in vmas]
        return Moment(ranges, pages, counts, self.world.owners(), self._slots())

    def _counters_are_right(self, vmas: list[Any]) -> None:
        space = self.kernel.spaces.areas.mm(self.mm)
        sizes = [(int(v.vm_end - v.vm_start) // PAGE, v.vm_flags & VM_LOCKED) for v in vmas]
        assert space.map_count == len(vmas)
        assert space.total_vm == sum(size for size, _ in sizes)
        assert space.locked_vm == sum(size for size, locked in sizes if locked)
        assert space.rss == self.world.mapped_frames(self.process)

    def is_as_it_was(self) -> None:
        """Ring 3 finds in each page what was there."""
        words = {WRITTEN + n * PAGE: WORD + n for n in range(3)}
        words |= {ZERO: 0, FILE: WORD, SHM: WORD, OUT: WORD}
        for addr, word in words.items():
            assert self.world.read(self.process, addr) == word

    def end(self) -> None:
        """All exit, and every frame and slot is where it was before there was any of them."""
        world, kernel = self.world, self.kernel
        for process in (*self.descendants, self.process):
            world.spaces.exit(process)
        if self.thread:
            kernel.tasks.context_switch(self.thread)
            kernel.exit.exit_mm()
            kernel.tasks.context_switch(kernel.image.init_task)
            kernel.tasks.free_task_struct(self.thread)
        assert (world.owners(), self._slots()) == (self.before, self.slots)

    # -- memory is short -----------------------------------------------------------------------

    @contextmanager
    def no_free_objects(self) -> Iterator[None]:
        """Whoever wants an object of a cache needs a frame for it."""
        slab, gfp = self.kernel.slab, self.kernel.image.constants.gfp
        taken: list[tuple[int, int]] = []
        for cache in list(slab.chain()):
            flags = gfp.kernel | (gfp.no_grow or SLAB_NO_GROW)
            flags |= SLAB_DMA if cache.flags & SLAB_CACHE_DMA else 0
            while objp := slab.kmem_cache_alloc(cache.vaddr, flags):
                taken.append((cache.vaddr, objp))
        try:
            yield
        finally:
            for cachep, objp in taken:
                slab.kmem_cache_free(cachep, objp)

    @contextmanager
    def refusing(self, numbers: range) -> Iterator[list[str]]:
        """Requests of these numbers find no memory; gives what each request was for."""
        allocator, asked = self.kernel.allocator, []
        real = allocator.alloc_pages

        def alloc_pages(gfp_mask: int, order: int, purpose: str = "kernel") -> int:
            asked.append(purpose)
            return 0 if len(asked) - 1 in numbers else real(gfp_mask, order, purpose)

        allocator.alloc_pages = alloc_pages  # type: ignore[method-assign]
        try:
            yield asked
        finally:
            del allocator.alloc_pages

    # -- the operations ------------------------------------------------------------------------

    def fork(self) -> str:
        child = self.world.spaces.fork(self.process)
        if child:
            self.descendants.append(child)
        return "ok" if child else "ENOMEM"

    def has_child(self) -> None:
        assert self.fork() == "ok"

    def store(self, addr: int) -> str:
        result = self.world.write(self.process, addr + 8, 7)
        return "ok" if result == 7 else str(result)

    def load(self, addr: int, value: int) -> str:
        result = self.world.read(self.process, addr)
        return "ok" if result == value else str(result)

    def put_user(self) -> str:
        self.world.signals.clear()
        result = self.world.machine.call("uaccess_write", WRITTEN + 8, 7)
        assert not self.world.signals
        return {7: "ok", EFAULT: "EFAULT"}[result]

    def has_stack_below(self) -> None:
        """A stack in a page table of its own, with nothing below."""
        self.stack = 0x5A000000
        self.world.map(self.stack, RW, PRIVATE | ANONYMOUS)
        self._area(self.stack).vm_flags |= VM_GROWSDOWN

    def _area(self, addr: int) -> Any:
        return self.kernel.spaces.areas.vma(self.kernel.spaces.find_vma(self.mm, addr))

    def put_user_below_stack(self) -> str:
        result = self.world.machine.call("uaccess_write", self.stack - 4, 7)
        return {7: "ok", EFAULT: "EFAULT"}[result]

    def get_user_pages(self) -> str:
        pages, error = self.kernel.memory.get_user_pages(self.mm, FRESH, 3, write=True)
        for page in pages:
            self.kernel.allocator.put_page(page)
        return f"{len(pages)} pages" + (", ENOMEM" if error == ENOMEM else "")

    def copy_strings(self) -> str:
        bprm = BinaryParameters()
        error = self.kernel.exec.copy_strings(bprm, ARGUMENTS)
        self.kernel.exec.free_arg_pages(bprm)
        return errno(error)

    def has_thread(self) -> None:
        self.world.spaces.fork(self.process, CLONE_VM)
        self.thread = self.world.spaces.thread

    def exec_mmap(self) -> str:
        return errno(self.kernel.exec.exec_mmap())

    def has_arguments(self) -> None:
        self.bprm = BinaryParameters()
        assert self.kernel.exec.copy_strings(self.bprm, ARGUMENTS) == 0
        assert self.kernel.exec.exec_mmap() == 0
        self.process = self.world.spaces.after_exec(self.process)

    def setup_arg_pages(self) -> str:
        error = self.kernel.exec.setup_arg_pages(self.bprm)
        self.kernel.exec.free_arg_pages(self.bprm)
        return errno(error)

    def has_program(self) -> None:
        self.program = load_elf(guest_path("hello"))
        store = ProgramFile(self.program.file)
        self.file = self.kernel.hostfs.open(store, "hello", FMODE_READ)

    def exec_program(self) -> str:
        """``execve()`` of the guest program ``hello``."""
        loader = ElfLoader(self.kernel, UserAccess(self.world.machine))
        try:
            loader.load(self.program, self.file, [b"hello"], [b"HOME=/"])
        except NoMemory:
            return "NoMemory"
        finally:
            self.kernel.files.fput(self.file)
        return "ok"

    def has_its_areas(self) -> bool:
        vma = self.kernel.spaces.find_vma(self.mm, WRITTEN)
        return bool(vma) and int(self.kernel.spaces.areas.vma(vma).vm_start) == WRITTEN

    def has_room(self) -> None:
        self.world.map(FRESH, pages=3)

    def has_file(self) -> None:
        self.world.map_file(FRESH, Content(WORD), PRIVATE)

    def has_shared_memory(self) -> None:
        self.world.map(FRESH, RW, SHARED | ANONYMOUS)

    def locks_what_comes(self) -> None:
        assert self.kernel.spaces.sys_mlockall(MCL_FUTURE) == 0

    def mmap(self, addr: int, pages: int) -> str:
        flags = PRIVATE | ANONYMOUS | FIXED
        return errno(self.kernel.spaces.do_mmap_pgoff(0, addr, pages * PAGE, RW, flags, 0))

    def mremap(self, addr: int, pages: int, to: int) -> str:
        return errno(self.kernel.spaces.do_mremap(addr, pages * PAGE, pages * PAGE, 3, to))


def errno(result: int) -> str:
    return {ENOMEM: "ENOMEM", EAGAIN: "EAGAIN", EPERM: "EPERM"}.get(result, "ok")


def owners_text(owner: str, more: int) -> str:
    """``+slab``, ``+2 user page``, ``-3 argument page``."""
    name = owner.removeprefix("page ") if owner == "page table" else owner
    return f"+{name}" if more == 1 else f"{more:+} {name}"


def what_is_left(before: Moment, after: Moment) -> str:
    words = []
    if before.areas != after.areas:
        words.append("areas")
    old, new = before.pages, after.pages
    read_only = {
        v
        for v in old.keys() & new.keys()
        if old[v] != new[v] and (old[v][0].replace("W ", ""), *old[v][1:]) == new[v]
    }
    changed = {v for v in old.keys() & new.keys() if old[v] != new[v]} - read_only
    for name, pages in (
        ("read-only", read_only),
        ("changed", changed),
        ("gone", old.keys() - new.keys()),
        ("new", new.keys() - old.keys()),
    ):
        if pages:
            words.append(f"{len(pages)} {name}")
    more = Counter(after.owners.values())
    more.subtract(Counter(before.owners.values()))
    words += [owners_text(owner, n) for owner, n in sorted(more.items()) if n]
    if before.slots != after.slots:
        words.append("slots")
    if any(before.counts[v] != after.counts[v] for v in old.keys() & new.keys() - changed):
        words.append("counts")
    return ", ".join(words) or "nothing"
