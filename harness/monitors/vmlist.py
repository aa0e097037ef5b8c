# SPDX-License-Identifier: GPL-2.0-or-later
"""A census of the vmalloc range: every area of ``vmlist``, and every page mapped there.

:func:`vmlist_census` walks the ``vm_struct``s and, by the reference walk, the kernel's page
tables (book 7.1-7.4), and holds one against the other, against ``mem_map`` and against the
frame ledger, when one listens; in 2.6 also against the array ``vm_struct.pages`` of each area. It
shares no code with :mod:`kernel_model.mm.vmalloc`.

What can fail: :class:`VmlistInconsistent`, which names the area and what is wrong.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, ControlRegisters
from harness.mappings import I64, PAGE_SHIFT, RIGHT_USER
from harness.mmu_sweep import sweep
from harness.monitors.frames import FrameLedger
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel

__all__ = ["AreaSeen", "VmlistInconsistent", "vmlist_census"]

PAGE_OFFSET: Final = 0xC0000000
PAGE_SIZE: Final = 1 << PAGE_SHIFT
SWAPPER_PG_DIR: Final = 0x101000
VM_IOREMAP, VM_ALLOC, VM_MAP = 1, 2, 4
PTE_FLAGS: Final = 1 << 20
"""The flags of an area of 2.6 hold those of a device's PTEs from this bit on."""


class VmlistInconsistent(MmucheckError):
    """``vmlist``, the kernel's page tables and ``mem_map`` contradict each other."""

    concerns = "get_vm_area(), vmalloc_area_pages(), vfree(), mm/vmalloc.c (book 7.1-7.3)"


@dataclass(frozen=True)
class AreaSeen:
    """One area: ``vaddr`` is its ``vm_struct``, ``size`` counts the guard page, ``frames`` are
    the PFNs of its pages. A reserved area that nobody mapped yet has none. ``pte_flags`` is what
    2.6 notes there of the PTEs of a device."""

    vaddr: int
    addr: int
    size: int
    flags: int
    frames: tuple[int, ...]
    pte_flags: int = 0


@dataclass(frozen=True)
class _Mapped:
    """What is mapped in the vmalloc range: page numbers, sorted, and PFNs."""

    pages: I64
    frames: I64

    def between(self, start: int, end: int) -> slice:
        first, last = np.searchsorted(self.pages, [start >> PAGE_SHIFT, end >> PAGE_SHIFT])
        return slice(int(first), int(last))


def vmlist_census(kernel: Kernel) -> list[AreaSeen]:
    """All areas, lowest address first, when everything about them is consistent."""
    mapped = _mapped(kernel)
    areas: list[AreaSeen] = []
    for vaddr, addr, size, flags in _vm_structs(kernel):
        span = mapped.between(addr, addr + size - PAGE_SIZE)
        frames = tuple(mapped.frames[span].tolist())
        kind, pte_flags = flags & PTE_FLAGS - 1, flags // PTE_FLAGS
        area = AreaSeen(vaddr, addr, size, kind, frames, pte_flags)
        _check_pages(area)
        areas.append(area)
    if len(mapped.pages) != sum(len(area.frames) for area in areas):
        raise VmlistInconsistent("a page is mapped in the vmalloc range that is in no area")
    _check_frames(kernel, areas)
    if _has_arrays(kernel):
        _check_arrays(kernel, areas, mapped)
    _check_ledger(kernel, mapped)
    return areas


def _vm_structs(kernel: Kernel) -> list[tuple[int, int, int, int]]:
    """(vm_struct, address, size, flags) of each; sorted, disjoint, inside the range.

    The kernel looks at the end of the range only behind another area; and 2.6, which aligns device
    memory, not behind one that begins before the aligned place it had in mind.
    """
    kind = kernel.image.structs.vm_struct
    fields = [kind.offset(name) for name in ("addr", "size", "flags", "next")]
    start, range_end = kernel.vmalloc_range
    aligned = _has_arrays(kernel)
    kinds = (VM_IOREMAP, VM_ALLOC, VM_MAP) if aligned else (VM_IOREMAP, VM_ALLOC)
    found: list[tuple[int, int, int, int]] = []
    end, vaddr = start, kernel.ram.read32(kernel.image.symbol("vmlist") - PAGE_OFFSET)
    while vaddr:
        words = [kernel.ram.read32(vaddr - PAGE_OFFSET + offset) for offset in fields]
        addr, size, flags, following = words
        where = f"vm_struct {vaddr:#x}, {addr:#x}..{addr + size:#x}"
        if addr < end:
            raise VmlistInconsistent(f"{where}: the area before it ends at {end:#x}")
        device = aligned and flags & VM_IOREMAP
        passed_over = device and addr % _alignment(size - PAGE_SIZE) == 0
        if found and addr + size > range_end and not passed_over:
            raise VmlistInconsistent(f"{where}: the range ends at {range_end:#x}")
        if size < 2 * PAGE_SIZE or (flags % PTE_FLAGS if device else flags) not in kinds:
            raise VmlistInconsistent(f"{where}: size {size:#x}, flags {flags:#x}")
        found.append((vaddr, addr, size, flags))
        end, vaddr = addr + size, following
    return found


def _alignment(size: int) -> int:
    """Of ``size`` bytes for a device: the power of two above it, of 128 pages at most."""
    return min(1 << size.bit_length(), 128 * PAGE_SIZE)


