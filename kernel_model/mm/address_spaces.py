# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMA layer of a machine, put together: every operation by its kernel name.

Models the interface of linux-2.4.22 ``mm/mmap.c``, ``mm/mprotect.c``, ``mm/mremap.c`` and
``mm/mlock.c`` (book chapter 4). An ``mm``, a ``vma`` and a ``file`` are kernel virtual addresses,
0 is NULL; what takes no ``mm`` works on that of the current process. An address or 0 is success,
a number below 0 an error.

The kernel's ``mmap_sem``, ``page_table_lock`` and ``i_shared_lock`` guard all this; nothing sleeps
and nobody else runs here, so they are only laid out.
"""

from collections.abc import Callable

from kernel_model.fs.file_table import Files, ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.mm.advise import Advise
from kernel_model.mm.mlock import Mlock
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.brk import Brk
from kernel_model.mm.mmap.exit import Exit
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.link import Links
from kernel_model.mm.mmap.map import Mapper
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.mm.mmap.split import Splitter
from kernel_model.mm.mmap.stack import Stacks
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.mm.mmap.unmapped_area import UnmappedAreas
from kernel_model.mm.mprotect import Mprotect
from kernel_model.mm.mremap import Mremap
from kernel_model.mm.shmem import ShmemFiles


class AddressSpaces:
    """All address spaces of a machine."""

    def __init__(
        self,
        image: KernelImage,
        slab: ObjectCaches,
        files: Files,
        pages: PageOperations,
        nr_free_pages: Callable[[], int],
        shmem: ShmemFiles | None = None,
    ) -> None:
        self.files = files
        self.pages = pages
        self.areas = areas = Areas(image, slab, files)
        self.limits = limits = Limits(areas, nr_free_pages)
        self.shmem = shmem = shmem or ShmemFiles(image, files, limits.vm_enough_memory)
        finder = Finder(areas)
        self.links = links = Links(areas, finder)
        unmapper = Unmapper(areas, finder, links, pages)
        unmapped = UnmappedAreas(areas, finder)
        mapper = Mapper(areas, finder, links, limits, unmapper, unmapped, shmem, pages)
        brk = Brk(areas, finder, links, limits, unmapper, mapper)
        splitter = Splitter(areas, links)
        mlock = Mlock(areas, finder, limits, splitter, pages)
        stacks = Stacks(areas, finder, limits, pages)

        self.find_vma = finder.find_vma
        self.find_vma_prev = finder.find_vma_prev
        self.find_vma_intersection = finder.find_vma_intersection
        self.find_vma_prepare = finder.find_vma_prepare
        self.find_extend_vma = stacks.find_extend_vma
        self.expand_stack = stacks.expand_stack
        self.get_unmapped_area = unmapped.get_unmapped_area
        self.insert_vm_struct = links.insert_vm_struct
        self.do_mmap = mapper.do_mmap
        self.do_mmap_pgoff = mapper.do_mmap_pgoff
        self.do_munmap = unmapper.do_munmap
        self.do_brk = brk.do_brk
        self.sys_brk = brk.sys_brk
        self.sys_mprotect = Mprotect(areas, finder, links, splitter, pages).sys_mprotect
        self.do_mremap = Mremap(areas, finder, links, limits, unmapper, unmapped, pages).do_mremap
        self.sys_mlock = mlock.sys_mlock
        self.sys_munlock = mlock.sys_munlock
        self.sys_mlockall = mlock.sys_mlockall
        self.sys_munlockall = mlock.sys_munlockall
        self.advise = Advise(areas, finder, splitter)
        self.exit_mmap = Exit(areas, links, pages).exit_mmap
        self.vm_enough_memory = limits.vm_enough_memory
