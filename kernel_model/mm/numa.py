# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines whose memory comes in nodes.

Models linux-2.4.22 ``mm/numa.c``: ``free_area_init_node()``, ``_alloc_pages()`` (book 2.1,
2.4.1). In RAM: a ``pg_data_t`` for each node, with a ``mem_map`` of its own in the node's own
memory. The global ``mem_map`` is then a virtual array that begins at PAGE_OFFSET, and an
index into it is no frame number any more: :class:`NumaMemMap` knows the way between them.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.free_area import free_area_init_core
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.mmzone import MemMap


def node_data(image: KernelImage, nid: int) -> int:
    """``NODE_DATA(nid)``: kernel virtual address of the node's descriptor."""
    if nid == 0:
        return image.symbol("contig_page_data")
    return image.symbol("discontig_page_data") + (nid - 1) * image.structs.pg_data_t.size


def node_bootmem_data(image: KernelImage, nid: int) -> int:
    """The node's ``bootmem_data_t``, a static object as well."""
    if nid == 0:
        return image.symbol("contig_bootmem_data")
    return image.symbol("discontig_bootmem_data") + (nid - 1) * image.structs.bootmem_data_t.size


def free_area_init_node(
    image: KernelImage, bootmem: Bootmem, nid: int, zones_size: Sequence[int], start_paddr: int
) -> None:
    """Make the zones and the ``mem_map`` of one node, and its bitmap of valid addresses."""
    if not image.statics.mem_map:
        image.statics.mem_map = PAGE_OFFSET
    pgdat = node_data(image, nid)
    free_area_init_core(image, bootmem, nid, pgdat, zones_size, start_paddr)
    node: Any = image.at(image.structs.pg_data_t, pgdat)
    node.node_id = nid
    size = ((sum(zones_size) + 7) // 8 + 3) & ~3
    node.valid_addr_bitmap = bootmem.alloc_bootmem_node(pgdat, size)


class NumaMemMap(MemMap):
    """``struct page`` of frames that lie in several nodes."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image)
        self._image = image
        self._starts: list[int] = []
        self._maps: list[int] = []

    def _read_nodes(self) -> None:
        """The nodes by their first frame. Called once, when all of them have a ``mem_map``."""
        names = self._image.constants.fields
        nodes = sorted(
            (int(getattr(node, names.node_start)) >> names.node_start_shift, int(node.node_mem_map))
            for node in nodes_online(self._image)
        )
        self._starts = [start for start, _ in nodes]
        self._maps = [node_map for _, node_map in nodes]

    def page(self, pfn: int) -> int:
        if not self._starts:
            self._read_nodes()
        nid = bisect_right(self._starts, pfn) - 1
        return self._maps[nid] + (pfn - self._starts[nid]) * self.page_bytes

    def pfn(self, page: int) -> int:
        if not self._starts:
            self._read_nodes()
        start, node_map = max(
            (entry for entry in zip(self._starts, self._maps, strict=True) if entry[1] <= page),
            key=lambda entry: entry[1],
        )
        return start + (page - node_map) // self.page_bytes


def nodes_online(image: KernelImage) -> Iterator[Any]:
    """A view of each node's descriptor, in the order of ``pgdat_list``."""
    pgdat = int(image.statics.pgdat_list)
    while pgdat:
        node = image.at(image.structs.pg_data_t, pgdat)
        yield node
        pgdat = int(getattr(node, image.constants.fields.node_next))


class NumaPageAllocator(PageAllocator24):
    """Asks one node after the other, each with its own zonelists."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image, NumaMemMap(image))
        self._round_robin = image.config.round_robin
        self._next = 0
        self.node_id = 0
        """``numa_node_id()``: the node of the current CPU."""

    def _first_node(self, nodes: list[int]) -> int:
        """Where this allocation begins: at home, or at the next node in turn."""
        if not self._round_robin:
            return nodes.index(node_data(self._image, self.node_id))
        first = self._next
        self._next = (first + 1) % len(nodes)
        return first

    def _alloc_pages(self, gfp_mask: int, order: int) -> int:
        """From the first node to the end of ``pgdat_list``, then the rest."""
        nodes = self.pgdats()
        first = self._first_node(nodes)
        for pgdat in nodes[first:] + nodes[:first]:
            if page := self.alloc_pages_pgdat(pgdat, gfp_mask, order):
                return page
        return 0
