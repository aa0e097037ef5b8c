/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the signal programs share. Each prints what it sees, one fact a line, the same on every
 * Linux: their output on the host's kernel is what they must print on the model.
 */
#pragma once

#include "syscalls.h"

#define SYS_fork 2
#define SYS_read 3
#define SYS_getpid 20
#define SYS_pause 29
#define SYS_kill 37
#define SYS_pipe 42
#define SYS_signal 48
#define SYS_sigaction 67
#define SYS_sgetmask 68
#define SYS_ssetmask 69
#define SYS_sigsuspend 72
#define SYS_sigpending 73
#define SYS_mmap 90
#define SYS_setitimer 104
#define SYS_getitimer 105
#define SYS_wait4 114
#define SYS_sigreturn 119
#define SYS_sigprocmask 126
#define SYS_sched_yield 158
#define SYS_nanosleep 162
#define SYS_rt_sigreturn 173
#define SYS_rt_sigaction 174
#define SYS_rt_sigprocmask 175
#define SYS_rt_sigpending 176
#define SYS_rt_sigtimedwait 177
#define SYS_rt_sigqueueinfo 178
#define SYS_rt_sigsuspend 179
#define SYS_sigaltstack 186
#define SYS_tkill 238

enum {
	SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7,
	SIGFPE = 8, SIGKILL = 9, SIGUSR1 = 10, SIGSEGV = 11, SIGUSR2 = 12, SIGPIPE = 13, SIGALRM = 14,
	SIGTERM = 15, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGWINCH = 28,
};

#define SIG_DFL 0
#define SIG_IGN 1
#define SIG_BLOCK 0
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2
#define SA_NOCLDSTOP 1
#define SA_NOCLDWAIT 2
#define SA_SIGINFO 4
#define SA_ONSTACK 0x08000000
#define SA_RESTART 0x10000000
#define SA_NODEFER 0x40000000
#define SA_RESETHAND 0x80000000

#define BIT(signal) (1u << ((signal) - 1))

struct sigset { u32 low, high; };
struct sigaction { u32 handler, flags, restorer; struct sigset mask; };
struct altstack { u32 sp, flags, size; };

struct siginfo { int signo, error, code; u32 field[29]; };

struct sigcontext {
	u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax;
	u32 trapno, err, eip, cs, eflags, esp_at_signal, ss;
	u8 *fpstate;
	u32 oldmask, cr2;
};

struct ucontext {
	u32 flags, link;
	struct altstack stack;
	struct sigcontext context;
	struct sigset mask;
};

typedef void handler(int signal, struct siginfo *info, struct ucontext *context);
typedef void plain_handler(int signal);

static inline int syscall4(int number, u32 first, u32 second, u32 third, u32 fourth)
{
	int result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth)
		     : "memory");
	return result;
}

static inline u32 set_action(int signal, u32 function, u32 flags, u32 mask)
{
	struct sigaction action = { function, flags, 0, { mask, 0 } };

	return syscall4(SYS_rt_sigaction, signal, (u32)&action, 0, 8);
}

static inline void block(int how, u32 low)
{
	struct sigset set = { low, 0 };

	syscall4(SYS_rt_sigprocmask, how, (u32)&set, 0, 8);
}

static inline u32 blocked(void)
{
	struct sigset set;

	syscall4(SYS_rt_sigprocmask, SIG_BLOCK, 0, (u32)&set, 8);
	return set.low;
}

static inline int self(void)
{
	return syscall3(SYS_getpid, 0, 0, 0);
}

static inline void raise(int signal)
{
	syscall3(SYS_kill, self(), signal, 0);
}

/* "NAME VALUE": small numbers and errors in decimal, all others in hexadecimal. */
static inline void show(const char *name, int value)
{
	char text[16];
	u32 at = sizeof(text), rest = value < 0 && value > -4096 ? -value : value;
	u32 base = rest < 4096 ? 10 : 16;

	text[--at] = 0;
	text[--at] = '\n';
	do
		text[--at] = "0123456789abcdef"[rest % base];
	while (rest /= base);
	if (base == 16)
		text[--at] = 'x', text[--at] = '0';
	if (value < 0 && base == 10)
		text[--at] = '-';
	print(name);
	print(" ");
	print(text + at);
}
