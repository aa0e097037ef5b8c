# SPDX-License-Identifier: GPL-2.0-or-later
"""The C header for guest programs, generated from the declarations.

What the model lays out in RAM and what guest code reads come from one declaration; the
header also carries each size and offset as Python computed it, so that the C compiler can
hold them against its own (``_Static_assert``), and the addresses of the static objects.
"""

import argparse
from pathlib import Path
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.structs import Abi, CType, Structs
from kernel_model.structs.statics import INIT_TASK_UNION, STATICS, THREAD_SIZE

VARIANTS: Final[dict[str, Abi]] = {
    "nohm": Abi(),
    "hm": Abi(highmem=True),
    "pae": Abi(highmem=True, pae=True),
    "smp": Abi(smp=True, spinlock_bytes=4, nr_cpus=2),
    "debug": Abi(debug_slab=True),
    "nohm_2_6": Abi(release="2.6"),
    "hm_2_6": Abi(release="2.6", highmem=True),
    "pae_2_6": Abi(release="2.6", highmem=True, pae=True),
    "smp_2_6": Abi(release="2.6", smp=True, spinlock_bytes=4, nr_cpus=2),
    "debug_2_6": Abi(release="2.6", debug_slab=True),
    "nodes_2_6": Abi(release="2.6", discontig=True),
    "nodes_smp_2_6": Abi(release="2.6", discontig=True, smp=True, spinlock_bytes=4, nr_cpus=2),
}
"""The builds for which guests are compiled: no highmem, 4 GiB, 64 GiB; two CPUs; and
CONFIG_DEBUG_SLAB; all of them for 2.6, too, and that for several nodes, with one CPU and two."""

_PREAMBLE: Final = """\
/* SPDX-License-Identifier: GPL-2.0-or-later
 * Generated from kernel_model/structs for the build "{variant}". */
#ifndef KERNEL_STRUCTS_H
#define KERNEL_STRUCTS_H

#define PAGE_OFFSET 0x{page_offset:08X}u
#define KERNEL_STATICS 0x{statics:08X}u
#define KERNEL_STACK 0x{stack:08X}u
#define THREAD_SIZE {thread_size}
{config}
"""


def _tag(kind: CType) -> str:
    """The name that identifies a structure in macro names: ``page``, ``zone_t``."""
    return kind.spelling.removeprefix("struct ")


def _struct_name(kind: CType) -> str:
    """``struct page`` as it is; the structure behind a typedef, as the kernel calls it."""
    if kind.spelling.startswith("struct "):
        return kind.spelling
    return "struct pglist_data" if kind.spelling == "pg_data_t" else f"struct {kind.spelling}"


def _forward(kind: CType) -> str:
    name = _struct_name(kind)
    return f"{name};\n" if name == kind.spelling else f"typedef {name} {kind.spelling};\n"


def definition(kind: CType) -> str:
    """``kind`` and its fields in C."""
    body = "".join(f"\t{member.declaration(name)};\n" for name, member in kind.members)
    return f"{_struct_name(kind)} {{\n{body}}};\n"


def checks(kind: CType) -> str:
    """Assertions that the C compiler gives ``kind`` the size and offsets it has here."""
    lines = [f'_Static_assert(sizeof({kind.spelling}) == {kind.size}, "{_tag(kind)}");']
    lines += [
        f"_Static_assert(__builtin_offsetof({kind.spelling}, {name}) == {kind.offset(name)}, "
        f'"{_tag(kind)}.{name}");'
        for name, _ in kind.members
    ]
    return "\n".join(lines) + "\n"


def _layout_table(kinds: list[CType]) -> str:
    """Rows for a guest that checks the layout at run time, as compiled and as declared."""
    rows = [f'\tX(sizeof({k.spelling}), {k.size}, "sizeof({_tag(k)})") \\' for k in kinds]
    rows += [
        f'\tX(__builtin_offsetof({k.spelling}, {name}), {k.offset(name)}, "{_tag(k)}.{name}") \\'
        for k in kinds
        for name, _ in k.members
    ]
    return "#define KERNEL_LAYOUT_ROWS(X) \\\n" + "\n".join(rows) + "\n\n"


def header_text(variant: str) -> str:
    """The text of ``kernel_structs.h`` for one of :data:`VARIANTS`."""
    abi = VARIANTS[variant]
    structs = Structs.of(abi)
    kinds = structs.all()
    options = [
        f"#define {name} 1"
        for name, on in (
            ("CONFIG_HIGHMEM", abi.highmem),
            ("CONFIG_X86_PAE", abi.pae),
            ("CONFIG_SMP", abi.smp),
            ("CONFIG_DEBUG_SLAB", abi.debug_slab),
            ("LINUX_2_6", abi.release == "2.6"),
        )
        if on
    ]
    text = _PREAMBLE.format(
        variant=variant,
        page_offset=PAGE_OFFSET,
        statics=PAGE_OFFSET + STATICS,
        stack=PAGE_OFFSET + INIT_TASK_UNION,
        thread_size=THREAD_SIZE,
        config="\n".join(options),
    )
    symbols = "".join(
        f"#define SYM_{name} 0x{PAGE_OFFSET + STATICS + structs.kernel_statics.offset(name):08X}u\n"
        for name, _ in structs.kernel_statics.members
    )
    symbols += "".join(
        f"#define TASK_{name} {structs.task_struct.offset(name)}\n"
        for name, _ in structs.task_struct.members
    )
    forward = "".join(_forward(kind) for kind in kinds)
    definitions = "\n".join(definition(kind) for kind in kinds)
    assertions = "\n".join(checks(kind) for kind in kinds)
    return (
        f"{text}{symbols}\n#ifndef __ASSEMBLER__\ntypedef int atomic_t;\n{forward}\n{definitions}\n"
        f"#define statics ((struct kernel_statics *)KERNEL_STATICS)\n\n{assertions}\n"
        f"{_layout_table(kinds)}#endif\n#endif\n"
    )


def main() -> None:
    """``python -m kernel_model.structs.header VARIANT FILE`` writes the header."""
    parser = argparse.ArgumentParser(description="write the guests' kernel_structs.h")
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    options.file.write_text(header_text(options.variant), encoding="ascii")


if __name__ == "__main__":
    main()
