# SPDX-License-Identifier: GPL-2.0-or-later
"""The one door from the model to a CPU: control registers and TLB flushes.

Models the privileged instructions behind linux-2.4.22 ``include/asm-i386/pgtable.h`` and
``processor.h``. With no CPU at all, :class:`NoProcessor` keeps the registers and nothing else.
"""

from typing import Final, Protocol

X86_CR4_PSE: Final = 1 << 4
X86_CR4_PAE: Final = 1 << 5
X86_CR4_PGE: Final = 1 << 7
X86_CR4_OSFXSR: Final = 1 << 9
X86_CR4_OSXMMEXCPT: Final = 1 << 10


class Processor(Protocol):
    """What the memory manager asks of the CPU it runs on. Addresses are bytes."""

    def load_cr3(self, paddr: int) -> None:
        """Load the page directory at ``paddr``; drops all translations but global ones."""

    def read_cr3(self) -> int: ...

    def read_cr2(self) -> int:
        """Linear address of the last page fault."""

    def write_cr4(self, value: int) -> None: ...

    def read_cr4(self) -> int: ...

    def flush_tlb_one(self, vaddr: int) -> None:
        """``invlpg``: drop the translation of one page, global or not."""

    def flush_tlb_all(self) -> None:
        """Reload CR3: drop all translations but global ones (``__flush_tlb``)."""

    def flush_tlb_global(self) -> None:
        """Toggle CR4.PGE: drop all translations (``__flush_tlb_global``)."""

    def snoop(self, paddr: int, length: int) -> None:
        """Somebody else wrote ``length`` bytes of RAM, as a disk does. A real CPU sees it on the
        bus; an emulated one must be told, for it may keep code it translated from there."""


class NoProcessor:
    """Registers without a CPU: there is no TLB, so nothing needs a flush."""

    def __init__(self) -> None:
        self._cr3 = 0
        self._cr4 = 0

    def load_cr3(self, paddr: int) -> None:
        self._cr3 = paddr

    def read_cr3(self) -> int:
        return self._cr3

    def read_cr2(self) -> int:
        return 0

    def write_cr4(self, value: int) -> None:
        self._cr4 = value

    def read_cr4(self) -> int:
        return self._cr4

    def flush_tlb_one(self, vaddr: int) -> None:
        """Nothing is cached."""

    def flush_tlb_all(self) -> None:
        """Nothing is cached."""

    def flush_tlb_global(self) -> None:
        """Nothing is cached."""

    def snoop(self, paddr: int, length: int) -> None:
        """Nothing is cached."""
