# SPDX-License-Identifier: GPL-2.0-or-later
"""The structures that system calls read and fill, as the i386 lays them out.

On the i386 no member is aligned to more than 4 bytes: ``_pack_ = 4``. Names and order are those of
``asm/stat.h``, ``asm/statfs.h``, ``linux/stat.h``, ``linux/utsname.h``, ``linux/resource.h``,
``linux/time.h``, ``linux/eventpoll.h``, ``linux/signalfd.h``.
"""

import ctypes
from ctypes import c_char, c_int16, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Any


class Layout(ctypes.LittleEndianStructure):
    """The base: alignment as on the i386."""

    _pack_ = 4


class OldStat(Layout):
    """``struct __old_kernel_stat``."""

    _fields_ = (
        ("st_dev", c_uint16),
        ("st_ino", c_uint16),
        ("st_mode", c_uint16),
        ("st_nlink", c_uint16),
        ("st_uid", c_uint16),
        ("st_gid", c_uint16),
        ("st_rdev", c_uint16),
        ("st_size", c_uint32),
        ("st_atime", c_uint32),
        ("st_mtime", c_uint32),
        ("st_ctime", c_uint32),
    )


class Stat(Layout):
    """``struct stat``."""

    _fields_ = (
        ("st_dev", c_uint32),
        ("st_ino", c_uint32),
        ("st_mode", c_uint16),
        ("st_nlink", c_uint16),
        ("st_uid", c_uint16),
        ("st_gid", c_uint16),
        ("st_rdev", c_uint32),
        ("st_size", c_uint32),
        ("st_blksize", c_uint32),
        ("st_blocks", c_uint32),
        ("st_atime", c_uint32),
        ("st_atime_nsec", c_uint32),
        ("st_mtime", c_uint32),
        ("st_mtime_nsec", c_uint32),
        ("st_ctime", c_uint32),
        ("st_ctime_nsec", c_uint32),
        ("__unused4", c_uint32),
        ("__unused5", c_uint32),
    )


class Stat64(Layout):
    """``struct stat64``."""

    _fields_ = (
        ("st_dev", c_uint64),
        ("__pad0", c_uint8 * 4),
        ("__st_ino", c_uint32),
        ("st_mode", c_uint32),
        ("st_nlink", c_uint32),
        ("st_uid", c_uint32),
        ("st_gid", c_uint32),
        ("st_rdev", c_uint64),
        ("__pad3", c_uint8 * 4),
        ("st_size", c_int64),
        ("st_blksize", c_uint32),
        ("st_blocks", c_uint64),
        ("st_atime", c_uint32),
        ("st_atime_nsec", c_uint32),
        ("st_mtime", c_uint32),
        ("st_mtime_nsec", c_uint32),
        ("st_ctime", c_uint32),
        ("st_ctime_nsec", c_uint32),
        ("st_ino", c_uint64),
    )


class StatxTimestamp(Layout):
    """``struct statx_timestamp``."""

    _fields_ = (("tv_sec", c_int64), ("tv_nsec", c_uint32), ("__reserved", c_int32))


class Statx(Layout):
    """``struct statx``; the members after ``stx_dev_minor`` are zero."""

    _fields_ = (
        ("stx_mask", c_uint32),
        ("stx_blksize", c_uint32),
        ("stx_attributes", c_uint64),
        ("stx_nlink", c_uint32),
        ("stx_uid", c_uint32),
        ("stx_gid", c_uint32),
        ("stx_mode", c_uint16),
        ("__spare0", c_uint16),
        ("stx_ino", c_uint64),
        ("stx_size", c_uint64),
        ("stx_blocks", c_uint64),
        ("stx_attributes_mask", c_uint64),
        ("stx_atime", StatxTimestamp),
        ("stx_btime", StatxTimestamp),
        ("stx_ctime", StatxTimestamp),
        ("stx_mtime", StatxTimestamp),
        ("stx_rdev_major", c_uint32),
        ("stx_rdev_minor", c_uint32),
        ("stx_dev_major", c_uint32),
        ("stx_dev_minor", c_uint32),
        ("stx_mnt_id", c_uint64),
        ("__spare", c_uint8 * 104),
    )


def _statfs(long: Any) -> tuple[tuple[str, Any], ...]:
    return (
        ("f_type", c_uint32),
        ("f_bsize", c_uint32),
        ("f_blocks", long),
        ("f_bfree", long),
        ("f_bavail", long),
        ("f_files", long),
        ("f_ffree", long),
        ("f_fsid", c_int32 * 2),
        ("f_namelen", c_uint32),
        ("f_frsize", c_uint32),
        ("f_flags", c_uint32),
        ("f_spare", c_uint32 * 4),
    )


class Statfs(Layout):
    """``struct statfs``."""

    _fields_ = _statfs(c_uint32)


class Statfs64(Layout):
    """``struct statfs64``."""

    _fields_ = _statfs(c_uint64)


class Flock(Layout):
    """``struct flock``."""

    _fields_ = (
        ("l_type", c_int16),
        ("l_whence", c_int16),
        ("l_start", c_int32),
        ("l_len", c_int32),
        ("l_pid", c_int32),
    )


