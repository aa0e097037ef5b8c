# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypercalls: how guest code speaks to the harness.

A guest puts the number in EAX and its arguments in EBX, ECX, EDX and ESI, and executes
``outl %eax, $HYPERCALL_PORT``; the answer comes back in EAX. Text goes byte by byte to
``CONSOLE_PORT``. Ring 3 may do neither: with IOPL 0 and no I/O bitmap in the TSS a CPU raises
#GP instead. Unicorn does not check, so whoever serves the ports must look at the ring.

This is the only place where the numbers stand. The guests' ``hypercall_numbers.h`` is made
from it by :func:`header_text` when the guests are built. Nothing here can fail.
"""

import enum
from typing import Final

HYPERCALL_PORT: Final = 0x4D
CONSOLE_PORT: Final = 0xE9
"""Bochs' and QEMU's debug console, so that the same guest speaks on all three."""


class Hypercall(enum.IntEnum):
    """What EAX may hold at ``outl %eax, $HYPERCALL_PORT``."""

    START_KERNEL = 0
    """Paging is on, the descriptor tables are loaded: the model runs ``start_kernel()``. The answer
    is 1 when programs shall come by SYSENTER, too."""
    TRAP = 1
    """EBX ``struct pt_regs *`` on the kernel stack, ECX vector, EDX error code, ESI CR2."""
    EXIT = 2
    """EBX status: the guest is done."""
    RETURN = 3
    """EBX value: a function that the harness called has returned."""
    ASSERT_FAILED = 4
    """EBX ``char *``: what the guest found wrong."""
    IDLE = 5
    """Nothing left to do: the harness may call a function or enter a program."""
    CALL = 6
    """EBX :class:`~harness.kernel_functions.KernelFunction`, ECX its cdecl arguments."""


def header_text() -> str:
    """The C and assembly header ``hypercall_numbers.h``."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/hypercalls.py. */",
        "#pragma once",
        f"#define HYPERCALL_PORT {HYPERCALL_PORT:#04x}",
        f"#define CONSOLE_PORT {CONSOLE_PORT:#04x}",
    ]
    lines += [f"#define HC_{call.name} {call.value}" for call in Hypercall]
    return "\n".join(lines) + "\n"
