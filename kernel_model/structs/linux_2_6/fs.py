# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files, directory entries, inodes and their pages in C, as 2.6 has them.

Models linux-2.6.11 ``include/linux/fs.h`` and ``include/linux/dcache.h``, as far as memory
management looks at them. A file's pages stand in a radix tree, its VMAs in a prio tree.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import (
    ATOMIC,
    INT,
    LONGLONG,
    UCHAR,
    UINT,
    ULONG,
    USHORT,
    CType,
    array,
    pointer,
    struct,
)
from kernel_model.structs.fs import SHMEM_NR_DIRECT, semaphore
from kernel_model.structs.linux_2_6.mm import PRIO_TREE_ROOT
from kernel_model.structs.mm import rw_semaphore
from kernel_model.structs.mmzone import LIST_HEAD, rwlock_t, spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

RA_PREV_PAGE: Final = 4
"""``prev_page`` of ``struct file_ra_state`` as a word of ``f_ra``: the page that was read last."""
RA_PAGES: Final = 7
"""``ra_pages``: how far ahead is read at most."""
RA_MMAP_HIT: Final = 8
RA_MMAP_MISS: Final = 9
"""``mmap_hit`` and ``mmap_miss``: faults that found their page cached, and those that did not."""
NO_PAGE: Final = 0xFFFFFFFF
"""The index of no page, -1."""

DNAME_INLINE_LEN: Final = 36

FILE_OPERATIONS: Final = struct(
    "struct file_operations",
    [
        ("unused_owner_to_compat_ioctl", array(ULONG, 11)),
        ("mmap", pointer("void")),
        ("unused_open_flush", array(ULONG, 2)),
        ("release", pointer("void")),
        ("fsync", pointer("void")),
        ("unused_aio_fsync_to_sendpage", array(ULONG, 7)),
        ("get_unmapped_area", pointer("void")),
        ("unused_check_flags_to_flock", array(ULONG, 3)),
    ],
)

ADDRESS_SPACE_OPERATIONS: Final = struct(
    "struct address_space_operations",
    [
        (name, pointer("void"))
        for name in (
            *("writepage", "readpage", "sync_page", "writepages", "set_page_dirty", "readpages"),
            *("prepare_write", "commit_write", "bmap", "invalidatepage", "releasepage"),
            "direct_IO",
        )
    ],
)

RADIX_TREE_ROOT: Final = struct(
    "struct radix_tree_root", [("height", UINT), ("gfp_mask", INT), ("rnode", pointer("void"))]
)

