# SPDX-License-Identifier: GPL-2.0-or-later
"""2.6 on machines whose memory comes in nodes.

Models linux-2.6.11 built with CONFIG_DISCONTIGMEM (book 2.8): each node knows the frame that it
begins with and has a ``mem_map`` of its own; its zonelists go on with the zones of the nodes behind
it, in a ring, so that one look at a list is enough. More bits of ``page->flags`` name the zone.
Allocations begin at the node of the CPU, which here is one that the caller may choose.
"""

from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.mmzone import MemMap26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.numa import NumaMemMap, node_data

NODEZONE_SHIFT = 24
"""Of a kernel for several nodes: 6 bits for the node, 2 for the zone."""


class NodeMemMap26(NumaMemMap, MemMap26):
    """``struct page`` of frames that lie in several nodes."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image)
        self.zone_shift = NODEZONE_SHIFT


class NodePageAllocator26(PageAllocator26):
    """Begins at one node; the zonelist knows where to go on."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image, NodeMemMap26(image))
        self.node_id = 0
        """``numa_node_id()``: the node of the current CPU."""

    def _alloc_pages(self, gfp_mask: int, order: int) -> int:
        return self.alloc_pages_pgdat(node_data(self._image, self.node_id), gfp_mask, order)
