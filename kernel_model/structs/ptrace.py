# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers that a trap leaves on the kernel stack.

Models linux-2.4.22 ``include/asm-i386/ptrace.h``. ``esp`` and ``xss`` are there only when the
trap came from ring 3.
"""

from typing import Final

from kernel_model.structs.declare import ULONG, struct

PT_REGS: Final = struct(
    "struct pt_regs",
    [
        (name, ULONG)
        for name in (
            "ebx",
            "ecx",
            "edx",
            "esi",
            "edi",
            "ebp",
            "eax",
            "xds",
            "xes",
            "orig_eax",
            "eip",
            "xcs",
            "eflags",
            "esp",
            "xss",
        )
    ],
)
