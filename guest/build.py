# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the guests: ``python -m guest.build`` fills ``guest/built``.

Ring-0 images are built once per build of the kernel they live in, because the layout of its
structures differs: ``guest/built/<abi>/NAME.elf``, beside ``include/kernel_structs.h``, which
comes from ``kernel_model.structs``. Ring-3 programs know nothing of the kernel:
``guest/built/user/NAME.elf``.

The compiler is the one in the ``ziglang`` wheel. All work happens in a temporary directory,
its caches included, and each finished file is renamed into place: builds may run at the same
time, and two builds give the same bytes. What can fail: :class:`GuestBuildError` carries the
compiler's own words.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import hypercalls, kernel_functions, mm_walk_layout, slab_walk_layout
from harness.conformance import builtin as conformance_table
from harness.conformance import layout as conformance_layout
from kernel_model.errors import MmucheckError
from kernel_model.structs import header

GUEST: Final = Path(__file__).resolve().parent
BUILT: Final = GUEST / "built"
USER: Final = "user"
"""Where ring-3 programs go, next to the directories of the kernel's builds."""

KERNEL_SOURCES: Final = (
    "kernel/boot.S",
    "kernel/entry.S",
    "kernel/kernel_calls.S",
    "kernel/probe.S",
    "kernel/uaccess.S",
    "kernel/traps.c",
    "kernel/console.c",
)
KERNEL_PROGRAMS: Final[dict[str, tuple[str, ...]]] = {
    "kernel": ("kernel/mm_walk.c", "kernel/slab_walk.c"),
    "fault_test": ("kernel/fault_test.c",),
    "slab_test": ("kernel/slab_test.c", "kernel/slab_walk.c"),
    "split_test": ("kernel/split_test.c",),
    "structs_check": ("kernel/structs_check.c",),
    "vmalloc_test": ("kernel/vmalloc_test.c",),
}
"""Ring-0 images by name, with what they add to :data:`KERNEL_SOURCES`."""
EVERY_VARIANT: Final[dict[str, tuple[str, ...]]] = {
    "2.4": ("kernel", "slab_test"),
    "2.6": ("kernel", "slab_test", "structs_check", "vmalloc_test"),
}
"""The images that know the structures of a build, by its release."""
PAGING_VARIANTS: Final = ("nohm", "hm", "pae", "nohm_2_6", "hm_2_6", "pae_2_6")
"""The builds that differ in what all images look at. The others get :data:`EVERY_VARIANT`, the
images that walk structures."""

USER_SOURCES: Final = ("user/crt0.S", "user/syscalls.c")
USER_PROGRAMS: Final = (
    "access",
    "any_order",
    "event_files",
    "fast_calls",
    "futexes",
    "greedy",
    "hello",
    "hostile_calls",
    "hugetlb",
    "jump_kernel",
    "jump_null",
    "nommu_maps",
    "port_io",
    "read_at",
    "read_kernel",
    "read_null",
    "rseq",
    "sha256",
    "signal_children",
    "signal_faults",
    "signal_frames",
    "signal_masks",
    "signal_restart",
    "signal_stack",
    "sysenter",
    "title",
    "tour",
    "write_kernel",
    "write_null",
    "write_text",
)
CONFORMANCE: Final = "conformance"
"""The directory of the guest that is a kernel of its own and knows no Linux."""
CONFORMANCE_SOURCES: Final = tuple(
    f"conformance/{name}"
    for name in (
        *("boot.S", "entry.S", "main.c", "batch.c", "paging.c"),
        *("descriptors.c", "console.c", "builtin.c"),
    )
)
STATIC_PIE_PROGRAMS: Final = ("greedy", "hello", "nommu_maps", "sha256")
"""Ring-3 programs that are also built as ``NAME_pie``."""

