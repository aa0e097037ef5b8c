# SPDX-License-Identifier: GPL-2.0-or-later
"""System V's shared memory in C.

Models ``include/linux/ipc.h``, ``ipc/util.h`` and ``ipc/shm.c: struct shmid_kernel`` of
linux-2.4.22 and 2.6.11, in 2.6.11's layout without RCU. The table of segments is an array here,
where the kernel lets it grow as far.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import INT, UINT, ULONG, USHORT, CType, array, pointer, struct
from kernel_model.structs.mmzone import spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi, Structs

SHMMNI: Final = 4096
"""Segments that there may be."""


def kern_ipc_perm(abi: "Abi") -> CType:
    """Who made it, who may use it, and by which key it is found."""
    return struct(
        "struct kern_ipc_perm",
        [
            ("lock", spinlock_t(abi)),
            ("deleted", INT),
            ("key", INT),
            *((name, UINT) for name in ("uid", "gid", "cuid", "cgid")),
            ("mode", USHORT),
            ("unused_padding", USHORT),
            ("seq", ULONG),
        ],
    )


def shmid_kernel(abi: "Abi") -> CType:
    return struct(
        "struct shmid_kernel",
        [
            ("shm_perm", kern_ipc_perm(abi)),
            ("shm_file", pointer("struct file")),
            ("id", INT),
            *((name, ULONG) for name in ("shm_nattch", "shm_segsz")),
            *((name, ULONG) for name in ("shm_atim", "shm_dtim", "shm_ctim")),
            *((name, INT) for name in ("shm_cprid", "shm_lprid")),
        ],
    )


IPC_IDS: Final = struct(
    "struct ipc_ids",
    [
        *((name, INT) for name in ("in_use", "max_id")),
        ("seq", USHORT),
        ("seq_max", USHORT),
        ("entries", array(pointer("struct kern_ipc_perm"), SHMMNI)),
    ],
)


def shm_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """The table of segments, their limits, and how they are mapped."""
    return [
        ("shm_ids", structs.ipc_ids),
        ("shm_tot", ULONG),
        *((name, ULONG) for name in ("shm_ctlmax", "shm_ctlall", "shm_ctlmni")),
        ("shm_file_operations", structs.file_operations),
        ("shm_vm_ops", structs.vm_operations_struct),
    ]
