# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-0 guest code calls the kernel: ``kmalloc()`` and its like, run by the model.

The guest's stub (``guest/kernel/kernel_calls.S``) names a
:class:`~harness.kernel_functions.KernelFunction` and the place of its arguments on the stack.
What the model allocates or frees is then as if code of the kernel had asked for it.

Constructors and destructors are functions of the guest. While ``kmem_cache_grow()`` of the model
is in the middle of a new slab, the guest still waits in its hypercall; the model's call of the
constructor starts the CPU once more, nested, at the guest's function, and goes on when that has
returned. So each object is constructed by guest code, at the moment at which Linux does it, and
a constructor may itself fault or call the kernel. It works the same when a page fault reclaims
slabs, and when Python allocates while the CPU rests.

What can fail: :class:`BadCall` where the kernel would follow a pointer to nowhere, or take for a
cache what is none; a :class:`~kernel_model.errors.KernelFault` where it calls ``BUG()``.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

from harness.kernel_functions import KernelFunction
from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.arch_i386.pgtable import PAGE_PCD
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.mm.slab.objects import Constructor

_NUMBERS: Final = {int(function): function for function in KernelFunction}
_MAX_STRING: Final = 256

CallGuest = Callable[..., int]
"""``(address, *arguments)``: runs a function of the guest, returns its EAX."""


class BadCall(MmucheckError):
    """A call that no kernel survives, told in one line."""


class KernelCalls:
    """Serves ``Hypercall.CALL`` for one machine."""

    def __init__(self, kernel: Kernel, call_guest: CallGuest) -> None:
        self._kernel = kernel
        self._call_guest = call_guest
        self.counts = dict.fromkeys(KernelFunction, 0)
        """How often each function was called."""

    def call(self, number: int, arguments: int) -> int:
        """Run function ``number`` with the words at kernel address ``arguments``; its result."""
        function = _NUMBERS.get(number)
        if function is None:
            raise BadCall(f"there is no kernel function {number:#x}")
        if not self._kernel.started:
            raise BadCall(f"{function.symbol}() before start_kernel()")
        words = self._words(function, arguments)
        self.counts[function] += 1
        try:
            values = [self._value(*pair) for pair in zip(function.parameters, words, strict=True)]
            return (_MODEL[function](self._kernel)(*values) or 0) & 0xFFFFFFFF
        except BadCall as error:
            raise BadCall(f"{_written(function, words)}: {error}") from error
        except (IndexError, ValueError, OverflowError) as error:
            # The model's view of RAM was asked for something outside it.
            raise BadCall(
                f"{_written(function, words)}: the kernel follows a pointer to where no low "
                f"memory is ({error})"
            ) from error

    def _words(self, function: KernelFunction, vaddr: int) -> tuple[int, ...]:
        count = len(function.parameters)
        if not self._in_low_memory(vaddr, 4 * count):
            raise BadCall(f"{function.symbol}(): no arguments lie at {vaddr:#x}")
        return struct.unpack(f"<{count}I", self._kernel.ram.read(virt_to_phys(vaddr), 4 * count))

    def _in_low_memory(self, vaddr: int, length: int) -> bool:
        end = int(self._kernel.statics.high_memory)
        inside = vaddr >= PAGE_OFFSET and vaddr + length <= end
        return inside and self._kernel.ram.contains(virt_to_phys(vaddr), length)

    # -- what a word means -------------------------------------------------------------------

    def _value(self, kind: str, word: int) -> Any:
        """An argument of the C type ``kind`` as the model takes it."""
        if kind == "const char *":
            return self._string(word)
        if kind == "kmem_cache_t *":
            return self._cache(word)
        return self._function(word) if kind == "kmem_function_t" else word

    def _string(self, vaddr: int) -> str:
        """A C string; NULL is an empty one, which the kernel refuses by itself."""
        if not vaddr:
            return ""
        if not self._in_low_memory(vaddr, 1):
            raise BadCall(f"no text lies at {vaddr:#x}")
        paddr = virt_to_phys(vaddr)
        text = bytes(self._kernel.ram.bytes[paddr : paddr + _MAX_STRING])
        return text.partition(b"\0")[0].decode("latin-1")

    def _cache(self, cachep: int) -> int:
        """Refuse what is no cache: the kernel would take whatever lies there for one."""
        if all(cache.vaddr != cachep for cache in self._kernel.slab.chain()):
            raise BadCall(f"{cachep:#x} is no cache of the chain")
        return cachep

    def _function(self, vaddr: int) -> Constructor | None:
        """The guest's function at ``vaddr``, callable by the model; caches keep its address."""
        if not vaddr:
            return None

        def call(objp: int, cachep: int, flags: int) -> None:
            self._call_guest(vaddr, objp, cachep, flags)

        self._kernel.slab.objects.functions[vaddr] = call
        return call


