# SPDX-License-Identifier: GPL-2.0-or-later
"""Making the current process run an ELF program.

Models linux-2.4.22 ``fs/binfmt_elf.c``: ``load_elf_binary()``, ``elf_map()``, ``set_brk()``,
``padzero()``, ``create_elf_tables()``. The program's file is mapped, and its pages come as they
are touched; only the stack's first page and the end of the data are written here.

What can fail: :class:`TooManyArguments` and :class:`~harness.elf.BadElf`, and the process goes on
with its old program; :class:`NoMemory`, and it has none any more: the old one is gone by then.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from harness.elf import ElfImage, Segment, SegmentFlags
from harness.uaccess import UserAccess
from kernel_model.arch_i386.page import PAGE_SIZE, TASK_SIZE
from kernel_model.errno import E2BIG, EFAULT
from kernel_model.errors import BadInput
from kernel_model.exec import BinaryParameters
from kernel_model.kernel import Kernel
from kernel_model.structs.mman import (
    MAP_DENYWRITE,
    MAP_EXECUTABLE,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)

ELF_ET_DYN_BASE: Final = TASK_SIZE // 3 * 2
"""Where a position-independent program goes."""
CLOCK_TICKS: Final = 100
PLATFORM: Final = b"i686"

AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_BASE, AT_FLAGS, AT_ENTRY = 3, 4, 5, 6, 7, 8, 9
AT_UID, AT_EUID, AT_GID, AT_EGID, AT_PLATFORM, AT_HWCAP, AT_CLKTCK = 11, 12, 13, 14, 15, 16, 17
AT_SECURE, AT_RANDOM = 23, 25
AT_SYSINFO, AT_SYSINFO_EHDR = 32, 33
_PHENT_BYTES: Final = 32
_PROTECTION: Final = {
    SegmentFlags.READ: PROT_READ,
    SegmentFlags.WRITE: PROT_WRITE,
    SegmentFlags.EXECUTE: PROT_EXEC,
}


class NoMemory(BadInput):
    """The program does not fit into the machine, or into its limits."""

    def __init__(self, name: str, error: int) -> None:
        super().__init__(f"{name}: does not fit into memory (error {-error}): give more --ram")
        self.error = error


class TooManyArguments(BadInput):
    """The arguments and the environment are longer than the 32 pages that there are for them."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: the arguments are longer than 128 KiB: pass fewer")


