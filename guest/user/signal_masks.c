/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which signals arrive when: masks, queues, the order of handlers, waiting for one. */
#include "signals.h"

static int depth;

static void told(int signal, struct siginfo *info, struct ucontext *context)
{
	(void)context;
	depth++;
	show("handler", signal);
	show(" depth", depth);
	show(" code", info->code);
	show(" value", signal >= 32 ? info->field[2] : 0);
	show(" blocked", blocked());
	depth--;
}

static void raising(int signal, struct siginfo *info, struct ucontext *context)
{
	static int raised;

	told(signal, info, context);
	if (!raised++) {
		depth++;
		raise(signal);
		raise(SIGUSR2);
		depth--;
		print("end of the outer handler\n");
	}
}

static int queue(int signal, int code, u32 value)
{
	struct siginfo info = { signal, 0, code, { self(), 0, value } };

	return syscall3(SYS_rt_sigqueueinfo, self(), signal, (u32)&info);
}

static void pending(void)
{
	struct sigset set;
	u32 old;

	syscall3(SYS_rt_sigpending, (u32)&set, 8, 0);
	show("pending", set.low);
	show("pending high", set.high);
	syscall3(SYS_sigpending, (u32)&old, 0, 0);
	show("pending of old", old);
}

static void order(void)
{
	print("-- order\n");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO, 0);
	set_action(SIGUSR2, (u32)told, SA_SIGINFO, 0);
	set_action(SIGSEGV, (u32)told, SA_SIGINFO, 0);
	set_action(34, (u32)told, SA_SIGINFO, 0);
	set_action(35, (u32)told, SA_SIGINFO, 0);
	struct sigset all = { BIT(SIGUSR1) | BIT(SIGUSR2) | BIT(SIGSEGV), 6 };
	syscall4(SYS_rt_sigprocmask, SIG_BLOCK, (u32)&all, 0, 8);
	raise(SIGUSR2);
	raise(SIGUSR1);
	raise(SIGUSR1);
	raise(SIGSEGV);
	show("queued", queue(34, -1, 1));
	show("queued", queue(35, -1, 2));
	show("queued", queue(34, -1, 3));
	show("forged", queue(34, -6, 4));
	pending();
	syscall4(SYS_rt_sigprocmask, SIG_UNBLOCK, (u32)&all, 0, 8);
	pending();
}

static void nesting(void)
{
	print("-- nesting\n");
	set_action(SIGUSR1, (u32)raising, SA_SIGINFO, 0);
	raise(SIGUSR1);
	print("-- NODEFER, RESETHAND\n");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO | SA_NODEFER | SA_RESETHAND, BIT(SIGUSR2));
	raise(SIGUSR1);
	struct sigaction action;
	syscall4(SYS_rt_sigaction, SIGUSR1, 0, (u32)&action, 8);
	show("handler after", action.handler);
	show("flags after", action.flags);
	show("mask after", action.mask.low);
}

static void ignoring(void)
{
	print("-- ignoring\n");
	set_action(SIGUSR1, SIG_IGN, 0, 0);
	block(SIG_SETMASK, BIT(SIGUSR1) | BIT(SIGWINCH));
	raise(SIGUSR1);
	raise(SIGWINCH);
	pending();
	set_action(SIGUSR1, SIG_IGN, 0, 0);
	pending();
	set_action(SIGWINCH, SIG_DFL, 0, 0);
	pending();
	block(SIG_SETMASK, 0);
}

static void waiting(void)
{
	struct sigset chosen = { BIT(SIGUSR1), 4 }, nothing = { 0, 0 };
	u32 moment[2] = { 0, 1000 };
	struct siginfo info;

	print("-- waiting\n");
	set_action(SIGUSR1, (u32)told, SA_SIGINFO, 0);
	syscall4(SYS_rt_sigprocmask, SIG_BLOCK, (u32)&chosen, 0, 8);
	show("none", syscall4(SYS_rt_sigtimedwait, (u32)&chosen, (u32)&info, (u32)moment, 8));
	queue(35, -1, 77);
	raise(SIGUSR1);
	show("first", syscall4(SYS_rt_sigtimedwait, (u32)&chosen, (u32)&info, (u32)moment, 8));
	show("code", info.code);
	show("second", syscall4(SYS_rt_sigtimedwait, (u32)&chosen, (u32)&info, 0, 8));
	show("code", info.code);
	show("value", info.field[2]);
	moment[1] = 1000000000;
	show("bad time", syscall4(SYS_rt_sigtimedwait, (u32)&chosen, 0, (u32)moment, 8));
	raise(SIGUSR1);
	show("sigsuspend", syscall3(SYS_rt_sigsuspend, (u32)&nothing, 8, 0));
	show("blocked", blocked());
	raise(SIGUSR1);
	show("old sigsuspend", syscall3(SYS_sigsuspend, 0, 0, BIT(SIGUSR2)));
	show("blocked", blocked());
}

static void refusals(void)
{
	struct sigaction action = { SIG_IGN, 0xffffffff, 0, { 0xffffffff, 0xffffffff } };
	u32 old;

	print("-- refusals and old calls\n");
	show("SIGKILL", set_action(SIGKILL, SIG_IGN, 0, 0));
	show("signal 0", set_action(0, SIG_IGN, 0, 0));
	show("signal 65", set_action(65, SIG_IGN, 0, 0));
	show("size", syscall4(SYS_rt_sigaction, SIGUSR1, 0, 0, 4));
	show("address", syscall4(SYS_rt_sigaction, SIGUSR1, 4, 0, 8));
	show("read SIGKILL", syscall4(SYS_rt_sigaction, SIGKILL, 0, (u32)&action, 8));
	show("how", syscall4(SYS_rt_sigprocmask, 3, (u32)&action, 0, 8));
	show("kill 65", syscall3(SYS_kill, self(), 65, 0));
	show("kill -1", syscall3(SYS_kill, self(), -1, 0));
	show("tkill 0", syscall3(SYS_tkill, 0, SIGUSR1, 0));
	show("no process", syscall3(SYS_kill, 0x3fffffff, 0, 0));
	show("myself", syscall3(SYS_kill, self(), 0, 0));
	action = (struct sigaction){ SIG_IGN, 0xffffffff & ~SA_SIGINFO, 0, { -1, -1 } };
	show("all flags", syscall4(SYS_rt_sigaction, 40, (u32)&action, 0, 8));
	syscall4(SYS_rt_sigaction, 40, 0, (u32)&action, 8);
	show("mask", action.mask.low);
	show("mask high", action.mask.high);
	show("signal", syscall3(SYS_signal, SIGUSR2, SIG_IGN, 0) != SIG_IGN);
	show("signal again", syscall3(SYS_signal, SIGUSR2, SIG_DFL, 0));
	syscall4(SYS_rt_sigaction, SIGUSR2, 0, (u32)&action, 8);
	show("flags", action.flags);
	syscall3(SYS_ssetmask, 0xffffffff, 0, 0);
	show("ssetmask", syscall3(SYS_ssetmask, 0, 0, 0));
	old = BIT(SIGINT);
	show("old block", syscall3(SYS_sigprocmask, SIG_BLOCK, (u32)&old, (u32)&old));
	show("old mask", old);
	show("sgetmask", syscall3(SYS_sgetmask, 0, 0, 0));
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	order();
	nesting();
	ignoring();
	waiting();
	refusals();
	return 0;
}
