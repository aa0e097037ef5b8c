# SPDX-License-Identifier: GPL-2.0-or-later
"""2.6 on machines whose memory comes in nodes.

Models linux-2.6.11 built with CONFIG_DISCONTIGMEM and CONFIG_NUMA, of which i386 has no one without
the other (book 2.8): each node knows the frame that it begins with and has a ``mem_map`` of its
own; its zonelists go on with the zones of the nodes behind it, in a ring, so that one look at a
list is enough. More bits of ``page->flags`` name the zone. ``alloc_pages_node()`` begins at a node,
``alloc_pages()`` at that of the CPU. In RAM: ``cpu_2_node``; in each zone, for each CPU, how often
memory came from where it was wanted (``zone_statistics()``).

Of the policies of processes (``mm/mempolicy.c``) there is the one that the kernel itself has while
it boots: it takes turns over the nodes, so that not all its structures lie on node 0.
"""

from typing import Any

from kernel_model.arch_i386.page import PAGE_SHIFT, phys_to_virt
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.mmzone import ZONES_SHIFT, MemMap26, Zone26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.numa import NumaMemMap, node_data
from kernel_model.structs.mmzone import MAX_NR_ZONES

NODEZONE_SHIFT = 24
"""Of a kernel for several nodes: 6 bits for the node, 2 for the zone."""


def map_cpus_to_nodes(image: KernelImage) -> None:
    """``map_cpu_to_node()`` for each CPU: they are shared out over the nodes, one after the other.

    i386 does this when it starts its CPUs. The zonelists stand by then, so that they do not, as
    elsewhere, avoid nodes that have CPUs.
    """
    for cpu in range(image.config.nr_cpus):
        image.statics.cpu_2_node[cpu] = cpu % image.config.nodes


def node_zones(image: KernelImage) -> list[Zone26]:
    """The zones of the current CPU's node."""
    cpu, first = int(image.current_task.processor), int(image.statics.pgdat_list)
    if image.config.nodes > 1:
        first = node_data(image, int(image.statics.cpu_2_node[cpu]))
    size = image.structs.zone_t.size
    return [Zone26(image, first + index * size) for index in range(MAX_NR_ZONES)]


class NodeMemMap26(NumaMemMap, MemMap26):
    """``struct page`` of frames that lie in several nodes."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image)
        self.zone_shift = NODEZONE_SHIFT

    def page_to_nid(self, page: int) -> int:
        """The node of a frame, from the top bits of its flags."""
        return self.flags(page) >> NODEZONE_SHIFT + ZONES_SHIFT


class NodePageAllocator26(PageAllocator26):
    """Begins at one node; the zonelist knows where to go on."""

    memmap: NodeMemMap26

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image, NodeMemMap26(image))
        self._interleaves = False
        self._il_next = 0

    def cpu_to_node(self, cpu: int) -> int:
        """``cpu_to_node()``."""
        return int(self._image.statics.cpu_2_node[cpu])

    @property
    def node_id(self) -> int:
        """``numa_node_id()``: the node of the current CPU. To set it moves the CPU."""
        return self.cpu_to_node(int(self._image.current_task.processor))

    @node_id.setter
    def node_id(self, nid: int) -> None:
        self._image.statics.cpu_2_node[int(self._image.current_task.processor)] = nid

    def numa_policy_init(self) -> None:
        """From now on this process takes turns over the nodes."""
        self._interleaves, self._il_next = True, 0

    def numa_default_policy(self) -> None:
        """The machine is up: memory is wanted from the CPU's own node."""
        self._interleaves = False

    def _alloc_pages(self, gfp_mask: int, order: int) -> int:
        if self._interleaves:
            return self._alloc_page_interleave(gfp_mask, order)
        return self.alloc_pages_pgdat(node_data(self._image, self.node_id), gfp_mask, order)

    def _alloc_page_interleave(self, gfp_mask: int, order: int) -> int:
        """From the next node in turn; that counts where its best zone could serve."""
        nid = self._il_next
        self._il_next = (nid + 1) % self._image.config.nodes
        pgdat = node_data(self._image, nid)
        page = self.alloc_pages_pgdat(pgdat, gfp_mask, order)
        zonelist = pgdat + self._zonelists + (gfp_mask & self._zonemask) * self._zonelist_bytes
        if page and self._zone_of(page) == self.zones_of(zonelist)[0].vaddr:
            self._counters(self._zone_of(page)).interleave_hit += 1
        return page

    def alloc_pages_node(self, nid: int, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        """Frames of a node, or, when it has none left, of those behind it."""
        if order >= self._max_order:
            return 0
        page = self.alloc_pages_pgdat(node_data(self._image, nid), gfp_mask, order)
        if page:
            self._events.frame_taken(self.memmap.pfn(page), order, purpose)
        return page

    def alloc_pages_zonelist(self, gfp_mask: int, order: int, zonelist: int) -> int:
        page = super().alloc_pages_zonelist(gfp_mask, order, zonelist)
        if page:
            self._zone_statistics(self.zones_of(zonelist)[0].vaddr, self._zone_of(page))
        return page

    def _zone_statistics(self, wanted: int, found: int) -> None:
        """Count where memory came from, and whether a better place had been wanted."""
        counters, intended = self._counters(found), self._counters(wanted)
        nid = int(self.zone(found).view.zone_pgdat)
        if nid == int(self.zone(wanted).view.zone_pgdat):
            counters.numa_hit += 1
        else:
            counters.numa_miss += 1
            intended.numa_foreign += 1
        if nid == node_data(self._image, self.node_id):
            counters.local_node += 1
        else:
            counters.other_node += 1

    def _counters(self, zone: int) -> Any:
        """What the current CPU counts of a zone."""
        return self.zone(zone).view.pageset[int(self._image.current_task.processor)]


class PagesOfNode:
    """Where a new slab of ``kmem_cache_alloc_node()`` comes from."""

    def __init__(self, allocator: NodePageAllocator26, nid: int) -> None:
        self._allocator = allocator
        self._nid = nid

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        """Kernel virtual address of frames, of this node if it has any; 0: there are none."""
        page = self._allocator.alloc_pages_node(self._nid, gfp_mask, order, purpose)
        return phys_to_virt(self._allocator.memmap.pfn(page) << PAGE_SHIFT) if page else 0

    def free_pages_at(self, vaddr: int, order: int) -> None:
        """Give them back, to the node that they are of."""
        self._allocator.free_pages_at(vaddr, order)
