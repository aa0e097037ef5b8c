# SPDX-License-Identifier: GPL-2.0-or-later
"""Out of virtual-8086 mode, which no kernel here enters.

Unicorn's IRET enters it from every ring, IOPL and all, where the i386 looks at VM in ring 0 only
(Intel manual, volume 2, IRET). There the selectors of such a frame make the IRET of ring 3 fault,
so the next trap is turned into that #GP. Nothing here can fail.
"""

from typing import Final

from harness.cpu.context import BASE, EFLAGS_ARITHMETIC, FLAGS, LIMIT, SEGMENT_NAMES, SavedContext
from kernel_model.arch_i386.segment import USER_CS, USER_DS

EFLAGS_VM: Final = 1 << 17
_EFLAGS_IF: Final = 1 << 9
_EFLAGS_IOPL: Final = 3 << 12
_USER_CODE: Final = 0x00CFFB00
_USER_DATA: Final = 0x00CFF300
"""The flags of their descriptors, as Linux's GDT has them."""


def leave_virtual_8086(context: SavedContext, eflags: int) -> int:
    """Be in flat segments of ring 3 instead. Returns EFLAGS."""
    words, layout = context.words, context.layout
    for name in SEGMENT_NAMES:
        flat = (USER_CS, _USER_CODE) if name == "cs" else (USER_DS, _USER_DATA)
        place = layout.segment(name)
        words[place], words[place + FLAGS] = flat
        words[place + BASE], words[place + LIMIT] = 0, 0xFFFFFFFF
    words[layout.hidden] &= ~(EFLAGS_VM | _EFLAGS_IOPL)
    words[layout.hidden] = context.hidden_after(_USER_CODE, 0, _USER_DATA)
    context.write_eflags(eflags & EFLAGS_ARITHMETIC | _EFLAGS_IF)
    return context.read_eflags()
