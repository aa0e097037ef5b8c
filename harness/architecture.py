# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the Intel manual that the harness shares: registers, rings, accesses, bits.

Source: Intel SDM volume 3A, sections 2.5 (control registers), 4.3-4.7 (paging), 6.15
(page-fault error code). The kernel model has its own definitions; nothing here comes from it.
"""

import enum
from dataclasses import dataclass
from typing import Final

CR0_PE: Final = 1 << 0
CR0_WP: Final = 1 << 16
CR0_PG: Final = 1 << 31
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_PGE: Final = 1 << 7
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11

PTE_P: Final = 1 << 0
PTE_RW: Final = 1 << 1
PTE_US: Final = 1 << 2
PTE_PWT: Final = 1 << 3
PTE_PCD: Final = 1 << 4
PTE_A: Final = 1 << 5
PTE_D: Final = 1 << 6
PTE_PS: Final = 1 << 7
PTE_G: Final = 1 << 8
PTE_NX: Final = 1 << 63

PF_PRESENT: Final = 1 << 0
PF_WRITE: Final = 1 << 1
PF_USER: Final = 1 << 2
PF_RESERVED: Final = 1 << 3
PF_FETCH: Final = 1 << 4


class Access(enum.Enum):
    """What the CPU wants to do at an address."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


class Ring(enum.IntEnum):
    """The two privilege levels that paging tells apart: supervisor and user."""

    KERNEL = 0
    USER = 3


@dataclass(frozen=True, slots=True)
class ControlRegisters:
    """The registers that decide how an address is translated."""

    cr0: int
    cr3: int
    cr4: int = 0
    efer: int = 0

    @property
    def paging(self) -> bool:
        return bool(self.cr0 & CR0_PG)

    @property
    def write_protect(self) -> bool:
        return bool(self.cr0 & CR0_WP)

    @property
    def pse(self) -> bool:
        return bool(self.cr4 & CR4_PSE)

    @property
    def pae(self) -> bool:
        return bool(self.cr4 & CR4_PAE)

    @property
    def nxe(self) -> bool:
        """No-execute applies: EFER.NXE is set and the format has the bit (PAE)."""
        return bool(self.efer & EFER_NXE) and self.pae
