# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMAs of address spaces: ``mm/mmap.c`` of linux-2.4.22 and 2.6.11, one long file, by concern.

Views and memory (:mod:`~kernel_model.mm.mmap.areas`), finding (:mod:`~kernel_model.mm.mmap.find`),
linking (:mod:`~kernel_model.mm.mmap.link`), the VMAs of a file
(:mod:`~kernel_model.mm.mmap.mappings`), room (:mod:`~kernel_model.mm.mmap.unmapped_area`), mapping
(:mod:`~kernel_model.mm.mmap.map`), unmapping (:mod:`~kernel_model.mm.mmap.unmap`), the heap
(:mod:`~kernel_model.mm.mmap.brk`), the stack (:mod:`~kernel_model.mm.mmap.stack`), limits
(:mod:`~kernel_model.mm.mmap.limits`), counters (:mod:`~kernel_model.mm.mmap.accounting`). What a
release has of its own, merging, cutting, the end of an address space among it, stands in
:mod:`~kernel_model.mm.mmap.linux_2_4` and :mod:`~kernel_model.mm.mmap.linux_2_6`, which put all of
it together. They meet the page tables in :class:`~kernel_model.mm.mmap.pages.PageOperations`, and
each other in :class:`~kernel_model.mm.mmap.parts.VmaParts`.
"""
