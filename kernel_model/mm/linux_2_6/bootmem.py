# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot memory allocator of 2.6: it remembers where it last found room.

Models linux-2.6.11 ``mm/bootmem.c`` (book 5.7). In RAM: ``bootmem_data_t.last_success``, the byte
offset into the node where the last allocation began; a search with a goal below it begins there,
in one pass over the boot map and, failing that, a second one from the bottom of the node.

The search looks at the bit behind the end of the map, too. When a request for one frame finds
nothing above its goal and that bit is clear, the kernel takes the frame that is none, and its own
check stops it: a :class:`~kernel_model.errors.KernelBug`, though there may be room below.
"""

from typing import Any

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.bitops import lowest_set
from kernel_model.errors import KernelBug
from kernel_model.mm.bootmem import Bootmem, BugLines

_U32 = 0xFFFFFFFF
_WORD_BITS = 32


class LastSuccessBootmem(Bootmem):
    """:class:`Bootmem` with ``last_success``."""

    LINES = BugLines(91, 92, 93, 94, 116, 117, 130, 157, 159)
    NO_SUCH_FRAME = 213

    def _report_twice(self, first: int, twice: int) -> None:
        """Only a kernel built with CONFIG_DEBUG_BOOTMEM says so."""

    def _note_freed(self, bdata: Any, addr: int) -> None:
        """What lies below the last success is worth searching again."""
        bdata.last_success = min(int(bdata.last_success), addr)

    def _first_fit(self, bdata: Any, size: int, align: int, goal: int) -> int | None:
        boot_start = int(bdata.node_boot_start)
        offset = 0
        if align and boot_start & (align - 1):
            offset = (align - (boot_start & (align - 1))) >> PAGE_SHIFT
        preferred = 0
        if goal and goal >= boot_start and goal >> PAGE_SHIFT < bdata.node_low_pfn:
            preferred = max(goal - boot_start, int(bdata.last_success))
        preferred = ((preferred + align - 1) & ~(align - 1) & _U32) >> PAGE_SHIFT
        preferred += offset
        frames = (size + PAGE_SIZE - 1) // PAGE_SIZE
        step = align >> PAGE_SHIFT or 1
        found = self._scan(bdata, preferred, step, frames)
        if found is None and preferred > offset:
            found = self._scan(bdata, offset, step, frames)
        if found is None:
            return None
        bdata.last_success = found << PAGE_SHIFT & _U32
        if found >= self.bitmap(bdata).length:
            raise KernelBug(
                "bootmem.c",
                self.NO_SUCH_FRAME,
                f"__alloc_bootmem({size}, {align}, {goal:#x}): frame {found} of the node is past "
                "its end",
            )
        return found

    def _scan(self, bdata: Any, start: int, step: int, count: int) -> int | None:
        """The first frame from ``start`` up, at a multiple of ``step``, with ``count`` bits clear.

        ``find_next_zero_bit()`` finds only whole words, so what it returns when all bits are set
        lies behind the end of the map. A run that is too short ends the search at its multiple of
        ``step``: the next one is tried, not that one.
        """
        bitmap = self.bitmap(bdata)
        end, taken = bitmap.length, bitmap.value()
        words_end = -(-end // _WORD_BITS) * _WORD_BITS
        taken |= (1 << words_end) - (1 << end)
        index = start
        while index < end:
            index += lowest_set(~(taken >> index))
            index = -(-index // step) * step
            if self._taken(bdata, taken, words_end, index):
                index += step
                continue
            used = lowest_set(taken >> index) if index < end else -1
            run_end = min(index + used, end) if used >= 0 else end
            if count <= 1 or run_end >= index + count:
                return index
            index = -(-max(run_end, index + 1) // step) * step + step
        return None

    def _taken(self, bdata: Any, taken: int, words_end: int, index: int) -> bool:
        """``test_bit()``, of memory behind the map where ``index`` leads there."""
        if index < words_end:
            return bool(taken >> index & 1)
        paddr = virt_to_phys(int(bdata.node_bootmem_map)) + (index >> 3)
        return bool(self._image.ram.read8(paddr) >> (index & 7) & 1)
