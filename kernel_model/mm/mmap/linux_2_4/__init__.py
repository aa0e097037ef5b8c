# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMA layer of Linux 2.4.22: its own parts, and how they are put together.

VMAs of a file hang on two lists, only zeros merge, a range is unmapped VMA by VMA and what stays
is put back, nothing is charged against the machine's memory.
"""

from collections.abc import Callable

from kernel_model.fs.file_table import Files, ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.mm import address_spaces
from kernel_model.mm.mlock import Mlock
from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.mm.mmap.anon import NoAnonLinks
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.brk import Brk
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.linux_2_4.exit import Exit
from kernel_model.mm.mmap.linux_2_4.limits import GuessedMemory
from kernel_model.mm.mmap.linux_2_4.link import BuggingLinks
from kernel_model.mm.mmap.linux_2_4.mappings import ShareLists
from kernel_model.mm.mmap.linux_2_4.merge import AnonymousMerging
from kernel_model.mm.mmap.linux_2_4.mprotect import PiecewiseMprotect
from kernel_model.mm.mmap.linux_2_4.mremap import PagesFirstMremap
from kernel_model.mm.mmap.linux_2_4.pages import PageOperations
from kernel_model.mm.mmap.linux_2_4.split import FlagSplitter
from kernel_model.mm.mmap.linux_2_4.unmap import RefittingUnmapper
from kernel_model.mm.mmap.linux_2_4.unmapped_area import FirstFit
from kernel_model.mm.mmap.map import Mapper
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.mm.shmem import ShmemFiles
from kernel_model.structs.mm import VM_DATA_DEFAULT_FLAGS


class AddressSpaces(address_spaces.AddressSpaces):
    """All address spaces of a machine that runs 2.4."""

    def __init__(
        self,
        image: KernelImage,
        slab: ObjectCaches,
        files: Files,
        pages: PageOperations,
        nr_free_pages: Callable[[], int],
        shmem: ShmemFiles | None = None,
    ) -> None:
        areas = Areas(image, slab, files)
        finder, accounting, anon = Finder(areas), Accounting(areas), NoAnonLinks()
        limits = GuessedMemory(areas, nr_free_pages)
        links = BuggingLinks(areas, finder, ShareLists(areas), anon)
        merging, splitter = AnonymousMerging(areas, links), FlagSplitter(areas, links)
        parts = VmaParts(
            data_flags=VM_DATA_DEFAULT_FLAGS,
            areas=areas,
            finder=finder,
            limits=limits,
            accounting=accounting,
            anon=anon,
            links=links,
            merging=merging,
            splitter=splitter,
            unmapper=RefittingUnmapper(areas, finder, accounting, links, pages),
            unmapped=FirstFit(areas, finder),
            shmem=shmem or ShmemFiles(image, files, limits.vm_enough_memory),
            pages=pages,
        )
        mapper = Mapper(parts)
        super().__init__(
            parts,
            mapper=mapper,
            brk=Brk(parts, mapper),
            mprotect=PiecewiseMprotect(parts, merging, splitter),
            mremap=PagesFirstMremap(parts, merging),
            mlock=Mlock(parts),
            exit_mmap=Exit(areas, links.mappings, pages).exit_mmap,
        )
