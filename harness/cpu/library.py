# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn's C library, called without the detours of its Python wrapper.

What a page fault costs is decided here: the wrapper allocates objects and releases the GIL in
every call, so the functions of the hot paths are taken from the library a second time,
through ``PyDLL``. Keeping the GIL also makes a call atomic towards the watching thread
(:mod:`harness.cpu.watch`). Only ``uc_emu_start`` for the guest itself releases it.

What can fail: nothing raises here; every function returns Unicorn's error number, 0 for success.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

from unicorn import unicorn_const as const
from unicorn.unicorn_py3.unicorn import uclib

_held: Final = ctypes.PyDLL(None, handle=uclib._handle)
_released: Final = ctypes.CDLL(None, handle=uclib._handle)

_ctl_write: Final = const.UC_CTL_IO_WRITE << 30
CTL_TLB_FLUSH: Final = _ctl_write | const.UC_CTL_TLB_FLUSH
CTL_TB_FLUSH: Final = _ctl_write | const.UC_CTL_TB_FLUSH
CTL_TB_REMOVE: Final = _ctl_write | (2 << 26) | const.UC_CTL_TB_REMOVE_CACHE

CpuidHook: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
InterruptHook: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
InvalidInstructionHook: Final = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
OutHook: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p
)
InHook: Final = ctypes.CFUNCTYPE(
    ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
)
SystemEnterHook: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
UnmappedHook: Final = ctypes.CFUNCTYPE(
    ctypes.c_bool,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_void_p,
)

Function = Callable[..., int]


def _function(library: ctypes.CDLL, name: str, *argtypes: Any) -> Function:
    function = library[name]
    function.restype = ctypes.c_int
    if argtypes:
        function.argtypes = argtypes
    return function


# Without argtypes ctypes converts nothing, which halves the cost of a call: callers pass
# ctypes objects made once.
context_save: Final = _function(_held, "uc_context_save")
context_restore: Final = _function(_held, "uc_context_restore")
reg_read: Final = _function(_held, "uc_reg_read")
reg_write: Final = _function(_held, "uc_reg_write")
control: Final = _function(_held, "uc_ctl")
stop: Final = _function(_held, "uc_emu_stop")

translate: Final = _function(
    _held, "uc_vmem_translate", ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p
)
_start_types = (ctypes.c_void_p, *[ctypes.c_uint64] * 3, ctypes.c_size_t)
start_held: Final = _function(_held, "uc_emu_start", *_start_types)
"""Run with the GIL held: for a few instructions inside a hook."""
start: Final = _function(_released, "uc_emu_start", *_start_types)


def add_hook(handle: ctypes.c_void_p, kind: int, callback: Any, span: tuple[int, int]) -> None:
    """Register a C callback for the addresses ``span``, both ends included."""
    _hook_add(handle, kind, callback, span)


def add_instruction_hook(handle: ctypes.c_void_p, instruction: int, callback: Any) -> None:
    """Register a C callback for an instruction (``UC_X86_INS_*``) that has such hooks."""
    _hook_add(handle, const.UC_HOOK_INSN, callback, (1, 0), ctypes.c_int(instruction))


def _hook_add(
    handle: ctypes.c_void_p, kind: int, callback: Any, span: tuple[int, int], *more: ctypes.c_int
) -> None:
    cookie = ctypes.c_size_t()
    address = ctypes.cast(callback, ctypes.c_void_p)
    begin, end = (ctypes.c_uint64(edge) for edge in span)
    error = _held.uc_hook_add(
        handle, ctypes.byref(cookie), ctypes.c_int(kind), address, None, begin, end, *more
    )
    if error:
        raise OSError(f"uc_hook_add failed with error {error}")
