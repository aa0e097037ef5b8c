# SPDX-License-Identifier: GPL-2.0-or-later
"""Where CPUs are known to differ from the manual: which cases, which fields, why.

A difference that stands here is reported as known, with its reason; one that does not is a
failure; and an entry that no case of a suite shows any more is reported as gone, so that the
table cannot outlive an upgrade. An entry explains the fields it names, in the cases it
describes, and nothing else: a case with a further wrong field stays a failure.

Nothing here can fail.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.architecture import (
    PF_PRESENT,
    PF_RESERVED,
    PF_WRITE,
    PTE_A,
    PTE_D,
    PTE_PS,
)
from harness.conformance.cases import Cases
from harness.conformance.check import FIELDS, Checked
from harness.conformance.flags import ACCESSES, CHANGES, MODES
from harness.paging_modes import bits

Bools = npt.NDArray[np.bool_]

_CODE_FIELDS: Final = ("error code", "first error code")
_ENTRY_FIELDS: Final = ("PDE after", "PTE after", "second PTE after")


@dataclass(frozen=True, slots=True)
class Divergence:
    """One known difference.

    ``fields`` are explained where all of these hold: the case is of one of ``modes``,
    ``accesses`` and ``changes`` (empty: any), its entry ``entry`` has one of ``bits``; a wrong
    error code differs in ``error_bits``; a wrong entry in no bit but ``entry_bits``.
    """

    name: str
    cpus: frozenset[str]
    reason: str
    upstream: str
    fields: frozenset[str]
    modes: frozenset[str] = frozenset()
    accesses: frozenset[str] = frozenset()
    changes: frozenset[str] = frozenset()
    entry: str = ""
    bits: int = 0
    entry_large: bool = False
    error_bits: int = 0
    code_has: int = 0
    """Bits that the expected error code has."""
    entry_bits: int = 0

    def applies(self, cases: Cases) -> Bools:
        """The cases that this entry speaks of."""
        rows = np.ones(len(cases), np.bool_)
        for column, names, table in (
            ("mode", self.modes, MODES),
            ("access", self.accesses, ACCESSES),
            ("change", self.changes, CHANGES),
        ):
            if names:
                known = np.array([row.name in names for row in table])
                rows &= known[cases[column]]
        if self.entry:
            rows &= cases[self.entry] & np.uint64(self.bits) != 0
        if self.entry_large:
            rows &= cases["pde"] & np.uint64(PTE_PS) != 0
        return rows

    def explains(self, rows: Bools, field: str, checked: Checked) -> Bools:
        """Whether ``field``, wrong in ``rows``, is wrong as this entry says."""
        wrong = checked.wrong >> np.uint32(FIELDS.index(field)) & np.uint32(1) != 0
        return np.asarray(rows & wrong & self._bits_fit(field, checked))

    def _bits_fit(self, field: str, checked: Checked) -> Bools | bool:
        if field not in checked.expected:
            return True
        expected, actual = checked.expected[field], checked.actual[field]
        if field in _CODE_FIELDS:
            has = expected & self.code_has == self.code_has
            return np.asarray(((expected ^ actual) & self.error_bits != 0) & has)
        if field in _ENTRY_FIELDS:
            return np.asarray((expected ^ actual) & ~np.uint64(self.entry_bits) == 0)
        if field == "PDPTE after" and self.entry_bits:
            return np.asarray((expected ^ actual) & ~np.uint64(self.entry_bits) == 0)
        return True


_BOTH: Final = frozenset({"unicorn", "qemu"})
_QEMU: Final = frozenset({"qemu"})
_PAE: Final = frozenset({"pae", "pae-nx"})
_PDPTE_RESERVED: Final = bits(63, 36) | bits(8, 5) | bits(2, 1)
_ANY_ENTRY: Final = frozenset(_ENTRY_FIELDS)

DIVERGENCES: Final = (
    Divergence(
        "modify-reads-first",
        _BOTH,
        "The read half of a read-modify-write is translated as a read of its own: its fault "
        "lacks W. A P6 asks for a write at once.",
        "target/i386/tcg: gen_op_ld_v() before gen_op_st_v(); no issue is filed",
        frozenset({"error code"}),
        accesses=frozenset({"modify"}),
        error_bits=PF_WRITE,
    ),
    Divergence(
        "dirty-before-second-page",
        _BOTH,
        "A store across two pages sets D of the first before it finds that the second faults; "
        "section 4.8 sets it for a write, and nothing was written.",
        "accel/tcg/cputlb.c: store_helper() probes page by page; no issue is filed",
        frozenset({"PTE after"}),
        accesses=frozenset({"write-across"}),
        entry_bits=PTE_A | PTE_D,
    ),
    Divergence(
        "pdpte-reserved-unchecked",
        _BOTH,
        "A load of CR3 does not look at the PDPTEs, so reserved bits raise no #GP (section "
        "4.4.1); what the walk makes of them later differs from bit to bit.",
        "target/i386: cpu_x86_update_cr3() loads no PDPTEs; gitlab.com/qemu-project/qemu: none",
        frozenset({"CR3 load", "PDPTE after"}) | _ANY_ENTRY | {"memory"},
        modes=_PAE,
        entry="pdpte",
        bits=_PDPTE_RESERVED,
        entry_bits=PTE_A | PTE_D,
    ),
    Divergence(
        "pdpte-not-latched",
        _BOTH,
        "PDPTEs are read at every walk; a CPU keeps the four that CR3's load has read (section "
        "4.4.1), so a change in memory must not show before the next load.",
        "target/i386/tcg mmu_translate() reads the PDPTE; no issue is filed",
        frozenset({"outcome", "error code", "value", "memory", "PDPTE after"}) | _ANY_ENTRY,
        modes=_PAE,
        changes=frozenset({"pdpte-p"}),
        error_bits=PF_PRESENT,
        entry_bits=PTE_A | PTE_D,
    ),
    Divergence(
        "pdpte-accessed",
        _QEMU,
        "A walk sets bit 5, A in other entries, in the PDPTE, where it is reserved (table 4-8).",
        "target/i386/tcg/sysemu/excp_helper.c of 7.2: PG_ACCESSED_MASK is set at each level",
        frozenset({"PDPTE after"}),
        modes=_PAE,
        entry_bits=PTE_A,
    ),
    Divergence(
        "reserved-without-present",
        _QEMU,
        "The error code of a reserved bit has RSVD without P; section 4.7 says that RSVD "
        "implies P.",
        "target/i386/tcg/sysemu/excp_helper.c of 7.2: do_fault_rsvd leaves out PG_ERROR_P_MASK",
        frozenset({"error code", "first error code"}),
        code_has=PF_PRESENT | PF_RESERVED,
        error_bits=PF_PRESENT,
    ),
    Divergence(
        "pse36-width",
        _QEMU,
        "Bits 17 to 20 of a 4 MiB page are taken for address bits 36 to 39 although MAXPHYADDR "
        "is 36, where they are reserved (section 4.3).",
        "target/i386/tcg/sysemu/excp_helper.c of 7.2: the mask for 4 MiB pages is bit 21 alone",
        frozenset({"outcome", "error code", "value", "memory", "second memory", "PDE after"}),
        modes=frozenset({"pse", "pse36"}),
        error_bits=PF_RESERVED,
        entry="pde",
        bits=bits(20, 17),
        entry_large=True,
        entry_bits=PTE_A | PTE_D,
    ),
)


@dataclass(frozen=True, slots=True)
class Explained:
    """``left`` is ``Checked.wrong`` without what is known; ``known`` has bit n set where
    ``DIVERGENCES[n]`` explains something; ``counts`` are cases by entry name."""

    left: npt.NDArray[np.uint32]
    known: npt.NDArray[np.uint32]
    counts: dict[str, int]


def known_for(cpu: str) -> tuple[Divergence, ...]:
    """The entries about one CPU."""
    return tuple(entry for entry in DIVERGENCES if cpu in entry.cpus)


def explain_known(cpu: str, cases: Cases, checked: Checked) -> Explained:
    """Take what is known of ``cpu`` out of what is wrong.

    A wrong error code may have several reasons; it is known when they account for every bit.
    """
    rows = np.flatnonzero(checked.wrong)
    counts: dict[str, int] = {}
    left, known = checked.wrong.copy(), np.zeros(len(cases), np.uint32)
    part, subject = checked.rows(rows), cases[rows]
    unexplained = {
        field: part.expected[field] ^ part.actual[field]
        for field in _CODE_FIELDS
        if field in part.expected
    }
    for number, entry in enumerate(DIVERGENCES):
        if cpu not in entry.cpus or not len(rows):
            continue
        applies = entry.applies(subject)
        seen = np.zeros(len(rows), np.bool_)
        for field in entry.fields:
            explained = entry.explains(applies, field, part)
            seen |= explained
            if field in unexplained:
                bits_left = unexplained[field] & ~np.uint32(entry.error_bits)
                unexplained[field] = np.where(explained, bits_left, unexplained[field])
                explained = explained & (unexplained[field] == 0)
            bit = np.uint32(1 << FIELDS.index(field))
            left[rows] &= ~np.where(explained, bit, np.uint32(0))
        known[rows] |= np.where(seen, np.uint32(1 << number), np.uint32(0))
        if found := int(np.count_nonzero(seen)):
            counts[entry.name] = found
    return Explained(left, known, counts)


def names_of(known: int) -> str:
    """The entries of one mask, joined."""
    return " + ".join(entry.name for number, entry in enumerate(DIVERGENCES) if known >> number & 1)
