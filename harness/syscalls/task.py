# SPDX-License-Identifier: GPL-2.0-or-later
"""What system calls need of the process that calls, and of the machine around it.

Models the parts of linux-2.4.22 ``struct task_struct`` that files, identity, limits and time use.
Processes themselves are made elsewhere; :class:`Task` says what they must have.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from harness.syscalls.futex_queues import Futexes
from harness.syscalls.requests import Call
from harness.syscalls.restartable import RestartableSequences
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.filesystem import FileSystem
from harness.vfs.namei import Context

RLIM_INFINITY: Final = 0xFFFFFFFF
RLIM_NLIMITS: Final = 16
RLIMIT_FSIZE: Final = 1
RLIMIT_STACK: Final = 3
RLIMIT_NPROC: Final = 6
RLIMIT_NOFILE: Final = 7

SIGPIPE: Final = 13
SIGXFSZ: Final = 25


@dataclass(slots=True)
class Limits:
    """Resource -> (soft, hard); :data:`RLIM_INFINITY` is none."""

    values: dict[int, tuple[int, int]] = field(
        default_factory=lambda: {
            RLIMIT_STACK: (8 << 20, RLIM_INFINITY),
            4: (0, RLIM_INFINITY),
            RLIMIT_NPROC: (256, 256),
            RLIMIT_NOFILE: (1024, 4096),
            8: (8 << 20, 8 << 20),
            12: (819200, 819200),
            13: (0, 0),
            14: (0, 0),
        }
    )

    def get(self, resource: int) -> tuple[int, int]:
        return self.values.get(resource, (RLIM_INFINITY, RLIM_INFINITY))

    def soft(self, resource: int) -> int:
        return self.get(resource)[0]

    def copy(self) -> "Limits":
        """For a child."""
        return replace(self, values=dict(self.values))


class Clock(Protocol):
    """Time as the machine counts it: the same in every run."""

    def monotonic(self) -> int:
        """Nanoseconds since it was started."""

    def realtime(self) -> int:
        """Nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used; times in nanoseconds."""

    user_time: int = 0
    system_time: int = 0
    max_rss_pages: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The machine's memory in pages, for ``sysinfo()``."""

    total: int = 0
    free: int = 0
    shared: int = 0
    buffers: int = 0
    total_swap: int = 0
    free_swap: int = 0
    total_high: int = 0
    free_high: int = 0


@dataclass(slots=True)
class Names:
    """What ``uname()`` tells.

    The memory manager is that of 2.4.22 or 2.6.11, but the C library of today's static programs
    ends at once with "kernel too old" where the release is below 3.2.0. The default is the oldest
    that they accept; whose memory manager it is stands in the version.
    """

    sysname: bytes = b"Linux"
    nodename: bytes = b"mmucheck"
    release: bytes = b"3.2.0"
    version: bytes = b"#1 mmucheck"
    machine: bytes = b"i686"
    domainname: bytes = b"(none)"


class System(Protocol):
    """The machine."""

    @property
    def files(self) -> FileSystem: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def names(self) -> Names: ...

    @property
    def futexes(self) -> Futexes: ...

    def random(self, count: int) -> bytes:
        """From the seed."""

    def memory(self) -> MemoryUse: ...

    def find(self, pid: int) -> "Task | None":
        """The process ``pid``, ended or not, as long as it was not waited for."""

    def tasks(self) -> Iterable["Task"]: ...


class Task(Protocol):
    """A process."""

    pid: int
    """``gettid()``."""
    tgid: int
    """``getpid()``."""
    group: int
    """Its process group."""
    session: int
    comm: bytes
    files: DescriptorTable
    fs: Context
    limits: Limits
    personality: int
    nice: int
    clear_child_tid: int
    """Where a zero is to be written when it ends, and a futex woken."""
    robust_list: int
    rseq: RestartableSequences
    has_executed: bool
    """Whether it called ``execve()`` since it was made: its parent may no longer move it."""
    parent_death_signal: int
    dumpable: int
    no_new_privileges: int
    restart: Callable[[], Call] | None
    """What ``restart_syscall()`` goes on with."""

    @property
    def system(self) -> System: ...

    @property
    def parent(self) -> int:
        """The PID of its parent."""

    @property
    def address_space(self) -> Hashable:
        """Equal for those who share memory."""

    def backing(self, address: int) -> tuple[Hashable, int] | None:
        """What a shared mapping shows at ``address``, and the offset in there; ``None`` in memory
        of its own. ``EFAULT`` where nothing can be read or written.
        """

    def send_signal(self, signal: int) -> None:
        """To itself."""

    def usage(self) -> Usage:
        """Its own."""

    def children_usage(self) -> Usage:
        """Of the children that were waited for."""