MAP_SHIFT: Final = 6
MAP_SIZE: Final = 1 << MAP_SHIFT
"""Slots of a node of a radix tree."""
RADIX_TREE_TAGS: Final = 2
RADIX_TREE_NODE: Final = struct(
    "struct radix_tree_node",
    [
        ("count", UINT),
        ("slots", array(pointer("void"), MAP_SIZE)),
        ("tags", array(ULONG, RADIX_TREE_TAGS * MAP_SIZE // 32)),
    ],
)
"""``tags`` has a bit a slot for each tag, the bits of one tag together."""

QSTR: Final = struct(
    "struct qstr", [("hash", UINT), ("len", UINT), ("name", pointer("const unsigned char"))]
)


def address_space(abi: "Abi") -> CType:
    return struct(
        "struct address_space",
        [
            ("host", pointer("struct inode")),
            ("page_tree", RADIX_TREE_ROOT),
            ("tree_lock", rwlock_t(abi)),
            ("i_mmap_writable", UINT),
            ("i_mmap", PRIO_TREE_ROOT),
            ("i_mmap_nonlinear", LIST_HEAD),
            ("i_mmap_lock", spinlock_t(abi)),
            ("truncate_count", UINT),
            ("nrpages", ULONG),
            ("writeback_index", ULONG),
            ("a_ops", pointer("struct address_space_operations")),
            ("flags", ULONG),
            ("backing_dev_info", pointer("void")),
            ("private_lock", spinlock_t(abi)),
            ("private_list", LIST_HEAD),
            ("assoc_mapping", pointer("struct address_space")),
        ],
    )


def file(abi: "Abi") -> CType:
    return struct(
        "struct file",
        [
            ("f_list", LIST_HEAD),
            ("f_dentry", pointer("struct dentry")),
            ("f_vfsmnt", pointer("void")),
            ("f_op", pointer("struct file_operations")),
            ("f_count", ATOMIC),
            ("f_flags", UINT),
            ("f_mode", USHORT),
            ("f_error", INT),
            ("f_pos", LONGLONG),
            ("f_owner_lock", rwlock_t(abi)),
            ("f_owner", array(UINT, 5)),
            ("f_uid", UINT),
            ("f_gid", UINT),
            ("f_ra", array(ULONG, 10)),
            ("f_maxcount", ULONG),
            ("f_version", ULONG),
            ("f_security", pointer("void")),
            ("private_data", pointer("void")),
            ("f_mapping", pointer("struct address_space")),
        ],
    )


def dentry(abi: "Abi") -> CType:
    return struct(
        "struct dentry",
        [
            ("d_count", ATOMIC),
            ("d_flags", UINT),
            ("d_lock", spinlock_t(abi)),
            ("d_inode", pointer("struct inode")),
            ("d_parent", pointer("struct dentry")),
            ("d_name", QSTR),
            ("d_lru", LIST_HEAD),
            ("d_child", LIST_HEAD),
            ("d_subdirs", LIST_HEAD),
            ("d_alias", LIST_HEAD),
            ("d_time", ULONG),
            ("d_op", pointer("void")),
            ("d_sb", pointer("void")),
            ("d_fsdata", pointer("void")),
            ("d_rcu", LIST_HEAD),
            ("d_cookie", pointer("void")),
            ("d_hash", LIST_HEAD),
            ("d_mounted", INT),
            ("d_iname", array(UCHAR, DNAME_INLINE_LEN)),
        ],
    )


def inode(abi: "Abi") -> CType:
    return struct(
        "struct inode",
        [
            ("i_hash", LIST_HEAD),
            ("i_list", LIST_HEAD),
            ("i_sb_list", LIST_HEAD),
            ("i_dentry", LIST_HEAD),
            ("i_ino", ULONG),
            ("i_count", ATOMIC),
            ("i_mode", USHORT),
            ("i_nlink", UINT),
            ("i_uid", UINT),
            ("i_gid", UINT),
            ("i_rdev", UINT),
            ("i_size", LONGLONG),
            *((name, array(ULONG, 2)) for name in ("i_atime", "i_mtime", "i_ctime")),
            ("i_blkbits", UINT),
            ("i_blksize", ULONG),
            ("i_version", ULONG),
            ("i_blocks", ULONG),
            ("i_bytes", USHORT),
            ("i_sock", UCHAR),
            ("i_lock", spinlock_t(abi)),
            ("i_sem", semaphore(abi)),
            ("i_alloc_sem", rw_semaphore(abi)),
            ("i_op", pointer("struct inode_operations")),
            ("i_fop", pointer("struct file_operations")),
            ("i_sb", pointer("void")),
            ("i_flock", pointer("void")),
            ("i_mapping", pointer("struct address_space")),
            ("i_data", address_space(abi)),
            ("i_devices", LIST_HEAD),
            ("i_pipe", pointer("void")),
            ("i_bdev", pointer("void")),
            ("i_cdev", pointer("void")),
            ("i_cindex", INT),
            ("i_generation", UINT),
            ("i_state", ULONG),
            ("dirtied_when", ULONG),
            ("i_flags", UINT),
            ("i_writecount", ATOMIC),
            ("i_security", pointer("void")),
            ("generic_ip", pointer("void")),
            *([("i_size_seqcount", UINT)] if abi.smp else []),
        ],
    )


BACKING_DEV_INFO: Final = struct(
    "struct backing_dev_info",
    [("ra_pages", ULONG), ("state", ULONG), ("memory_backed", INT), ("unused", array(ULONG, 4))],
)
"""What an address space's pages lie on. ``memory_backed``: nowhere else, so nobody writes them."""


def shmem_inode_info(abi: "Abi") -> CType:
    """A shmem file: where the pages are that are swapped out, and the inode itself."""
    return struct(
        "struct shmem_inode_info",
        [
            ("lock", spinlock_t(abi)),
            ("next_index", ULONG),
            ("i_direct", array(ULONG, SHMEM_NR_DIRECT)),
            ("i_indirect", pointer("void *")),
            ("unused_alloced", ULONG),
            ("swapped", ULONG),
            ("flags", ULONG),
            ("list", LIST_HEAD),
            ("vfs_inode", inode(abi)),
        ],
    )
