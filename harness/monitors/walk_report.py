# SPDX-License-Identifier: GPL-2.0-or-later
"""A walk of the guest through the kernel's memory, held against the model's view of it.

A function of the ring-0 image follows the kernel's pointers on the emulated CPU, in C, with
nothing from the model but the declarations of the structures, and reports into a structure of
its own: what it counted, and what contradicts itself. The model fills the same structure from
its views. :class:`GuestWalk` is one such walk; its findings are the guest's complaints and every
field in which the two differ. A machine that agrees has none.

What can fail: :class:`~kernel_model.errors.BadInput` when the guest image was not built for
the structures of this kernel. A guest that dies on the way is a finding like any other.
"""

import ctypes
import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine import GuestDied, GuestStopped, Machine, guest_variant
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from kernel_model.structs import Abi, CType
from kernel_model.structs.header import VARIANTS

_U32: Final = 0xFFFFFFFF
_FAULT_FIELDS: Final = ("nr_faults", "faults")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: ``where`` names the place, ``what`` tells the rest.

    ``fault`` is the guest's complaint; None where guest and model merely differ.
    """

    where: str
    what: str
    fault: enum.IntEnum | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class GuestWalk:
    """``function`` of the guest returns a pointer to a ``report``.

    The report begins with ``statics_bytes``, the size of the static objects for which the guest
    was built, and counts its complaints in ``nr_faults``; ``faults`` has room for some of them.
    ``complaint`` makes a finding of one, ``model_walk`` the report that the model would give.
    """

    function: str
    report: CType
    complaint: Callable[[Any, Any], Finding]
    """Of the report and one of its ``faults``."""
    model_walk: Callable[[Kernel], Any]

    def check(self, machine: Machine) -> list[Finding]:
        """Let the guest walk and compare; the guest's complaints come first."""
        try:
            guest = self.run(machine)
        except GuestDied as error:
            return [Finding("guest", f"died on its walk: {error.report}")]
        except GuestStopped as error:
            return [Finding("guest", f"came to no end: {error.reason}")]
        findings = list(self._complaints(guest))
        try:
            model = self.model_walk(machine.kernel)
        except (IndexError, ValueError) as error:
            return [*findings, Finding("model", f"died on its walk: {error}")]
        return findings + list(differences(guest, model))

    def run(self, machine: Machine) -> Any:
        """Run the guest's function; returns a copy of its report."""
        abi, variant = Abi.of(machine.kernel.config), guest_variant(machine.kernel.config)
        if abi != VARIANTS[variant]:
            raise BadInput(
                f"the {variant} guest is built for {VARIANTS[variant]}, this kernel is "
                f"{abi}: its structures lie elsewhere, so it cannot be walked"
            )
        paddr = virt_to_phys(machine.call(self.function))
        data = machine.ram.read(paddr, self.report.size)
        result = self.report.ctype.from_buffer_copy(data)
        size = machine.kernel.image.structs.kernel_statics.size
        if result.statics_bytes != size:
            raise BadInput(
                f"{machine.guest.name}: built for {result.statics_bytes} bytes of static objects, "
                f"this kernel has {size}: run python -m guest.build"
            )
        return result

    def _complaints(self, guest: Any) -> Iterable[Finding]:
        for entry in guest.faults[: guest.nr_faults]:
            yield self.complaint(guest, entry)
        if guest.nr_faults > len(guest.faults):
            yield Finding("guest", f"{guest.nr_faults - len(guest.faults)} more faults")


def differences(guest: Any, model: Any, where: str = "") -> Iterator[Finding]:
    """Every field of two reports that differs, arrays and structures taken apart."""
    if isinstance(guest, (ctypes.Array, ctypes.Structure)) and bytes(guest) == bytes(model):
        return
    if isinstance(guest, ctypes.Array):
        for index, pair in enumerate(zip(guest, model, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif isinstance(guest, ctypes.Structure):
        for name, *_ in guest._fields_:
            if name not in _FAULT_FIELDS:
                path = f"{where}.{name}" if where else name
                yield from differences(getattr(guest, name), getattr(model, name), path)
    elif guest != model:
        yield Finding(where, f"guest {guest:#x}, model {model:#x}")


def weighted_sum(values: npt.ArrayLike) -> int:
    """The sum modulo 2**32 of the values in order, each times its weight 1, 3, 5, ..."""
    numbers = np.asarray(values, dtype=np.uint64)
    weights = np.arange(len(numbers), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    # A product wraps at 2**64, which leaves its low 32 bits right.
    return int(np.sum(numbers * weights, dtype=np.uint64)) & _U32
