# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of address ranges: who owns which part of the physical address space.

Models linux-2.4.22 ``kernel/resource.c``: ``__request_resource()``, and the static resources of
``arch/i386/kernel/setup.c``. In RAM: a ``struct resource`` for each range, linked by ``parent``,
``sibling`` and ``child``. A resource is named by its kernel virtual address. A request that
overlaps another's range is refused, which callers at boot ignore, as the kernel's do.
"""

from collections.abc import Iterator
from typing import Any, Final

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.image import CODE_BYTES, DATA_BYTES, TEXT, KernelImage

IORESOURCE_MEM: Final = 0x200
IORESOURCE_BUSY: Final = 0x80000000

NAMES: Final = (
    *("PCI mem", "System RAM", "reserved", "ACPI Tables", "ACPI Non-volatile Storage"),
    *("Kernel code", "Kernel data", "Video RAM area", "System ROM"),
)
_TEXT_END: Final = TEXT + CODE_BYTES
_STATIC: Final = (
    ("iomem_resource", "PCI mem", 0, 0xFFFFFFFF, IORESOURCE_MEM),
    ("code_resource", "Kernel code", TEXT, _TEXT_END - 1, 0),
    ("data_resource", "Kernel data", _TEXT_END, _TEXT_END + DATA_BYTES - 1, 0),
    ("vram_resource", "Video RAM area", 0xA0000, 0xBFFFF, IORESOURCE_BUSY),
    ("rom_resources", "System ROM", 0xF0000, 0xFFFFF, IORESOURCE_BUSY),
)


class Resources:
    """The resources of one machine."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._names = image.symbol("resource_names")

    def init_static(self) -> None:
        """Give the static resources, and the names of all, the contents they are linked with."""
        text = b"".join(name.encode() + b"\0" for name in NAMES)
        self._image.ram.write(virt_to_phys(self._names), text)
        for symbol, name, start, end, flags in _STATIC:
            self.init(self._image.symbol(symbol), name, start, end, flags)

    def init(self, resource: int, name: str, start: int, end: int, flags: int) -> None:
        """Fill in a resource that is linked nowhere; bytes ``start`` to ``end``, both inclusive."""
        view = self.view(resource)
        earlier = NAMES[: NAMES.index(name)]
        view.name = self._names + sum(len(other) + 1 for other in earlier)
        view.start, view.end, view.flags = start, end, flags

    def request(self, root: int, new: int) -> bool:
        """``request_resource()``: link ``new`` below ``root``, sorted; False if it overlaps."""
        parent, view = self.view(root), self.view(new)
        if view.end < view.start or view.start < parent.start or view.end > parent.end:
            return False
        before, following = None, int(parent.child)
        while following and self.view(following).start <= view.end:
            if self.view(following).end >= view.start:
                return False
            before, following = self.view(following), int(self.view(following).sibling)
        view.sibling, view.parent = following, root
        if before is None:
            parent.child = new
        else:
            before.sibling = new
        return True

    def children(self, resource: int) -> Iterator[int]:
        """The ranges right below ``resource``, by address."""
        child = int(self.view(resource).child)
        while child:
            yield child
            child = int(self.view(child).sibling)

    def view(self, resource: int) -> Any:
        """The ``struct resource`` at a kernel virtual address."""
        return self._image.at(self._image.structs.resource, resource)

    def name(self, resource: int) -> str:
        """The C string that ``name`` points to."""
        paddr = virt_to_phys(int(self.view(resource).name))
        longest = max(map(len, NAMES)) + 1
        return self._image.ram.read(paddr, longest).partition(b"\0")[0].decode("ascii")
