# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files, directory entries, inodes and their pages, in C.

Models linux-2.4.22 ``include/linux/fs.h`` and ``include/linux/dcache.h``, as far as memory
management looks at them. Fields that nobody here uses are gathered into arrays (``unused_*``),
so that the others stand where the kernel has them.
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
from kernel_model.structs.mm import rw_semaphore
from kernel_model.structs.mmzone import LIST_HEAD, spinlock_t, wait_queue_head_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

FMODE_READ: Final = 1
FMODE_WRITE: Final = 2

S_APPEND: Final = 4
"""``inode->i_flags``: writes only add to the end of the file."""

FILE_OPERATIONS: Final = struct(
    "struct file_operations",
    [
        ("unused_owner_to_ioctl", array(ULONG, 7)),
        ("mmap", pointer("void")),
        ("unused_open_flush", array(ULONG, 2)),
        ("release", pointer("void")),
        ("fsync", pointer("void")),
        ("unused_fasync_to_sendpage", array(ULONG, 5)),
        ("get_unmapped_area", pointer("void")),
    ],
)

ADDRESS_SPACE_OPERATIONS: Final = struct(
    "struct address_space_operations",
    [
        ("writepage", pointer("void")),
        ("readpage", pointer("void")),
        ("sync_page", pointer("void")),
        ("prepare_write", pointer("void")),
        ("commit_write", pointer("void")),
        ("bmap", pointer("void")),
        ("flushpage", pointer("void")),
        ("releasepage", pointer("void")),
        ("direct_IO", pointer("void")),
        ("direct_fileIO", pointer("void")),
        ("removepage", pointer("void")),
    ],
)

FILE: Final = struct(
    "struct file",
    [
        ("f_list", LIST_HEAD),
        ("f_dentry", pointer("struct dentry")),
        ("f_vfsmnt", pointer("void")),
        ("f_op", pointer("struct file_operations")),
        ("f_count", ATOMIC),
        ("f_flags", UINT),
        ("f_mode", USHORT),
        ("f_pos", LONGLONG),
        ("f_reada", ULONG),
        ("f_ramax", ULONG),
        ("f_raend", ULONG),
        ("f_ralen", ULONG),
        ("f_rawin", ULONG),
        ("f_owner", array(UINT, 4)),
        ("f_uid", UINT),
        ("f_gid", UINT),
        ("f_error", INT),
        ("f_version", ULONG),
        ("private_data", pointer("void")),
        ("f_iobuf", pointer("void")),
        ("f_iobuf_lock", ULONG),
    ],
)

QSTR: Final = struct(
    "struct qstr", [("name", pointer("const unsigned char")), ("len", UINT), ("hash", UINT)]
)
DNAME_INLINE_LEN: Final = 16

DENTRY: Final = struct(
    "struct dentry",
    [
        ("d_count", ATOMIC),
        ("d_flags", UINT),
        ("d_inode", pointer("struct inode")),
        ("d_parent", pointer("struct dentry")),
        ("d_hash", LIST_HEAD),
        ("d_lru", LIST_HEAD),
        ("d_child", LIST_HEAD),
        ("d_subdirs", LIST_HEAD),
        ("d_alias", LIST_HEAD),
        ("d_mounted", INT),
        ("d_name", QSTR),
        ("d_time", ULONG),
        ("d_op", pointer("void")),
        ("d_sb", pointer("void")),
        ("d_vfs_flags", ULONG),
        ("d_fsdata", pointer("void")),
        ("d_iname", array(UCHAR, DNAME_INLINE_LEN)),
    ],
)

DENTRY_STAT: Final = struct(
    "struct dentry_stat_t",
    [("nr_dentry", INT), ("nr_unused", INT), ("age_limit", INT), ("dummy", array(INT, 3))],
)
INODES_STAT: Final = struct(
    "struct inodes_stat_t", [("nr_inodes", INT), ("nr_unused", INT), ("dummy", array(INT, 5))]
)


INODE_OPERATIONS: Final = struct(
    "struct inode_operations",
    [
        ("unused_create_to_follow_link", array(ULONG, 11)),
        ("truncate", pointer("void")),
        ("unused_permission_to_removexattr", array(ULONG, 8)),
    ],
)

