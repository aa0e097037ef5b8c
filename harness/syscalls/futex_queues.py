# SPDX-License-Identifier: GPL-2.0-or-later
"""Who sleeps on which futex.

Models ``union futex_key`` and the hash buckets of linux-2.6 ``kernel/futex.c``. Nothing here can
fail.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MATCH_ANY: Final = 0xFFFFFFFF


class Key(NamedTuple):
    """Which word it is: in memory of its own by the address space and the address, in a shared
    mapping by what is mapped and the offset in there. Those that only threads may use are others.
    """

    owner: Hashable
    offset: int
    private: bool


@dataclass(eq=False, slots=True)
class Waiter:
    """One who sleeps at ``key`` until one of ``bits`` is woken."""

    key: Key
    bits: int
    woken: bool = False


@dataclass(slots=True)
class Futexes:
    """Who sleeps, in the order of coming."""

    waiters: list[Waiter] = field(default_factory=list)

    def wake(self, key: Key, count: int, bits: int = MATCH_ANY) -> int:
        """Wake up to ``count`` who sleep at ``key``: how many were."""
        chosen = [w for w in self.waiters if w.key == key and w.bits & bits][: max(0, count)]
        for waiter in chosen:
            waiter.woken = True
            self.waiters.remove(waiter)
        return len(chosen)

    def move(self, key: Key, target: Key, count: int) -> int:
        """Let up to ``count`` who sleep at ``key`` sleep at ``target``."""
        chosen = [w for w in self.waiters if w.key == key][: max(0, count)]
        for waiter in chosen:
            waiter.key = target
        return len(chosen)