class Flock64(Layout):
    """``struct flock64``."""

    _fields_ = (
        ("l_type", c_int16),
        ("l_whence", c_int16),
        ("l_start", c_int64),
        ("l_len", c_int64),
        ("l_pid", c_int32),
    )


class PollFd(Layout):
    """``struct pollfd``."""

    _fields_ = (("fd", c_int32), ("events", c_uint16), ("revents", c_uint16))


class Timespec(Layout):
    """``struct timespec``."""

    _fields_ = (("tv_sec", c_int32), ("tv_nsec", c_int32))


class Timespec64(Layout):
    """``struct __kernel_timespec``."""

    _fields_ = (("tv_sec", c_int64), ("tv_nsec", c_int64))


class Itimerspec(Layout):
    """``struct itimerspec``."""

    _fields_ = (("it_interval", Timespec), ("it_value", Timespec))


class Itimerspec64(Layout):
    """``struct __kernel_itimerspec``."""

    _fields_ = (("it_interval", Timespec64), ("it_value", Timespec64))


class EpollEvent(Layout):
    """``struct epoll_event``."""

    _fields_ = (("events", c_uint32), ("data", c_uint64))


class SignalfdSiginfo(Layout):
    """``struct signalfd_siginfo``."""

    _fields_ = (
        ("ssi_signo", c_uint32),
        ("ssi_errno", c_int32),
        ("ssi_code", c_int32),
        ("ssi_pid", c_uint32),
        ("ssi_uid", c_uint32),
        ("ssi_fd", c_int32),
        ("ssi_tid", c_uint32),
        ("ssi_band", c_uint32),
        ("ssi_overrun", c_uint32),
        ("ssi_trapno", c_uint32),
        ("ssi_status", c_int32),
        ("ssi_int", c_int32),
        ("ssi_ptr", c_uint64),
        ("ssi_utime", c_uint64),
        ("ssi_stime", c_uint64),
        ("ssi_addr", c_uint64),
        ("ssi_addr_lsb", c_uint16),
        ("__pad2", c_uint16),
        ("ssi_syscall", c_int32),
        ("ssi_call_addr", c_uint64),
        ("ssi_arch", c_uint32),
        ("__pad", c_uint8 * 28),
    )


class Timeval(Layout):
    """``struct timeval``."""

    _fields_ = (("tv_sec", c_int32), ("tv_usec", c_int32))


class Timezone(Layout):
    """``struct timezone``."""

    _fields_ = (("tz_minuteswest", c_int32), ("tz_dsttime", c_int32))


class Tms(Layout):
    """``struct tms``."""

    _fields_ = (
        ("tms_utime", c_int32),
        ("tms_stime", c_int32),
        ("tms_cutime", c_int32),
        ("tms_cstime", c_int32),
    )


class Utimbuf(Layout):
    """``struct utimbuf``."""

    _fields_ = (("actime", c_int32), ("modtime", c_int32))


class Rlimit(Layout):
    """``struct rlimit``."""

    _fields_ = (("rlim_cur", c_uint32), ("rlim_max", c_uint32))


class Rlimit64(Layout):
    """``struct rlimit64``."""

    _fields_ = (("rlim_cur", c_uint64), ("rlim_max", c_uint64))


class Rusage(Layout):
    """``struct rusage``."""

    _fields_ = (
        ("ru_utime", Timeval),
        ("ru_stime", Timeval),
        ("ru_maxrss", c_int32),
        ("ru_ixrss", c_int32),
        ("ru_idrss", c_int32),
        ("ru_isrss", c_int32),
        ("ru_minflt", c_int32),
        ("ru_majflt", c_int32),
        ("ru_nswap", c_int32),
        ("ru_inblock", c_int32),
        ("ru_oublock", c_int32),
        ("ru_msgsnd", c_int32),
        ("ru_msgrcv", c_int32),
        ("ru_nsignals", c_int32),
        ("ru_nvcsw", c_int32),
        ("ru_nivcsw", c_int32),
    )


class Sysinfo(Layout):
    """``struct sysinfo``."""

    _fields_ = (
        ("uptime", c_int32),
        ("loads", c_uint32 * 3),
        ("totalram", c_uint32),
        ("freeram", c_uint32),
        ("sharedram", c_uint32),
        ("bufferram", c_uint32),
        ("totalswap", c_uint32),
        ("freeswap", c_uint32),
        ("procs", c_uint16),
        ("pad", c_uint16),
        ("totalhigh", c_uint32),
        ("freehigh", c_uint32),
        ("mem_unit", c_uint32),
        ("_f", c_uint8 * 8),
    )


def _utsname(names: tuple[str, ...], length: int) -> tuple[tuple[str, Any], ...]:
    return tuple((name, c_char * length) for name in names)


_UTSNAME = ("sysname", "nodename", "release", "version", "machine")


class OldOldUtsname(Layout):
    """``struct oldold_utsname``."""

    _fields_ = _utsname(_UTSNAME, 9)


class OldUtsname(Layout):
    """``struct old_utsname``."""

    _fields_ = _utsname(_UTSNAME, 65)


class NewUtsname(Layout):
    """``struct new_utsname``."""

    _fields_ = _utsname((*_UTSNAME, "domainname"), 65)
