# SPDX-License-Identifier: GPL-2.0-or-later
"""Reverse mapping: from a frame to the PTEs that name it.

Models ``mm/rmap.c`` of linux-2.6.11 and, as the book describes it, of 2.6.0 (book 3.10). Two
implementations keep the same books (:mod:`~kernel_model.mm.rmap.interface`): object-based
(:mod:`~kernel_model.mm.rmap.object_based`, :mod:`~kernel_model.mm.rmap.anon_vma`) and chains of
PTEs (:mod:`~kernel_model.mm.rmap.pte_chain`). 2.4 keeps none (:mod:`~kernel_model.mm.rmap.none`).
"""
