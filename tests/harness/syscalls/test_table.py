# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of calls, and the structures they fill, against the C headers of the compiler."""

import ctypes
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ziglang

from harness.syscalls import structures
from harness.syscalls.names import NAMES, call_name
from harness.syscalls.table import TABLE

LAYOUTS = {
    "OldStat": "struct __old_kernel_stat",
    "Stat": "struct stat",
    "Stat64": "struct stat64",
    "StatxTimestamp": "struct statx_timestamp",
    "Statx": "struct statx",
    "Statfs": "struct statfs",
    "Statfs64": "struct statfs64",
    "Flock": "struct flock",
    "Flock64": "struct flock64",
    "PollFd": "struct pollfd",
    "Timespec": "struct __kernel_old_timespec",
    "Timespec64": "struct __kernel_timespec",
    "Timeval": "struct __kernel_old_timeval",
    "Timezone": "struct timezone",
    "Itimerspec": "struct itimerspec",
    "Itimerspec64": "struct __kernel_itimerspec",
    "EpollEvent": "struct epoll_event",
    "SignalfdSiginfo": "struct signalfd_siginfo",
    "Tms": "struct tms",
    "Utimbuf": "struct utimbuf",
    "Rlimit": "struct rlimit",
    "Rlimit64": "struct rlimit64",
    "Rusage": "struct rusage",
    "Sysinfo": "struct sysinfo",
    "OldOldUtsname": "struct oldold_utsname",
    "OldUtsname": "struct old_utsname",
    "NewUtsname": "struct new_utsname",
}
HEADERS = (
    *("asm/stat.h", "linux/stat.h", "asm/statfs.h", "linux/fcntl.h", "linux/poll.h"),
    *("linux/time.h", "linux/times.h", "linux/utime.h", "linux/resource.h"),
    *("linux/sysinfo.h", "linux/utsname.h", "asm/unistd.h"),
    *("linux/eventpoll.h", "linux/signalfd.h"),
)
RENAMED = {"Statx": {"__spare": None}, "Utimbuf": {}}
"""Members that the headers of another release may cut differently."""


def _assertions(name: str) -> Iterator[str]:
    """C that only compiles when ``name`` has the C structure's size and offsets."""
    layout, c_name = getattr(structures, name), LAYOUTS[name]
    yield f'_Static_assert(sizeof({c_name}) == {ctypes.sizeof(layout)}, "{c_name}");'
    for member, *_ in layout._fields_:
        if member in RENAMED.get(name, {}):
            continue
        field = getattr(layout, member)
        yield (
            f"_Static_assert(__builtin_offsetof({c_name}, {member}) == {field.offset}"
            f' && sizeof((({c_name} *)0)->{member}) == {field.size}, "{c_name}.{member}");'
        )


def _numbers() -> Iterator[str]:
    for number, name in NAMES.items():
        yield f"#if !defined(__NR_{name}) || __NR_{name} != {number}"
        yield f'_Static_assert(0, "call {number} is not {name}");'
        yield "#endif"


PLANTED = (
    '_Static_assert(sizeof(struct stat64) == 100, "planted");',
    '_Static_assert(__builtin_offsetof(struct statx, stx_ino) == 36, "planted");',
    *("#if __NR_read != 4", '_Static_assert(0, "planted");', "#endif"),
)


def compile_i386(lines: list[str], directory: Path, cache: Path) -> str:
    """The compiler's complaints about these lines, after the headers that come with it."""
    source = directory / "check.c"
    includes = [f"#include <{header}>" for header in HEADERS]
    source.write_text("\n".join([*includes, *lines, ""]))
    linux = Path(ziglang.__file__).parent / "lib" / "libc" / "include"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86-freestanding-none"]
    command += ["-isystem", str(linux / "x86-linux-any"), "-isystem", str(linux / "any-linux-any")]
    caches = {"ZIG_LOCAL_CACHE_DIR": str(cache), "ZIG_GLOBAL_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [*command, "-fsyntax-only", str(source)],
        env=os.environ | caches,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_structures_and_numbers_are_those_of_the_headers(
    tmp_path: Path, cache: pytest.Cache
) -> None:
    """And the faults planted among them, and only they, are found.

    The compiler prepares itself for ten seconds when its cache is empty.
    """
    lines = [line for name in LAYOUTS for line in _assertions(name)]
    complaints = compile_i386([*lines, *_numbers(), *PLANTED], tmp_path, cache.mkdir("zig"))
    errors = [line for line in complaints.splitlines() if " error: " in line]
    assert len(errors) == 3, complaints
    assert all("planted" in line for line in errors), complaints


def test_every_structure_is_compared() -> None:
    declared = {
        name
        for name, value in vars(structures).items()
        if isinstance(value, type) and issubclass(value, structures.Layout)
    }
    assert declared - {"Layout"} == set(LAYOUTS)


def test_names_and_functions_belong_together() -> None:
    shared = {"fdatasync": "fsync", "syncfs": "fsync", "clock_settime64": "clock_settime"}
    for number, call in TABLE.items():
        assert call.name == NAMES[number]
        expected = shared.get(call.name, call.name).lstrip("_")
        assert call.function.__name__ == f"sys_{expected}"


def test_no_function_is_left_out() -> None:
    served = {call.function for call in TABLE.values()}
    for call in list(TABLE.values()):
        module = inspect.getmodule(call.function)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("sys_") and inspect.getmodule(function) is module:
                assert function in served, name


def test_arguments_fit_the_registers() -> None:
    assert max(call.argument_count for call in TABLE.values()) <= 6


def test_unknown_calls_have_names() -> None:
    assert call_name(425) == "io_uring_setup"
    assert call_name(9999) == "call 9999"
    assert 425 not in TABLE


@pytest.mark.parametrize("name", ["read", "mmap2", "clone"])
def test_only_what_is_modelled_here_is_in_the_table(name: str) -> None:
    numbers = {call.name for call in TABLE.values()}
    assert (name in numbers) == (name == "read")


@pytest.mark.parametrize("module", ["harness.syscalls.all_calls", "harness.signals", "harness.vfs"])
def test_it_can_be_imported_first(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
