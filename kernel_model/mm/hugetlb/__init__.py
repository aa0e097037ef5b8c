# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages: user memory that takes one entry of the TLB for 4 MiB, or for 2 MiB with PAE.

Models linux-2.6.11 ``mm/hugetlb.c`` and ``arch/i386/mm/hugetlbpage.c`` (book 3.10): where huge
pages come from (:mod:`~kernel_model.mm.hugetlb.pool`), and the page-directory entries that map
them (:mod:`~kernel_model.mm.hugetlb.tables`). Files of huge pages are
:mod:`kernel_model.fs.hugetlbfs`; the VMAs that map them have ``VM_HUGETLB``, and whoever walks the
page tables of a VMA asks for that.
"""
