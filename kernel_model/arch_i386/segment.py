# SPDX-License-Identifier: GPL-2.0-or-later
"""The selectors of ring 3.

Models linux-2.4.22 ``include/asm-i386/segment.h``. The descriptors lie in the GDT of the guest's
image; the low two bits are ring 3. Nothing here can fail.
"""

from typing import Final

USER_CS: Final = 0x23
USER_DS: Final = 0x2B
