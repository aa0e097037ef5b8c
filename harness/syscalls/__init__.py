# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's system calls on the i386: ``int $0x80``, number in EAX, result in EAX.

Models linux-2.4.22 ``arch/i386/kernel/entry.S: sys_call_table`` and what stands behind it; a call
that is not in :data:`harness.syscalls.all_calls.ALL_CALLS` returns ``-ENOSYS``. A system call
never raises for what a program passes: a bad pointer is ``-EFAULT``, a bad descriptor ``-EBADF``.
"""
