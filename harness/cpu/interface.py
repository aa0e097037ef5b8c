# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rest of the harness sees of a CPU, whoever emulates it.

A CPU shares the machine's :class:`~kernel_model.ram.Ram`, runs the guest until something ends
the run, and answers what its MMU says of an address. It also is the kernel model's
``Processor``: the few registers and flushes that a memory manager needs.

What can fail: a run never raises for what the guest does, it ends in a :class:`StopReason`.
:class:`CpuError` is for what the harness or the emulator does wrong.
"""

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harness.architecture import Access, ControlRegisters, Ring
from kernel_model.errors import MmucheckError
from kernel_model.ram import Ram


class CpuError(MmucheckError):
    """The emulator does not behave as this harness was calibrated for."""


class Stop(enum.Enum):
    """Why a run ended."""

    HYPERCALL = "a hypercall asked for it"
    HALTED = "HLT with no interrupt to wait for"
    LIMIT_INSTRUCTIONS = "the limit on instructions was reached"
    TIMEOUT = "the limit on time was reached"
    INTERRUPTED = "a signal interrupted it"
    STUCK = "its kernel would never come back"
    DIED = "the guest died"


@dataclass(frozen=True, slots=True)
class StopReason:
    """The end of one run. ``paddr`` names the physical address of an access outside RAM."""

    kind: Stop
    detail: str = ""
    paddr: int | None = None

    @property
    def died(self) -> bool:
        return self.kind is Stop.DIED

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value


class Registers(Protocol):
    """The general registers, EIP, EFLAGS and the segment selectors.

    Reading and writing is cheap; a write takes effect when the guest goes on.
    """

    eax: int
    ecx: int
    edx: int
    ebx: int
    esp: int
    ebp: int
    esi: int
    edi: int
    eip: int
    eflags: int

    def general(self) -> list[int]: ...
    @property
    def cs(self) -> int: ...
    @property
    def ss(self) -> int: ...
    @property
    def ds(self) -> int: ...
    @property
    def es(self) -> int: ...
    @property
    def fs(self) -> int: ...
    @property
    def gs(self) -> int: ...
    def snapshot(self) -> dict[str, int]: ...


class Cpu(Protocol):
    """One processor.

    The four callbacks run between two instructions (``on_out`` and ``on_in``: inside theirs),
    may raise (the run ends and the exception leaves :meth:`start`), and default to:
    deliver through the guest's IDT, ignore a hypercall, ignore a write, read all ones.
    """

    ram: Ram
    model: str
    hypercall_port: int
    virtual_8086: bool
    """Whether ring 3 may be in virtual-8086 mode; if not, being there is a #GP."""
    on_trap: Callable[[int, int, bool], None]
    """``(vector, error_code, software)``; ``software`` is true for ``int n``."""
    on_hypercall: Callable[[], None]
    """The guest wrote to ``hypercall_port`` in ring 0; EIP stands behind the ``out``."""
    on_out: Callable[[int, int, int], None]
    """``(port, size, value)`` of an ``out`` to any other port; must not touch registers."""
    on_in: Callable[[int, int], int]

    @property
    def registers(self) -> Registers: ...
    @property
    def control(self) -> ControlRegisters: ...
    @property
    def ring(self) -> int: ...

    def start(
        self,
        eip: int | None = None,
        *,
        max_instructions: int = 0,
        timeout_seconds: float = 0.0,
    ) -> StopReason: ...
    def count_by(self, instructions: int) -> None: ...
    @property
    def counted(self) -> int: ...
    @property
    def serving(self) -> bool: ...
    def interrupt(self, vector: int) -> bool: ...
    def start_nested(self, eip: int) -> StopReason: ...
    def stop(self, reason: StopReason | None = None) -> None: ...
    def load_control(self, control: ControlRegisters) -> None: ...

    def translate(
        self, va: int, access: Access = Access.READ, ring: Ring = Ring.KERNEL
    ) -> int | None: ...
    def translate_many(
        self,
        vas: npt.NDArray[np.unsignedinteger],
        access: Access = Access.READ,
        ring: Ring = Ring.KERNEL,
    ) -> npt.NDArray[np.int64]: ...
    def asking(self) -> AbstractContextManager[None]: ...

    def preserved(self) -> AbstractContextManager[None]: ...

    def snoop(self, paddr: int, length: int) -> None: ...
    def invalidate_all_code(self) -> None: ...
    def never_execute(self, start: int, end: int) -> None: ...

    def load_cr3(self, paddr: int) -> None: ...
    def read_cr3(self) -> int: ...
    def read_cr2(self) -> int: ...
    def write_cr4(self, value: int) -> None: ...
    def read_cr4(self) -> int: ...
    def flush_tlb_one(self, vaddr: int) -> None: ...
    def flush_tlb_all(self) -> None: ...
    def flush_tlb_global(self) -> None: ...
