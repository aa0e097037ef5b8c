# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMA layer of Linux 2.6.11: its own parts, and how they are put together (book 4.8).

VMAs of a file stand in a prio tree, those of files merge too, ranges are unmapped by cutting VMAs
first, what a mapping may come to need is charged, and pages that are no file's find their VMAs.
"""

from collections.abc import Callable

from kernel_model.fs.file_table import Files, ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.mm import address_spaces
from kernel_model.mm.address_spaces import RemapFilePages
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.linux_2_6.accounting import DetailedAccounting
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.linux_2_6.find import LastKnownFinder
from kernel_model.mm.mmap.linux_2_6.limits import CommittedMemory
from kernel_model.mm.mmap.linux_2_6.link import RefusingLinks
from kernel_model.mm.mmap.linux_2_6.map import PopulatingMapper, UserSpaceBrk
from kernel_model.mm.mmap.linux_2_6.mappings import MappingTrees
from kernel_model.mm.mmap.linux_2_6.merge import OffsetMerging
from kernel_model.mm.mmap.linux_2_6.mlock import UnprivilegedMlock
from kernel_model.mm.mmap.linux_2_6.mprotect import MergingMprotect
from kernel_model.mm.mmap.linux_2_6.mremap import VmaFirstMremap
from kernel_model.mm.mmap.linux_2_6.neighbours import Neighbours
from kernel_model.mm.mmap.linux_2_6.pages import PageOperations
from kernel_model.mm.mmap.linux_2_6.remap import FileRemapper
from kernel_model.mm.mmap.linux_2_6.unmap import CuttingUnmapper
from kernel_model.mm.mmap.linux_2_6.unmapped_area import RememberedSearch
from kernel_model.mm.mmap.parts import SharedZeros, VmaParts
from kernel_model.mm.rmap.anon_vma import AnonVmas
from kernel_model.mm.shmem.linux_2_6 import ChargedShmemFiles
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT, VM_DATA_DEFAULT_FLAGS


class AddressSpaces(address_spaces.AddressSpaces):
    """All address spaces of a machine that runs 2.6."""

    def __init__(
        self,
        image: KernelImage,
        slab: ObjectCaches,
        files: Files,
        pages: PageOperations,
        nr_free_pages: Callable[[], int],
        shmem: SharedZeros | None = None,
        remap_file_pages: RemapFilePages | None = None,
    ) -> None:
        areas = Areas(image, slab, files)
        finder, accounting = LastKnownFinder(areas), DetailedAccounting(areas)
        limits, unmapped = CommittedMemory(areas, nr_free_pages), RememberedSearch(areas, finder)
        neighbours = Neighbours(areas, finder)
        self.anon_vmas = AnonVmas(areas, slab, neighbours.find_mergeable_anon_vma)
        self.mappings = MappingTrees(areas)
        links = RefusingLinks(areas, finder, self.mappings, self.anon_vmas)
        adjuster = Adjuster(areas, links)
        merging = OffsetMerging(areas, neighbours, adjuster)
        unmapper = CuttingUnmapper(
            areas, finder, limits, accounting, links, adjuster, unmapped, pages
        )
        parts = VmaParts(
            data_flags=VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT,
            areas=areas,
            finder=finder,
            limits=limits,
            accounting=accounting,
            anon=self.anon_vmas,
            links=links,
            merging=merging,
            splitter=adjuster,
            unmapper=unmapper,
            unmapped=unmapped,
            shmem=shmem or ChargedShmemFiles(image, files, limits),
            pages=pages,
        )
        remapper = FileRemapper(areas, finder, self.mappings)
        remap = remap_file_pages or remapper.sys_remap_file_pages
        self.hugetlb_get_unmapped_area = unmapped.hugetlb_get_unmapped_area
        self.arch_pick_mmap_layout = unmapped.arch_pick_mmap_layout
        mapper = PopulatingMapper(parts, limits, remap, pages)
        super().__init__(
            parts,
            mapper=mapper,
            brk=UserSpaceBrk(parts, mapper),
            mprotect=MergingMprotect(parts, merging, adjuster),
            mremap=VmaFirstMremap(parts, adjuster),
            mlock=UnprivilegedMlock(parts),
            exit_mmap=unmapper.exit_mmap,
            remap_file_pages=remap,
        )