SHMEM_NR_DIRECT: Final = 16
"""Swap entries that a shmem inode has room for by itself."""


def shmem_inode_info(abi: "Abi") -> CType:
    """What a shmem inode keeps in its union: where the pages are that are swapped out."""
    return struct(
        "struct shmem_inode_info",
        [
            ("lock", spinlock_t(abi)),
            ("next_index", ULONG),
            ("i_direct", array(ULONG, SHMEM_NR_DIRECT)),
            ("i_indirect", pointer("void *")),
            ("swapped", ULONG),
            ("flags", ULONG),
            ("list", LIST_HEAD),
            ("inode", pointer("struct inode")),
        ],
    )


def shmem_sb_info(abi: "Abi") -> CType:
    """What all shmem inodes together may take, and what is left of it."""
    return struct(
        "struct shmem_sb_info",
        [
            ("max_blocks", ULONG),
            ("free_blocks", ULONG),
            ("max_inodes", ULONG),
            ("free_inodes", ULONG),
            ("stat_lock", spinlock_t(abi)),
        ],
    )


def address_space(abi: "Abi") -> CType:
    return struct(
        "struct address_space",
        [
            ("clean_pages", LIST_HEAD),
            ("dirty_pages", LIST_HEAD),
            ("locked_pages", LIST_HEAD),
            ("nrpages", ULONG),
            ("a_ops", pointer("struct address_space_operations")),
            ("host", pointer("struct inode")),
            ("i_mmap", pointer("struct vm_area_struct")),
            ("i_mmap_shared", pointer("struct vm_area_struct")),
            ("i_shared_lock", spinlock_t(abi)),
            ("gfp_mask", INT),
        ],
    )


def semaphore(abi: "Abi") -> CType:
    return struct(
        "struct semaphore",
        [("count", ATOMIC), ("sleepers", INT), ("wait", wait_queue_head_t(abi))],
    )


def inode(abi: "Abi") -> CType:
    """The union at the end, ``u``, is what each file system keeps for itself."""
    return struct(
        "struct inode",
        [
            ("i_hash", LIST_HEAD),
            ("i_list", LIST_HEAD),
            ("i_dentry", LIST_HEAD),
            ("i_dirty_buffers", LIST_HEAD),
            ("i_dirty_data_buffers", LIST_HEAD),
            ("i_ino", ULONG),
            ("i_count", ATOMIC),
            ("i_dev", USHORT),
            ("i_mode", USHORT),
            ("i_nlink", USHORT),
            ("i_uid", UINT),
            ("i_gid", UINT),
            ("i_rdev", USHORT),
            ("i_size", LONGLONG),
            ("i_atime", INT),
            ("i_mtime", INT),
            ("i_ctime", INT),
            ("i_blkbits", UINT),
            ("i_blksize", ULONG),
            ("i_blocks", ULONG),
            ("i_version", ULONG),
            ("i_bytes", USHORT),
            ("i_sem", semaphore(abi)),
            ("i_alloc_sem", rw_semaphore(abi)),
            ("i_zombie", semaphore(abi)),
            ("i_op", pointer("struct inode_operations")),
            ("i_fop", pointer("struct file_operations")),
            ("i_sb", pointer("void")),
            ("i_wait", wait_queue_head_t(abi)),
            ("i_flock", pointer("void")),
            ("i_mapping", pointer("struct address_space")),
            ("i_data", address_space(abi)),
            ("i_dquot", array(pointer("void"), 2)),
            ("i_devices", LIST_HEAD),
            ("i_pipe", pointer("void")),
            ("i_bdev", pointer("void")),
            ("i_cdev", pointer("void")),
            ("i_dnotify_mask", ULONG),
            ("i_dnotify", pointer("void")),
            ("i_state", ULONG),
            ("i_flags", UINT),
            ("i_sock", UCHAR),
            ("i_writecount", ATOMIC),
            ("i_attr_flags", UINT),
            ("i_generation", UINT),
            ("u", array(ULONG, 44)),
        ],
    )
