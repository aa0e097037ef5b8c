# SPDX-License-Identifier: GPL-2.0-or-later
"""What may not sleep now.

Models linux-2.6.11 ``include/linux/preempt.h`` and ``might_sleep()`` of ``kernel/sched.c`` (book
3.10). In RAM: ``preempt_count`` of each CPU. Linux has it in the ``thread_info`` of each process;
since no other process gets the CPU while it is not zero, one for each CPU says the same.

What can fail: giving back what is not held is a :class:`~kernel_model.errors.KernelBug`; a sleep
while something is held that only this CPU has, say a slot of ``kmap_atomic()``, is a
:class:`SleepInAtomic`, where a kernel with CONFIG_DEBUG_SPINLOCK_SLEEP complains and goes on.
"""

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage


class SleepInAtomic(KernelBug):
    """``count`` times something was taken that nobody may sleep with, and ``what`` may sleep."""

    def __init__(self, what: str, count: int) -> None:
        super().__init__("sched.c", 0, f"{what} may sleep, with preempt_count {count}")
        self.what = what
        self.count = count


class Preemption:
    """``preempt_count()`` of the CPU that runs."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._words = image.ram.words
        self._counts = virt_to_phys(image.symbol("preempt_count")) >> 2
        self._processor = image.structs.task_struct.word("processor")

    def _word(self) -> int:
        task = virt_to_phys(self._image.current) >> 2
        return self._counts + self._words[task + self._processor]

    def inc_preempt_count(self) -> None:
        self._words[self._word()] += 1

    def dec_preempt_count(self) -> None:
        if not self.preempt_count():
            raise KernelBug("preempt.h", 0, "something is given back that nobody holds")
        self._words[self._word()] -= 1

    def preempt_count(self) -> int:
        return self._words[self._word()]

    def might_sleep(self, what: str) -> None:
        """``what`` is about to do what may let others run."""
        if count := self.preempt_count():
            raise SleepInAtomic(what, count)
