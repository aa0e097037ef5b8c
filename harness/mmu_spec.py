# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference walk: what the architecture says of one address, step by step.

Written from the Intel SDM volume 3A, chapter 4, and from nothing else; the kernel model's page
tables are not known here. A walk is a pure function of memory and registers: it never writes,
and an access that faults is a result (``Walk.fault``), not an exception.

Two choices where the manual leaves room:

* Section 4.8 lets a CPU set accessed flags on the way to a fault. ``Walk.updates`` of a faulting
  access is empty; ``Walk.may_set_accessed`` lists the entries whose flag it may find set.
* PDPTEs are checked when CR3 is loaded (section 4.4.1), not by a walk: :func:`check_pdptes`
  tells what that load would refuse, :func:`walk` looks at P and the address only.

What can fail: an address of more than 32 bits is a ``ValueError``; registers of long mode raise
:class:`~harness.mmu_faults.UnsupportedPaging`. A table outside RAM (``memory`` raises
``IndexError``) ends the walk with :class:`~harness.mmu_faults.BadTable`.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from harness.architecture import (
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
    PTE_A,
    PTE_D,
    PTE_G,
    PTE_NX,
    PTE_P,
    PTE_PCD,
    PTE_PWT,
    PTE_RW,
    PTE_US,
    Access,
    ControlRegisters,
    Ring,
)
from harness.mmu_faults import (
    BadTable,
    PageFault,
    TranslationFault,
    UnsupportedPaging,
    entry_text,
)
from harness.paging_modes import (
    DEFAULT_FEATURES,
    PAGE_SIZE,
    VA_BITS,
    EntryFormat,
    MmuFeatures,
    PagingMode,
    paging_mode,
)

__all__ = [
    "BadTable",
    "EntryUpdate",
    "MmuFeatures",
    "PageFault",
    "PhysicalMemory",
    "ReservedPdpte",
    "Step",
    "TranslationFault",
    "UnsupportedPaging",
    "Walk",
    "check_pdptes",
    "walk",
]

_FLAG_NAMES: Final = (
    (PTE_P, "P"),
    (PTE_RW, "RW"),
    (PTE_US, "US"),
    (PTE_PWT, "PWT"),
    (PTE_PCD, "PCD"),
    (PTE_A, "A"),
    (PTE_D, "D"),
    (PTE_G, "G"),
    (PTE_NX, "NX"),
)
_SIZE_NAMES: Final = {4 << 10: "4 KiB", 2 << 20: "2 MiB", 4 << 20: "4 MiB"}


class PhysicalMemory(Protocol):
    """What a walk reads: little-endian words; ``IndexError`` outside RAM."""

    def read32(self, paddr: int, /) -> int: ...

    def read64(self, paddr: int, /) -> int: ...


