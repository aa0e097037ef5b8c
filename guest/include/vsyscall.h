/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page through which programs of 2.6 enter the kernel, and where its functions lie in it. */
#pragma once

#define VSYSCALL_BASE 0xFFFFE000
#define VSYSCALL_TEXT 0x400
#define VSYSCALL_RETURN 0x410
#define VSYSCALL_SIGRETURN 0x420
#define VSYSCALL_RT_SIGRETURN 0x440

/* Where sysexit goes. */
#define SYSENTER_RETURN (VSYSCALL_BASE + VSYSCALL_RETURN)