COMPILER: Final = (
    *(sys.executable, "-m", "ziglang", "cc"),
    *("-target", "x86-freestanding-none", "-mcpu=i386", "-std=gnu11", "-O2", "-g0"),
    *("-Wall", "-Wextra", "-Werror"),
    *("-ffreestanding", "-nostdlib", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    # By default the linker drops what nothing refers to, such as functions the harness calls.
    *("-Wl,--no-gc-sections", "-Wl,--build-id=none"),
)
KERNEL_FLAGS: Final = ("-fno-pic", "-Wl,-T,kernel/kernel.ld", "-Wl,-e,startup_32")
CONFORMANCE_FLAGS: Final = (
    *("-fno-pic", "-Wl,-T,conformance/conformance.ld", "-Wl,-e,startup"),
    "-Iconformance",
)
PEER: Final = "peer"
"""The program that brings a booted machine up on another PC."""
PEER_FLAGS: Final = ("-fno-pic", "-Wl,-T,peer/peer.ld", "-Wl,-e,startup")
NOMMU: Final = "nommu"
"""The kernel that never turns paging on."""
NOMMU_FLAGS: Final = ("-fno-pic", "-Wl,-T,nommu/nommu.ld", "-Wl,-e,startup")
VSYSCALL: Final = "vsyscall"
"""The directory of the pages through which programs of 2.6 enter the kernel."""
VSYSCALL_FLAGS: Final = (
    *("-target", "x86-linux-musl", "-fPIC", "-shared", "-Ivsyscall"),
    *("-Wl,-T,vsyscall/vsyscall.ld",),
    *(
        "-Wl,-soname,linux-gate.so.1",
        "-Wl,--hash-style=sysv",
        "-Wl,-z,norelro",
        "-Wl,-e,__kernel_vsyscall",
    ),
)
VSYSCALL_PAGES: Final = ("int80", "sysenter")
USER_FLAGS: Final = ("-fno-pic", "-Wl,-T,user/user.ld", "-Wl,-e,_start")
STATIC_PIE_FLAGS: Final = (
    *("-fPIE", "-pie", "-DSTATIC_PIE", "-Wl,-T,user/pie.ld", "-Wl,-e,_start"),
    "user/relocate.c",
)


class GuestBuildError(MmucheckError):
    """The compiler or the linker refused a guest."""


@dataclass(frozen=True, slots=True)
class Program:
    """One ELF file: ``directory`` below ``guest/built``, and what the compiler gets."""

    directory: str
    name: str
    arguments: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path(self.directory, f"{self.name}.elf")


def programs() -> Iterator[Program]:
    """Every guest there is."""
    for abi in header.VARIANTS:
        for name in kernel_programs(abi):
            sources = KERNEL_PROGRAMS[name]
            yield Program(abi, name, (*KERNEL_FLAGS, *KERNEL_SOURCES, *sources))
    yield Program(CONFORMANCE, CONFORMANCE, (*CONFORMANCE_FLAGS, *CONFORMANCE_SOURCES))
    yield Program(PEER, PEER, (*PEER_FLAGS, "peer/peer.S"))
    yield Program(NOMMU, NOMMU, (*NOMMU_FLAGS, "nommu/nommu.S"))
    for name in VSYSCALL_PAGES:
        yield Program(VSYSCALL, name, (*VSYSCALL_FLAGS, f"vsyscall/{name}.S"))
    for name in USER_PROGRAMS:
        source = f"user/{name}.c"
        yield Program(USER, name, (*USER_FLAGS, *USER_SOURCES, source))
        if name in STATIC_PIE_PROGRAMS:
            yield Program(USER, f"{name}_pie", (*STATIC_PIE_FLAGS, *USER_SOURCES, source))


def kernel_programs(variant: str) -> Iterable[str]:
    """The ring-0 images of one build of the kernel."""
    if variant in PAGING_VARIANTS:
        return KERNEL_PROGRAMS
    return EVERY_VARIANT[header.VARIANTS[variant].release]


def write_headers(directory: Path) -> None:
    """The generated headers, for each directory of programs one ``include``."""
    for abi in (*header.VARIANTS, USER, CONFORMANCE, PEER, NOMMU, VSYSCALL):
        include = directory / abi / "include"
        include.mkdir(parents=True)
        (include / "hypercall_numbers.h").write_text(hypercalls.header_text(), encoding="ascii")
        for name, text in header_texts(abi).items():
            (include / name).write_text(text, encoding="ascii")


def header_texts(directory: str) -> dict[str, str]:
    """The generated headers of one directory of programs, besides the hypercalls."""
    if directory in header.VARIANTS:
        return {
            "kernel_structs.h": header.header_text(directory),
            "kernel_calls.h": kernel_functions.header_text(),
            "mm_walk_layout.h": mm_walk_layout.header_text(header.VARIANTS[directory]),
            "slab_walk_layout.h": slab_walk_layout.header_text(header.VARIANTS[directory].release),
        }
    if directory == CONFORMANCE:
        return {
            "conformance_layout.h": conformance_layout.header_text(),
            "conformance_table.h": conformance_table.header_text(),
        }
    return {}


def compile_program(program: Program, directory: Path, cache: Path) -> None:
    """Compile and link ``program`` into ``directory``, which holds the generated headers."""
    include = directory / program.directory / "include"
    command = [
        *COMPILER,
        *("-Iinclude", f"-I{include}", "-o", str(directory / program.path)),
        *program.arguments,
    ]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    result = subprocess.run(
        command, cwd=GUEST, env=os.environ | caches, capture_output=True, text=True, check=False
    )
    if result.returncode or result.stderr:
        raise GuestBuildError(f"guest {program.path}: {result.stderr.strip()}")


def install(source: Path, target: Path) -> None:
    """Put each file below ``source`` at its place below ``target``; remove what is left over."""
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for file in sorted(files):
        place = target / file
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".tmp", delete=False) as copy:
            copy.write((source / file).read_bytes())
        os.chmod(copy.name, 0o644)
        os.replace(copy.name, place)
    for path in (*target.rglob("*.elf"), *target.rglob("*.h")):
        if path.relative_to(target) not in files:
            path.unlink(missing_ok=True)


def build_guests(target: Path = BUILT) -> None:
    """Build every guest and install the results below ``target``."""
    with tempfile.TemporaryDirectory(prefix="mmucheck-guests-") as scratch:
        work, cache = Path(scratch, "built"), Path(scratch, "cache")
        write_headers(work)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda program: compile_program(program, work, cache), programs()))
        install(work, target)


if __name__ == "__main__":
    try:
        build_guests()
    except GuestBuildError as error:
        sys.exit(str(error))
