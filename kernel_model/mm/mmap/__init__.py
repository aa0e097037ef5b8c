# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMAs of address spaces: linux-2.4.22 ``mm/mmap.c``, which is one long file, by concern.

Views and memory (:mod:`~kernel_model.mm.mmap.areas`), finding (:mod:`~kernel_model.mm.mmap.find`),
linking and merging (:mod:`~kernel_model.mm.mmap.link`), room
(:mod:`~kernel_model.mm.mmap.unmapped_area`), mapping (:mod:`~kernel_model.mm.mmap.map`), unmapping
(:mod:`~kernel_model.mm.mmap.unmap`), cutting (:mod:`~kernel_model.mm.mmap.split`), the heap
(:mod:`~kernel_model.mm.mmap.brk`), the stack (:mod:`~kernel_model.mm.mmap.stack`), limits
(:mod:`~kernel_model.mm.mmap.limits`), the end (:mod:`~kernel_model.mm.mmap.exit`). They meet the
page tables in :class:`~kernel_model.mm.mmap.pages.PageOperations`, and each other in
:class:`~kernel_model.mm.address_spaces.AddressSpaces`.
"""
