# SPDX-License-Identifier: GPL-2.0-or-later
"""Number -> system call, for the calls on files, descriptors, identity, limits, time and signals.

Models ``sys_call_table`` of linux-2.4.22 ``arch/i386/kernel/entry.S``, with later calls after it. A
call is a function or a generator function of the task and its arguments; :class:`SystemCall` makes
one thing of both. What can fail: nothing. An error of the file system becomes ``-errno``, a signal
a :class:`~harness.syscalls.requests.RestartSystemCall`.
"""

import errno
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from harness.syscalls import (
    attributes,
    clock,
    descriptors,
    directories,
    epoll,
    event_files,
    futex,
    identity,
    limits,
    links,
    open,
    poll,
    read_write,
    rseq,
    signalfd,
    signals,
    sockets,
    stat,
    system,
)
from harness.syscalls.names import NAMES
from harness.syscalls.requests import ERESTARTSYS, Call, Interrupted, RestartSystemCall
from harness.syscalls.task import Task


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One call: its name, what serves it, and how many arguments it has."""

    name: str
    function: Callable[..., int | Call]
    argument_count: int

    def start(self, task: Task, *arguments: int) -> Call:
        """Serve it with what the registers hold; more arguments than it has are not looked at."""
        try:
            result = self.function(task, *arguments[: self.argument_count])
            if isinstance(result, Generator):
                result = yield from result
            return result
        except OSError as error:
            return -(error.errno or errno.EIO)
        except Interrupted as signal:
            raise RestartSystemCall(ERESTARTSYS) from signal


_FUNCTIONS: Final[dict[int, Callable[..., Any]]] = {
    # read_write
    3: read_write.sys_read,
    4: read_write.sys_write,
    19: read_write.sys_lseek,
    36: read_write.sys_sync,
    118: read_write.sys_fsync,
    140: read_write.sys_llseek,
    145: read_write.sys_readv,
    146: read_write.sys_writev,
    148: read_write.sys_fsync,
    180: read_write.sys_pread64,
    181: read_write.sys_pwrite64,
    187: read_write.sys_sendfile,
    225: read_write.sys_readahead,
    239: read_write.sys_sendfile64,
    250: read_write.sys_fadvise64,
    272: read_write.sys_fadvise64_64,
    333: read_write.sys_preadv,
    334: read_write.sys_pwritev,
    344: read_write.sys_fsync,
    # open
    5: open.sys_open,
    6: open.sys_close,
    8: open.sys_creat,
    295: open.sys_openat,
    436: open.sys_close_range,
    # descriptors
    41: descriptors.sys_dup,
    42: descriptors.sys_pipe,
    54: descriptors.sys_ioctl,
    55: descriptors.sys_fcntl,
    63: descriptors.sys_dup2,
    143: descriptors.sys_flock,
    221: descriptors.sys_fcntl64,
    330: descriptors.sys_dup3,
    331: descriptors.sys_pipe2,
    # stat
    18: stat.sys_oldstat,
    28: stat.sys_oldfstat,
    84: stat.sys_oldlstat,
    99: stat.sys_statfs,
    100: stat.sys_fstatfs,
    106: stat.sys_stat,
    107: stat.sys_lstat,
    108: stat.sys_fstat,
    195: stat.sys_stat64,
    196: stat.sys_lstat64,
    197: stat.sys_fstat64,
    268: stat.sys_statfs64,
    269: stat.sys_fstatfs64,
    300: stat.sys_fstatat64,
    383: stat.sys_statx,
    # attributes
    15: attributes.sys_chmod,
    16: attributes.sys_lchown,
    30: attributes.sys_utime,
    33: attributes.sys_access,
    92: attributes.sys_truncate,
    93: attributes.sys_ftruncate,
    94: attributes.sys_fchmod,
    95: attributes.sys_fchown,
    182: attributes.sys_chown,
    193: attributes.sys_truncate64,
    194: attributes.sys_ftruncate64,
    198: attributes.sys_lchown32,
    207: attributes.sys_fchown32,
    212: attributes.sys_chown32,
    271: attributes.sys_utimes,
    298: attributes.sys_fchownat,
    299: attributes.sys_futimesat,
    306: attributes.sys_fchmodat,
    307: attributes.sys_faccessat,
    320: attributes.sys_utimensat,
    324: attributes.sys_fallocate,
    412: attributes.sys_utimensat_time64,
    439: attributes.sys_faccessat2,
    # links
    9: links.sys_link,
    10: links.sys_unlink,
    14: links.sys_mknod,
    38: links.sys_rename,
    39: links.sys_mkdir,
    40: links.sys_rmdir,
    83: links.sys_symlink,
    85: links.sys_readlink,
    296: links.sys_mkdirat,
    297: links.sys_mknodat,
    301: links.sys_unlinkat,
    302: links.sys_renameat,
    303: links.sys_linkat,
    304: links.sys_symlinkat,
    305: links.sys_readlinkat,
    353: links.sys_renameat2,
    # directories
    12: directories.sys_chdir,
    60: directories.sys_umask,
    61: directories.sys_chroot,
    133: directories.sys_fchdir,
    141: directories.sys_getdents,
    183: directories.sys_getcwd,
    220: directories.sys_getdents64,
    # poll
    82: poll.sys_select,
    142: poll.sys_newselect,
    168: poll.sys_poll,
    308: poll.sys_pselect6,
    309: poll.sys_ppoll,
    413: poll.sys_pselect6_time64,
    414: poll.sys_ppoll_time64,
    # identity
    20: identity.sys_getpid,
    23: identity.sys_setuid,
    24: identity.sys_getuid,
    46: identity.sys_setgid,
    47: identity.sys_getgid,
    49: identity.sys_geteuid,
    50: identity.sys_getegid,
    57: identity.sys_setpgid,
    64: identity.sys_getppid,
    65: identity.sys_getpgrp,
    66: identity.sys_setsid,
    70: identity.sys_setreuid,
    71: identity.sys_setregid,
    80: identity.sys_getgroups,
    81: identity.sys_setgroups,
    132: identity.sys_getpgid,
    138: identity.sys_setfsuid,
    139: identity.sys_setfsgid,
    147: identity.sys_getsid,
    164: identity.sys_setresuid,
    165: identity.sys_getresuid,
    170: identity.sys_setresgid,
    171: identity.sys_getresgid,
    199: identity.sys_getuid32,
    200: identity.sys_getgid32,
    201: identity.sys_geteuid32,
    202: identity.sys_getegid32,
    203: identity.sys_setreuid32,
    204: identity.sys_setregid32,
    205: identity.sys_getgroups32,
    206: identity.sys_setgroups32,
    208: identity.sys_setresuid32,
    209: identity.sys_getresuid32,
    210: identity.sys_setresgid32,
    211: identity.sys_getresgid32,
    213: identity.sys_setuid32,
    214: identity.sys_setgid32,
    215: identity.sys_setfsuid32,
    216: identity.sys_setfsgid32,
    224: identity.sys_gettid,
    # limits
    34: limits.sys_nice,
    75: limits.sys_setrlimit,
    76: limits.sys_getrlimit,
    77: limits.sys_getrusage,
    96: limits.sys_getpriority,
    97: limits.sys_setpriority,
    191: limits.sys_ugetrlimit,
    340: limits.sys_prlimit64,
    # clock
    0: clock.sys_restart_syscall,
    13: clock.sys_time,
    25: clock.sys_stime,
    43: clock.sys_times,
    78: clock.sys_gettimeofday,
    79: clock.sys_settimeofday,
    162: clock.sys_nanosleep,
    264: clock.sys_clock_settime,
    265: clock.sys_clock_gettime,
    266: clock.sys_clock_getres,
    267: clock.sys_clock_nanosleep,
    403: clock.sys_clock_gettime64,
    404: clock.sys_clock_settime,
    406: clock.sys_clock_getres_time64,
    407: clock.sys_clock_nanosleep_time64,
    # system
    59: system.sys_oldolduname,
    74: system.sys_sethostname,
    109: system.sys_olduname,
    116: system.sys_sysinfo,
    121: system.sys_setdomainname,
    122: system.sys_uname,
    136: system.sys_personality,
    154: system.sys_sched_setparam,
    155: system.sys_sched_getparam,
    156: system.sys_sched_setscheduler,
    157: system.sys_sched_getscheduler,
    159: system.sys_sched_get_priority_max,
    160: system.sys_sched_get_priority_min,
    172: system.sys_prctl,
    241: system.sys_sched_setaffinity,
    242: system.sys_sched_getaffinity,
    318: system.sys_getcpu,
    355: system.sys_getrandom,
    # futex
    158: futex.sys_sched_yield,
    240: futex.sys_futex,
    258: futex.sys_set_tid_address,
    311: futex.sys_set_robust_list,
    312: futex.sys_get_robust_list,
    375: futex.sys_membarrier,
    422: futex.sys_futex_time64,
    386: rseq.sys_rseq,
    # event_files
    322: event_files.sys_timerfd_create,
    323: event_files.sys_eventfd,
    325: event_files.sys_timerfd_settime,
    326: event_files.sys_timerfd_gettime,
    328: event_files.sys_eventfd2,
    410: event_files.sys_timerfd_gettime64,
    411: event_files.sys_timerfd_settime64,
    # epoll
    254: epoll.sys_epoll_create,
    255: epoll.sys_epoll_ctl,
    256: epoll.sys_epoll_wait,
    319: epoll.sys_epoll_pwait,
    329: epoll.sys_epoll_create1,
    # sockets
    102: sockets.sys_socketcall,
    360: sockets.sys_socketpair,
    369: sockets.sys_sendto,
    371: sockets.sys_recvfrom,
    373: sockets.sys_shutdown,
    # signalfd
    321: signalfd.sys_signalfd,
    327: signalfd.sys_signalfd4,
    **signals.FUNCTIONS,
}

TABLE: Final[dict[int, SystemCall]] = {
    number: SystemCall(NAMES[number], function, len(inspect.signature(function).parameters) - 1)
    for number, function in _FUNCTIONS.items()
}
"""The calls that are modelled here. Those on processes and memory are elsewhere."""
