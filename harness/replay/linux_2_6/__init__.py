# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics of Linux 2.6.11, whose traces say other things than those of 2.4."""

from collections.abc import Callable
from typing import Final

from harness.replay.linux_2_6 import bootmem, buddy, vmalloc, zones
from harness.replay.trace import Comparison, Trace

TOPICS: Final[dict[str, Callable[[Trace, Comparison], None]]] = {
    "bootmem": bootmem.replay,
    "zones": zones.replay,
    "buddy": buddy.replay,
    "buddy_exhaust": buddy.replay,
    "vmalloc": vmalloc.replay,
}