class ElfLoader:
    """``load_elf_binary()`` of one machine."""

    def __init__(self, kernel: Kernel, uaccess: UserAccess) -> None:
        self._kernel = kernel
        self._uaccess = uaccess

    def load(
        self,
        program: ElfImage,
        file: int,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        random: bytes = bytes(16),
        leave_memory: Callable[[], None] = lambda: None,
    ) -> tuple[int, int]:
        """Replace what the current process runs. ``file`` is the program's ``struct file *``.

        ``random`` is what AT_RANDOM points to; ``leave_memory`` is called when the old memory is
        about to go. Returns (EIP, ESP) for ring 3.
        """
        kernel, name = self._kernel, program.name
        program = program.at(ELF_ET_DYN_BASE) if program.position_independent else program
        bprm = BinaryParameters()
        exec_ = kernel.exec
        for strings in ([name.encode()], list(envp), list(argv)):
            if error := exec_.copy_strings(bprm, strings):
                exec_.free_arg_pages(bprm)
                if error == -E2BIG:
                    raise TooManyArguments(name)
                raise NoMemory(name, error)
        leave_memory()
        if error := exec_.exec_mmap():
            exec_.free_arg_pages(bprm)
            raise NoMemory(name, error)
        if error := exec_.setup_arg_pages(bprm):
            exec_.free_arg_pages(bprm)
            raise NoMemory(name, error)
        self._map_segments(program, file)
        esp = self._create_elf_tables(program, bprm.p, len(argv), len(envp), random)
        return program.entry, esp

    # -- segments --------------------------------------------------------------------------------

    def _map_segments(self, program: ElfImage, file: int) -> None:
        brk = bss = 0
        for segment in program.segments:
            if brk > bss:
                self._set_brk(program.name, bss, brk)
            self._elf_map(program.name, segment, file)
            bss = max(bss, segment.vaddr + len(segment.data))
            brk = max(brk, segment.end)
        self._set_brk(program.name, bss, brk)
        self._note_layout(program, brk)

    def _elf_map(self, name: str, segment: Segment, file: int) -> None:
        """Map the pages of the file that a segment lies in.

        One without a byte has none, unless it begins inside a page: that page is the file's, too.
        """
        offset = segment.vaddr % PAGE_SIZE
        size = len(segment.data) + offset
        if not size:
            return
        prot = sum(bit for flag, bit in _PROTECTION.items() if segment.flags & flag)
        flags = MAP_PRIVATE | MAP_DENYWRITE | MAP_EXECUTABLE | MAP_FIXED
        addr = self._kernel.spaces.do_mmap(
            file, segment.vaddr - offset, size, prot, flags, segment.offset - offset
        )
        if addr != segment.vaddr - offset:
            raise NoMemory(name, addr)

    def _set_brk(self, name: str, bss: int, brk: int) -> None:
        """Anonymous pages from the end of the file's data to ``brk``; zeros before the first."""
        start, end = (-(-edge // PAGE_SIZE) * PAGE_SIZE for edge in (bss, brk))
        if end > start:
            addr = self._kernel.spaces.do_brk(start, end - start)
            if addr != start:
                raise NoMemory(name, addr)
        if rest := -bss % PAGE_SIZE:
            # A page that cannot be written to keeps what the file has there.
            self._uaccess.clear_user(bss, rest)

    def _note_layout(self, program: ElfImage, brk: int) -> None:
        """``start_code`` and its kin, as ``/proc`` and ``brk()`` ask for them."""
        areas = self._kernel.spaces.areas
        mm = areas.mm(areas.current_mm)
        code = [s for s in program.segments if s.flags & SegmentFlags.EXECUTE] or program.segments
        mm.start_code = program.segments[0].vaddr
        mm.end_code = max(s.vaddr + len(s.data) for s in code)
        mm.start_data = program.segments[-1].vaddr
        mm.end_data = max(s.vaddr + len(s.data) for s in program.segments)
        mm.start_brk = mm.brk = brk

    # -- the stack -------------------------------------------------------------------------------

    def _auxiliary_vector(self, program: ElfImage, platform: int, random: int) -> list[int]:
        pairs = []
        if vsyscall := self._kernel.vsyscall:
            pairs += [(AT_SYSINFO, vsyscall.entry), (AT_SYSINFO_EHDR, vsyscall.vaddr)]
        pairs += [(AT_HWCAP, 0), (AT_PAGESZ, PAGE_SIZE), (AT_CLKTCK, CLOCK_TICKS)]
        if program.phdr_vaddr is not None:
            pairs += [(AT_PHDR, program.phdr_vaddr), (AT_PHENT, _PHENT_BYTES)]
            pairs += [(AT_PHNUM, program.phnum)]
        pairs += [(AT_BASE, 0), (AT_FLAGS, 0), (AT_ENTRY, program.entry)]
        pairs += [(identity, 0) for identity in (AT_UID, AT_EUID, AT_GID, AT_EGID)]
        # 2.4.22 has neither of the next two; the C library of today's programs needs the second.
        pairs += [(AT_SECURE, 0), (AT_RANDOM, random)]
        pairs += [(AT_PLATFORM, platform), (0, 0)]
        return [word for pair in pairs for word in pair]

    def _create_elf_tables(
        self, program: ElfImage, p: int, argc: int, envc: int, random: bytes
    ) -> int:
        """argc, the pointers to arguments and environment, the auxiliary vector, from ESP up.

        ``p`` is the address of the first argument; the others follow, then the environment.
        """
        platform = p - len(PLATFORM) - 1
        seed = platform - len(random)
        mm = self._kernel.spaces.areas.mm(self._kernel.spaces.areas.current_mm)
        strings = self._strings(p, argc + envc)
        mm.arg_start, mm.arg_end = p, strings[argc]
        mm.env_start, mm.env_end = strings[argc], strings[argc + envc]
        words = [argc, *strings[:argc], 0, *strings[argc : argc + envc], 0]
        words += self._auxiliary_vector(program, platform, seed)
        esp = (seed & ~0xF) - 4 * len(words) & ~0xF
        body = struct.pack(f"<{len(words)}I", *words)
        left = self._uaccess.copy_to_user(seed, random + PLATFORM + b"\0")
        if left or self._uaccess.copy_to_user(esp, body):
            raise NoMemory(program.name, -EFAULT)
        mm.start_stack = esp
        return esp

    def _strings(self, p: int, count: int) -> list[int]:
        """The addresses of ``count`` strings from ``p`` on, and the end of the last one."""
        addresses = [p]
        for _ in range(count):
            addresses.append(addresses[-1] + self._uaccess.strnlen_user(addresses[-1]))
        return addresses
