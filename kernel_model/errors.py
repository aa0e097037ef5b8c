# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error of mmucheck descends from :class:`MmucheckError`.

The tree is small on purpose: what a caller can act on has a class, everything else is a
field. :class:`BadInput` is what a person typed or handed in; the command line turns it into
one line and exit status 2. :class:`KernelFault` is what the modelled kernel does to itself.
"""


class MmucheckError(Exception):
    """Root of all errors raised by ``kernel_model`` and ``harness``."""


class BadInput(MmucheckError, ValueError):
    """Something the user supplied is wrong; the message says what to change."""


class BadConfig(BadInput):
    """A :class:`~kernel_model.config.KernelConfig` that no machine could boot with."""


class BadPhysicalAddress(MmucheckError, IndexError):
    """An access outside RAM, or in a hole of the e820 map.

    ``paddr`` and ``length`` are bytes.
    """

    def __init__(self, paddr: int, length: int, reason: str) -> None:
        super().__init__(f"physical {paddr:#x}..{paddr + length:#x}: {reason}")
        self.paddr = paddr
        self.length = length


class KernelFault(MmucheckError):
    """The modelled kernel stopped: the base of :class:`KernelBug`, :class:`KernelPanic`
    and :class:`EndlessLoop`."""


class KernelBug(KernelFault):
    """The kernel's own ``BUG()`` was reached.

    ``file`` is the kernel's; ``line`` is the line that its oops text would name, 0 where that is
    not known or where the check is the model's own. ``reason`` says which check failed.
    """

    def __init__(self, file: str, line: int, reason: str) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"kernel BUG at {place}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class KernelPanic(KernelFault):
    """The kernel called ``panic()``."""


class EndlessLoop(KernelFault):
    """The real kernel would never return from here."""