def _written(function: KernelFunction, words: tuple[int, ...]) -> str:
    return f"{function.symbol}({', '.join(f'{word:#x}' for word in words)})"


def _ioremap_nocache(kernel: Kernel) -> Callable[[int, int], int]:
    return lambda phys_addr, size: kernel.vmalloc.ioremap(phys_addr, size, PAGE_PCD)


def _free_pages(kernel: Kernel) -> Callable[[int, int], None]:
    """``free_pages()``: NULL is allowed; ``virt_to_page()`` of another address is no frame."""

    def free_pages(addr: int, order: int) -> None:
        if addr and not PAGE_OFFSET <= addr < kernel.statics.high_memory:
            raise BadCall(f"no frame lies at {addr:#x}")
        if addr:
            kernel.allocator.free_pages_at(addr, order)

    return free_pages


_MODEL: Final[dict[KernelFunction, Callable[[Kernel], Callable[..., int | None]]]] = {
    KernelFunction.KMALLOC: lambda kernel: kernel.slab.kmalloc,
    KernelFunction.KFREE: lambda kernel: kernel.slab.kfree,
    KernelFunction.KMEM_FIND_GENERAL_CACHEP: lambda kernel: kernel.slab.kmem_find_general_cachep,
    KernelFunction.KMEM_CACHE_CREATE: lambda kernel: kernel.slab.kmem_cache_create,
    KernelFunction.KMEM_CACHE_DESTROY: lambda kernel: kernel.slab.kmem_cache_destroy,
    KernelFunction.KMEM_CACHE_SHRINK: lambda kernel: kernel.slab.kmem_cache_shrink,
    KernelFunction.KMEM_CACHE_REAP: lambda kernel: kernel.slab.kmem_cache_reap,
    KernelFunction.KMEM_CACHE_ALLOC: lambda kernel: kernel.slab.kmem_cache_alloc,
    KernelFunction.KMEM_CACHE_FREE: lambda kernel: kernel.slab.kmem_cache_free,
    KernelFunction.VMALLOC: lambda kernel: kernel.vmalloc.vmalloc,
    KernelFunction.VMALLOC_DMA: lambda kernel: kernel.vmalloc.vmalloc_dma,
    KernelFunction.VMALLOC_32: lambda kernel: kernel.vmalloc.vmalloc_32,
    KernelFunction.VMALLOC_PROT: lambda kernel: kernel.vmalloc.allocate,
    KernelFunction.VFREE: lambda kernel: kernel.vmalloc.vfree,
    KernelFunction.IOREMAP: lambda kernel: kernel.vmalloc.ioremap,
    KernelFunction.IOREMAP_NOCACHE: _ioremap_nocache,
    KernelFunction.IOREMAP_FLAGS: lambda kernel: kernel.vmalloc.ioremap,
    KernelFunction.IOUNMAP: lambda kernel: kernel.vmalloc.iounmap,
    KernelFunction.GET_FREE_PAGES: lambda kernel: kernel.allocator.get_free_pages,
    KernelFunction.FREE_PAGES: _free_pages,
}
"""The model's function for each number."""
