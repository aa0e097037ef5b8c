# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel functions that ring-0 guest code may call: declared once, as C has them.

For each prototype the build makes a function of that name: ``guest/kernel/kernel_calls.S`` hands
its number and the place of its cdecl arguments to ``Hypercall.CALL``, and
:mod:`harness.kernel_calls` runs the model's function of that name. This module gives C the
header ``kernel_calls.h``, with the prototypes and the flags they take. Nothing here can fail.
"""

import enum
import re
from typing import Final

from kernel_model.arch_i386.pgtable import PAGE_KERNEL, PAGE_KERNEL_NOCACHE, PAGE_PCD
from kernel_model.mm import gfp
from kernel_model.mm.slab import flags as slab

_NAME: Final = re.compile(r"\w+$")


class KernelFunction(enum.IntEnum):
    """What EBX may hold at ``Hypercall.CALL``: a number, and the prototype of the function.

    Every argument and every result is one 32-bit word.
    """

    prototype: str

    def __new__(cls, number: int, prototype: str) -> "KernelFunction":
        function = int.__new__(cls, number)
        function._value_ = number
        function.prototype = prototype
        return function

    KMALLOC = 1, "void *kmalloc(size_t size, int flags)"
    KFREE = 2, "void kfree(const void *objp)"
    KMEM_FIND_GENERAL_CACHEP = (
        3,
        "kmem_cache_t *kmem_find_general_cachep(size_t size, int gfpflags)",
    )
    KMEM_CACHE_CREATE = (
        4,
        "kmem_cache_t *kmem_cache_create(const char *name, size_t size, size_t offset, "
        "unsigned long flags, kmem_function_t ctor, kmem_function_t dtor)",
    )
    KMEM_CACHE_DESTROY = 5, "int kmem_cache_destroy(kmem_cache_t *cachep)"
    KMEM_CACHE_SHRINK = 6, "int kmem_cache_shrink(kmem_cache_t *cachep)"
    KMEM_CACHE_REAP = 7, "int kmem_cache_reap(int gfp_mask)"
    KMEM_CACHE_ALLOC = 8, "void *kmem_cache_alloc(kmem_cache_t *cachep, int flags)"
    KMEM_CACHE_FREE = 9, "void kmem_cache_free(kmem_cache_t *cachep, void *objp)"
    VMALLOC = 10, "void *vmalloc(unsigned long size)"
    VMALLOC_DMA = 11, "void *vmalloc_dma(unsigned long size)"
    VMALLOC_32 = 12, "void *vmalloc_32(unsigned long size)"
    VMALLOC_PROT = 13, "void *__vmalloc(unsigned long size, int gfp_mask, pgprot_t prot)"
    VFREE = 14, "void vfree(void *addr)"
    IOREMAP = 15, "void *ioremap(unsigned long phys_addr, unsigned long size)"
    IOREMAP_NOCACHE = 16, "void *ioremap_nocache(unsigned long phys_addr, unsigned long size)"
    IOREMAP_FLAGS = (
        17,
        "void *__ioremap(unsigned long phys_addr, unsigned long size, unsigned long flags)",
    )
    IOUNMAP = 18, "void iounmap(void *addr)"
    GET_FREE_PAGES = 19, "unsigned long __get_free_pages(unsigned int gfp_mask, unsigned int order)"
    FREE_PAGES = 20, "void free_pages(unsigned long addr, unsigned int order)"

    @property
    def symbol(self) -> str:
        """Its name in C."""
        return self.prototype.partition("(")[0].split()[-1].lstrip("*")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The types of its arguments, as C spells them."""
        inside = self.prototype.partition("(")[2].rstrip(")")
        return tuple(_NAME.sub("", parameter.strip()).strip() for parameter in inside.split(","))


FLAGS: Final[dict[str, int]] = {
    **{name: getattr(gfp, name) for name in ("GFP_ATOMIC", "GFP_KERNEL", "GFP_DMA")},
    "__GFP_HIGHMEM": gfp.GFP_BIT_HIGHMEM,
    "PAGE_KERNEL": PAGE_KERNEL,
    "PAGE_KERNEL_NOCACHE": PAGE_KERNEL_NOCACHE,
    "_PAGE_PCD": PAGE_PCD,
    **{name: value for name, value in vars(slab).items() if name.startswith("SLAB_")},
}
"""The words that these functions take, and that a walk through slabs meets."""


def header_text() -> str:
    """The C and assembly header ``kernel_calls.h``."""
    stubs = [f"\tkernel_call {function.symbol}, {function.value}" for function in KernelFunction]
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/kernel_functions.py. */",
        "#pragma once",
        *(f"#define {name} {value:#x}" for name, value in FLAGS.items()),
        "#ifdef __ASSEMBLER__",
        "/* One line for each function; kernel_calls.S says what a line means. */",
        *(".macro kernel_call_table", *stubs, ".endm"),
        "#else",
        "#include <kernel_structs.h>",
        "typedef unsigned long size_t;",
        "typedef unsigned long pgprot_t;",
        "typedef void (*kmem_function_t)(void *objp, kmem_cache_t *cachep, unsigned long flags);",
        *(f"{function.prototype};" for function in KernelFunction),
        "#endif",
    ]
    return "\n".join(lines) + "\n"
