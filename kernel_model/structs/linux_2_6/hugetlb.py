# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages in C: the pool's variables and what a mount of hugetlbfs keeps (book 3.10).

Models the data of linux-2.6.11 ``mm/hugetlb.c``, and ``include/linux/hugetlb.h: struct
hugetlbfs_sb_info``. A super block itself is not modelled: ``inode->i_sb`` points to what hugetlbfs
keeps of it.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import INT, UINT, ULONG, CType, array, struct
from kernel_model.structs.mmzone import LIST_HEAD, spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi, Structs

MAX_NUMNODES: Final = 4
"""Nodes that the pool has lists for, as many as a machine here may have."""


def hugetlbfs_sb_info(abi: "Abi") -> CType:
    """Huge pages and inodes that a mount may have, and has left; -1: no limit."""
    return struct(
        "struct hugetlbfs_sb_info",
        [
            ("max_blocks", INT),
            ("free_blocks", INT),
            ("max_inodes", INT),
            ("free_inodes", INT),
            ("stat_lock", spinlock_t(abi)),
        ],
    )


def hugetlb_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """The pool, the tables of operations of hugetlbfs, and its mount that the kernel itself has."""
    return [
        *((name, ULONG) for name in ("nr_huge_pages", "free_huge_pages", "max_huge_pages")),
        ("hugepage_freelists", array(LIST_HEAD, MAX_NUMNODES)),
        ("nr_huge_pages_node", array(UINT, MAX_NUMNODES)),
        ("free_huge_pages_node", array(UINT, MAX_NUMNODES)),
        ("huge_page_next_nid", INT),
        ("hugetlb_vm_ops", structs.vm_operations_struct),
        ("hugetlbfs_file_operations", structs.file_operations),
        ("hugetlbfs_aops", structs.address_space_operations),
        ("hugetlbfs_inode_operations", structs.inode_operations),
        ("hugetlbfs_kern_sb", structs.hugetlbfs_sb_info),
        ("hugetlbfs_counter", ULONG),
        ("sysctl_hugetlb_shm_group", INT),
    ]
