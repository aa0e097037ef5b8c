# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 2.6.11, put together from its parts.

Parts that 2.6 does not have yet are those of 2.4; the boot stops at :attr:`Linux26.last_step`,
behind which they would not work.
"""

from typing import ClassVar

from kernel_model.release.linux_2_4 import Linux24


class Linux26(Linux24):
    """Which class is which part of a 2.6 kernel."""

    last_step: ClassVar[str] = "mem_init"
