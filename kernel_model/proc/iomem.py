# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/iomem: the tree of physical address ranges.

Models linux-2.4.22 ``kernel/resource.c: get_resource_list()``. Each level is indented by two
blanks. It is empty for a kernel that was configured not to register its memory.
"""

from typing import Any

from kernel_model.kernel import Kernel
from kernel_model.resource import Resources


def text(kernel: Kernel) -> str:
    """The file as Linux prints it."""
    return "".join(f"{line}\n" for entry in data(kernel) for line in _lines(entry, 0))


def _lines(entry: dict[str, Any], level: int) -> list[str]:
    own = f"{'  ' * level}{entry['start']:08x}-{entry['end']:08x} : {entry['name']}"
    return [own, *(line for child in entry["children"] for line in _lines(child, level + 1))]


def data(kernel: Kernel) -> list[dict[str, Any]]:
    """The same as a tree: ``start`` and ``end`` (inclusive) in bytes, ``name``, ``children``."""
    return _children(Resources(kernel.image), kernel.image.symbol("iomem_resource"))


def _children(resources: Resources, parent: int) -> list[dict[str, Any]]:
    return [
        {
            "start": int(resources.view(child).start),
            "end": int(resources.view(child).end),
            "name": resources.name(child),
            "children": _children(resources, child),
        }
        for child in resources.children(parent)
    ]