class EntryUpdate(NamedTuple):
    """The CPU writes ``new`` over ``old`` at ``paddr`` (bytes): accessed and dirty flags."""

    paddr: int
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class ReservedPdpte:
    """A present PDPTE whose ``reserved`` bits make a load of CR3 raise #GP."""

    index: int
    paddr: int
    entry: int
    reserved: int

    def __str__(self) -> str:
        return (
            f"{entry_text(f'PDPTE[{self.index}]', self.paddr, self.entry)}: "
            f"reserved bits {self.reserved:#x} set, a load of CR3 raises #GP"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that the walk read: ``index`` in its table, at ``paddr`` bytes."""

    level: str
    index: int
    paddr: int
    entry: int
    format: EntryFormat

    @property
    def present(self) -> bool:
        return bool(self.entry & PTE_P)

    @property
    def reserved(self) -> int:
        """The reserved bits that are set; those of an absent entry mean nothing."""
        return self.entry & self.format.reserved if self.present else 0

    @property
    def page_size(self) -> int:
        """Bytes of the page this entry maps; 0 where it points to a table."""
        return self.format.page_size

    @property
    def target(self) -> int:
        """Physical byte address of the page or of the next table."""
        return self.format.target(self.entry)

    @property
    def flags(self) -> str:
        """The flags that are set, of those that this kind of entry has."""
        held = self.entry & self.format.flags
        return " ".join(name for bit, name in _FLAG_NAMES if held & bit)

    def __str__(self) -> str:
        text = entry_text(f"{self.level}[{self.index}]", self.paddr, self.entry)
        if not self.present:
            return f"{text}  not present"
        if self.reserved:
            return f"{text}  {self.flags}  reserved bits {self.reserved:#x}"
        kind = f"{_SIZE_NAMES[self.page_size]} page" if self.page_size else "table"
        return f"{text}  {self.flags} -> {kind} {self.target:#x}"


@dataclass(frozen=True, slots=True)
class Walk:
    """What one access meets.

    ``paddr`` (bytes) is ``None`` when the access faults. ``page_size`` is in bytes, 0 when no
    page was reached. ``writable``, ``user`` and ``executable`` combine all levels: R/W and U/S
    set in each, NX in none; they are known for a denied access too, and false where nothing is
    mapped. ``updates`` are the A and D flags that the access sets, in the order of the walk.
    """

    va: int
    access: Access
    ring: Ring
    mode: str
    cr3: int
    steps: tuple[Step, ...] = ()
    paddr: int | None = None
    page_size: int = 0
    writable: bool = False
    user: bool = False
    executable: bool = False
    global_page: bool = False
    fault: TranslationFault | None = field(default=None, compare=False)
    updates: tuple[EntryUpdate, ...] = ()

    @property
    def error_code(self) -> int | None:
        """The #PF error code; ``None`` where there is no page fault."""
        return self.fault.error_code if isinstance(self.fault, PageFault) else None

    @property
    def may_set_accessed(self) -> tuple[int, ...]:
        """Entries (paddr) whose A flag a CPU may have set before this access faulted."""
        if self.fault is None:
            return ()
        used = (step for step in self.steps if step.present and not step.reserved)
        return tuple(s.paddr for s in used if s.format.flags & ~s.entry & PTE_A)

    def describe(self) -> str:
        """The walk for a person: one line an entry, then what comes of it."""
        lines = [f"va {self.va:#010x}, {self.ring.name.lower()} {self.access.value}: {self.mode}"]
        if self.steps:
            lines[0] += f", CR3 {self.cr3:#x}"
        lines += [f"  {step}" for step in self.steps]
        if self.fault is not None:
            return "\n".join([*lines, f"  fault: {self.fault}"])
        lines.append(f"  paddr {self.paddr:#x}, {_SIZE_NAMES[self.page_size]} page: {self.rights}")
        lines += [f"  sets {u.new & ~u.old:#x} in {u.old:#x} at {u.paddr:#x}" for u in self.updates]
        return "\n".join(lines)

    @property
    def rights(self) -> str:
        """``user rw-``; ``global`` is added where it holds."""
        owner = "user" if self.user else "kernel"
        granted = f"r{'w' if self.writable else '-'}{'x' if self.executable else '-'}"
        return f"{owner} {granted}{' global' if self.global_page else ''}"

    def __str__(self) -> str:
        return self.describe()


def walk(
    memory: PhysicalMemory,
    registers: ControlRegisters,
    va: int,
    access: Access = Access.READ,
    ring: Ring = Ring.KERNEL,
    features: MmuFeatures = DEFAULT_FEATURES,
) -> Walk:
    """Translate ``va`` as the CPU would for ``access`` from ``ring``.

    Sections 4.3 and 4.4 (translation), 4.6 (access rights), 4.7 (faults), 4.8 (A and D).
    """
    if not 0 <= va < 1 << VA_BITS:
        raise ValueError(f"va {va:#x} has more than {VA_BITS} bits")
    mode = paging_mode(registers, features)
    if mode is None:
        return Walk(
            va, access, ring, "paging off", registers.cr3, (), va, PAGE_SIZE, True, True, True
        )
    steps, fault = _read_entries(memory, mode, registers.cr3, va, access, ring)
    if fault is not None:
        return Walk(va, access, ring, mode.name, registers.cr3, steps, fault=fault)
    leaf = steps[-1]
    rights = _combined_rights(steps)
    fault = _denial(mode, registers, steps, va, access, ring)
    return Walk(
        va,
        access,
        ring,
        mode.name,
        registers.cr3,
        steps,
        paddr=None if fault else leaf.target | va & leaf.page_size - 1,
        page_size=leaf.page_size,
        writable=bool(rights & PTE_RW),
        user=bool(rights & PTE_US),
        executable=not rights & PTE_NX,
        global_page=mode.global_pages and bool(leaf.entry & PTE_G),
        fault=fault,
        updates=() if fault else _updates(steps, access),
    )


def check_pdptes(
    memory: PhysicalMemory,
    registers: ControlRegisters,
    features: MmuFeatures = DEFAULT_FEATURES,
) -> tuple[ReservedPdpte, ...]:
    """The PDPTEs on which a load of this CR3 raises #GP (section 4.4.1); none outside PAE.

    Raises :class:`~harness.mmu_faults.BadTable` when the table lies outside RAM.
    """
    mode = paging_mode(registers, features)
    if mode is None or not mode.pdpte_reserved:
        return ()
    table = registers.cr3 & mode.root
    refused = []
    for index in range(mode.levels[0].entries):
        paddr = table + index * mode.entry_size
        try:
            entry = memory.read64(paddr)
        except IndexError:
            raise BadTable(0, Access.READ, Ring.KERNEL, "CR3", None, registers.cr3, table) from None
        if entry & PTE_P and entry & mode.pdpte_reserved:
            refused.append(ReservedPdpte(index, paddr, entry, entry & mode.pdpte_reserved))
    return tuple(refused)


def _read_entries(
    memory: PhysicalMemory, mode: PagingMode, cr3: int, va: int, access: Access, ring: Ring
) -> tuple[tuple[Step, ...], TranslationFault | None]:
    """Follow the tables down to the page, or to the entry that ends the walk."""
    read = memory.read32 if mode.entry_size == 4 else memory.read64
    steps: list[Step] = []
    table = cr3 & mode.root
    for level in mode.levels:
        index = level.index(va)
        paddr = table + index * mode.entry_size
        try:
            entry = read(paddr)
        except IndexError:
            return tuple(steps), _bad_table(cr3, steps, table, va, access, ring)
        step = Step(level.name, index, paddr, entry, level.format_of(entry))
        steps.append(step)
        if not step.present:
            return tuple(steps), _page_fault(mode, step, va, access, ring, 0, "not present")
        if step.reserved:
            reason = f"reserved bits {step.reserved:#x} set"
            cause = PF_PRESENT | PF_RESERVED
            return tuple(steps), _page_fault(mode, step, va, access, ring, cause, reason)
        if step.page_size:
            break
        table = step.target
    return tuple(steps), None


def _bad_table(
    cr3: int, steps: list[Step], table: int, va: int, access: Access, ring: Ring
) -> BadTable:
    """The table that the last entry read points to, or else CR3, lies outside RAM."""
    if not steps:
        return BadTable(va, access, ring, "CR3", None, cr3, table)
    last = steps[-1]
    return BadTable(va, access, ring, last.level, last.paddr, last.entry, table)


def _page_fault(
    mode: PagingMode, step: Step, va: int, access: Access, ring: Ring, cause: int, reason: str
) -> PageFault:
    """Section 4.7: the error code is the cause (P, RSVD) and the kind of access (W, U, I)."""
    error_code = cause
    if access is Access.WRITE:
        error_code |= PF_WRITE
    if ring is Ring.USER:
        error_code |= PF_USER
    if access is Access.FETCH and mode.nx:
        error_code |= PF_FETCH
    return PageFault(va, access, ring, step.level, step.paddr, step.entry, error_code, reason)


def _combined_rights(steps: tuple[Step, ...]) -> int:
    """Section 4.6: R/W and U/S hold where every entry that has them has them set; NX where any."""
    rights = PTE_RW | PTE_US
    for step in steps:
        lacking = step.format.flags & ~step.entry
        rights &= ~(lacking & (PTE_RW | PTE_US))
        rights |= step.entry & step.format.flags & PTE_NX
    return rights


def _denial(
    mode: PagingMode,
    registers: ControlRegisters,
    steps: tuple[Step, ...],
    va: int,
    access: Access,
    ring: Ring,
) -> PageFault | None:
    """Section 4.6.1: the first entry that forbids the access, with the flags that do."""
    needed = PTE_US if ring is Ring.USER else 0
    if access is Access.WRITE and (ring is Ring.USER or registers.write_protect):
        needed |= PTE_RW
    forbidden = PTE_NX if access is Access.FETCH else 0
    for step in steps:
        flags = step.format.flags
        reasons = [
            text
            for bit, text in (
                (needed & PTE_US & flags & ~step.entry, "U/S=0"),
                (needed & PTE_RW & flags & ~step.entry, "R/W=0"),
                (forbidden & flags & step.entry, "NX=1"),
            )
            if bit
        ]
        if reasons:
            return _page_fault(mode, step, va, access, ring, PF_PRESENT, ", ".join(reasons))
    return None


def _updates(steps: tuple[Step, ...], access: Access) -> tuple[EntryUpdate, ...]:
    """Section 4.8: A in every entry used, and D in the last one on a write.

    A directory that maps itself meets the same entry twice in one walk: what the first step
    writes, the second finds.
    """
    written: dict[int, int] = {}
    updates = []
    for step in steps:
        wanted = PTE_A | (PTE_D if access is Access.WRITE else 0)
        old = written.get(step.paddr, step.entry)
        new = old | wanted & step.format.flags
        if new != old:
            written[step.paddr] = new
            updates.append(EntryUpdate(step.paddr, old, new))
    return tuple(updates)
