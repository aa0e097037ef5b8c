# SPDX-License-Identifier: GPL-2.0-or-later
"""The CPU behind a small interface, and the emulators that can stand there.

:func:`create` makes one; :mod:`harness.cpu.interface` is what it can do. What can fail: an
unknown emulator or model raises :class:`~kernel_model.errors.BadInput`; an emulator that
cannot be calibrated raises :class:`~harness.cpu.interface.CpuError`.
"""

from harness.cpu.interface import Cpu, CpuError, Registers, Stop, StopReason
from kernel_model.errors import BadInput
from kernel_model.ram import Ram

__all__ = ["Cpu", "CpuError", "Registers", "Stop", "StopReason", "create"]


def create(ram: Ram, model: str = "pentium3", name: str = "unicorn") -> Cpu:
    """A CPU of ``model`` over ``ram``, in the state a boot loader leaves: flat, paging off."""
    if name != "unicorn":
        raise BadInput(f"unknown CPU {name!r}: this build has unicorn")
    # The emulator's library is loaded when a CPU is wanted; the delivery of traps, which the
    # CPU uses, itself builds on this package.
    from harness.cpu.unicorn_cpu import UnicornCpu

    return UnicornCpu(ram, model)
