# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the kernel that structures in RAM point to.

A constructor of a slab cache or a ``nopage`` operation of a VMA is a pointer into the kernel's
text. The model's text is Python, so each callable gets an address there, and whoever finds the
address in RAM finds the callable here.

What can fail: calling an address that no function has is a :class:`KernelBug`, as a jump into
nowhere would end in an oops.
"""

from collections.abc import Callable
from typing import Any, Final

from kernel_model.errors import KernelBug

FUNCTION_BASE: Final = 0xC0370000
"""Where functions seem to be: behind the guest's text, before the static objects."""
FUNCTION_BYTES: Final = 16


class KernelFunctions:
    """Every callable that RAM may point to, by its address."""

    def __init__(self) -> None:
        self.by_address: dict[int, Callable[..., Any]] = {}

    def address(self, function: Callable[..., Any] | None) -> int:
        """The address of ``function``, the same each time; 0 for none."""
        if function is None:
            return 0
        for vaddr, known in self.by_address.items():
            if known == function:
                return vaddr
        vaddr = FUNCTION_BASE + FUNCTION_BYTES * len(self.by_address)
        self.by_address[vaddr] = function
        return vaddr

    def call(self, vaddr: int, *arguments: int) -> int:
        """Call what stands at ``vaddr``; a function of no value counts as 0."""
        function = self.by_address.get(vaddr)
        if function is None:
            raise KernelBug("text", 0, f"no function at {vaddr:#x}")
        return function(*arguments) or 0