def _mapped(kernel: Kernel) -> _Mapped:
    registers = ControlRegisters(
        CR0_PE | CR0_PG | CR0_WP, SWAPPER_PG_DIR, kernel.processor.read_cr4()
    )
    words = np.frombuffer(kernel.ram.buffer, np.uint32)
    found = sweep(words, registers, ranges=kernel.ram.ranges)
    start, end = kernel.vmalloc_range
    for broken in found.malformed:
        if start <= broken.va < end:
            raise VmlistInconsistent(str(broken))
    inside = (found.va >= start) & (found.va < end)
    user = found.va[inside & (found.rights & RIGHT_USER != 0)]
    if len(user):
        raise VmlistInconsistent(f"user code may reach {int(user[0]):#x} of the vmalloc range")
    page = (found.va[inside] >> PAGE_SHIFT).astype(np.int64)
    return _Mapped(page, (found.pa[inside] >> PAGE_SHIFT).astype(np.int64))


def _check_pages(area: AreaSeen) -> None:
    """Every page but the guard is mapped; of an area reserved for devices, perhaps none."""
    wanted = (area.size >> PAGE_SHIFT) - 1
    if len(area.frames) != wanted and (area.frames or area.flags == VM_ALLOC):
        raise VmlistInconsistent(
            f"area {area.addr:#x}: {len(area.frames)} of {wanted} pages are mapped"
        )


def _check_frames(kernel: Kernel, areas: list[AreaSeen]) -> None:
    """The frames of ``vmalloc()`` areas belong to one page each, and somebody holds them."""
    memmap, constants = kernel.allocator.memmap, kernel.image.constants
    reserved = constants.page_flags.mask("reserved")
    seen: dict[int, int] = {}
    for area in areas:
        for frame in area.frames if area.flags == VM_ALLOC else ():
            if frame in seen:
                raise VmlistInconsistent(
                    f"frame {frame:#x} is in the areas {seen[frame]:#x} and {area.addr:#x}"
                )
            seen[frame] = area.addr
            page = memmap.page(frame) - PAGE_OFFSET >> 2
            count = kernel.ram.words[page + memmap.count_word]
            unused = count == constants.unused_count
            if unused or kernel.ram.words[page + memmap.flags_word] & reserved:
                raise VmlistInconsistent(f"area {area.addr:#x}: frame {frame:#x} is nobody's")


def _has_arrays(kernel: Kernel) -> bool:
    """Whether an area says by itself which frames it has."""
    return hasattr(kernel.image.structs.vm_struct.ctype, "pages")


def _check_arrays(kernel: Kernel, areas: list[AreaSeen], mapped: _Mapped) -> None:
    """``vm_struct.pages`` names the frames that are mapped, in their order."""
    kind, memmap = kernel.image.structs.vm_struct, kernel.allocator.memmap
    for area in areas:
        count = kernel.ram.read32(area.vaddr + kind.offset("nr_pages") - PAGE_OFFSET)
        array = kernel.ram.read32(area.vaddr + kind.offset("pages") - PAGE_OFFSET)
        wanted = area.frames if area.flags == VM_ALLOC else ()
        if count != len(wanted):
            raise VmlistInconsistent(
                f"area {area.addr:#x}: nr_pages is {count}, {len(wanted)} of its pages are mapped"
            )
        said = _words(kernel, array, count, mapped)
        for number, (frame, page) in enumerate(zip(wanted, said, strict=True)):
            if page != memmap.page(frame):
                raise VmlistInconsistent(
                    f"area {area.addr:#x}: page {number} is frame {frame:#x}, the array has "
                    f"{page:#x}"
                )


def _words(kernel: Kernel, vaddr: int, count: int, mapped: _Mapped) -> list[int]:
    """The words of an array, which lies in the direct map, or itself in the vmalloc range."""
    words: list[int] = []
    range_start = kernel.vmalloc_range[0]
    while len(words) < count:
        paddr, size = vaddr - PAGE_OFFSET, min(4 * (count - len(words)), PAGE_SIZE)
        if vaddr >= range_start:
            span = mapped.between(vaddr, vaddr + PAGE_SIZE)
            paddr = sum(mapped.frames[span].tolist()[:1]) * PAGE_SIZE + vaddr % PAGE_SIZE
            size = min(size, PAGE_SIZE - vaddr % PAGE_SIZE)
        if not kernel.ram.contains(paddr, size):
            raise VmlistInconsistent(f"an array of pages leaves RAM at {vaddr:#x}")
        words += struct.unpack(f"<{size // 4}I", kernel.ram.read(paddr, size))
        vaddr += size
    return words


def _check_ledger(kernel: Kernel, mapped: _Mapped) -> None:
    """What was announced of the range is what is mapped there."""
    ledger = FrameLedger.of(kernel.image.events)
    if ledger is None:
        return
    start, end = kernel.vmalloc_range
    pages, frames, _ = ledger.pages(SWAPPER_PG_DIR)
    announced = _Mapped(pages, frames)
    span = announced.between(start, end)
    same = np.array_equal(pages[span], mapped.pages) and np.array_equal(frames[span], mapped.frames)
    if not same:
        raise VmlistInconsistent("the ledger was told of other pages of the vmalloc range")
