# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that waits until nobody can still read what it takes away.

Models as much of linux-2.6.11 ``kernel/rcupdate.c`` as the slab allocator needs: ``call_rcu()``,
``synchronize_kernel()``. In RAM: ``struct rcu_head`` inside what is to go, chained from
``rcu_callbacks``. When a grace period ends, no reader runs on any CPU; the model's machine decides
when that is.
"""

from collections.abc import Callable

from kernel_model.image import KernelImage


class Rcu:
    """The callbacks of one machine, in the order in which they came."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._statics = image.statics

    def call_rcu(self, head: int, func: Callable[[int], None]) -> None:
        """``func`` is to be called with ``head`` when the grace period has ended."""
        view = self._image.at(self._image.structs.rcu_head, head)
        view.next, view.func = 0, self._image.functions.address(func)
        waiting = self._waiting()
        if waiting:
            self._image.at(self._image.structs.rcu_head, waiting[-1]).next = head
        else:
            self._statics.rcu_callbacks = head

    def _waiting(self) -> list[int]:
        heads = []
        head = int(self._statics.rcu_callbacks)
        while head:
            heads.append(head)
            head = int(self._image.at(self._image.structs.rcu_head, head).next)
        return heads

    def end_grace_period(self) -> int:
        """Call all that wait. Returns how many; what they leave behind waits for the next."""
        heads = self._waiting()
        self._statics.rcu_callbacks = 0
        for head in heads:
            func = int(self._image.at(self._image.structs.rcu_head, head).func)
            self._image.functions.call(func, head)
        return len(heads)
