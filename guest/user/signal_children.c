/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a parent hears of its children, by SIGCHLD and by wait4. */
#include "signals.h"

#define WNOHANG 1
#define WUNTRACED 2
#define WCONTINUED 8

static int child, told_code, told_status, told_is_child, heard;

static void told(int signal, struct siginfo *info, struct ucontext *context)
{
	(void)signal, (void)context;
	heard++;
	told_code = info->code;
	told_is_child = info->field[0] == (u32)child;
	told_status = info->field[2];
}

static int fork(void)
{
	return syscall3(SYS_fork, 0, 0, 0);
}

static void wait_for(const char *name, u32 options)
{
	int status = 0x7777, result = syscall4(SYS_wait4, child, (u32)&status, options, 0);

	show(name, result == child ? 1 : result);
	show(" status", status);
	show(" heard", heard);
	show(" is of the child", told_is_child);
	show(" code", told_code);
	show(" status", told_status);
	heard = told_code = told_status = told_is_child = 0;
}

/* The kernel may tell wait4 of a stop before it sends the signal. */
static void hear(void)
{
	while (!*(volatile int *)&heard)
		syscall3(SYS_sched_yield, 0, 0, 0);
}

static void wait_for_child(void)
{
	/* Without a handler between fork and its return, `child` is known when it is needed. */
	block(SIG_UNBLOCK, BIT(SIGCHLD));
}

static void start(void)
{
	block(SIG_BLOCK, BIT(SIGCHLD));
	child = fork();
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	set_action(SIGCHLD, (u32)told, SA_SIGINFO | SA_RESTART, 0);
	start();
	if (!child)
		exit(42);
	wait_for_child();
	wait_for("exit", 0);

	start();
	if (!child)
		raise(SIGTERM);
	wait_for_child();
	wait_for("killed", 0);

	start();
	if (!child) {
		raise(SIGSTOP);
		for (;;)
			syscall3(SYS_pause, 0, 0, 0);
	}
	wait_for_child();
	hear();
	wait_for("stopped", WUNTRACED);
	wait_for("nothing new", WUNTRACED | WNOHANG);
	syscall3(SYS_kill, child, SIGCONT, 0);
	hear();
	wait_for("continued", WCONTINUED);
	syscall3(SYS_kill, child, SIGQUIT, 0);
	wait_for("ended", 0);

	set_action(SIGCHLD, (u32)told, SA_SIGINFO | SA_RESTART | SA_NOCLDSTOP, 0);
	start();
	if (!child)
		for (;;)
			syscall3(SYS_pause, 0, 0, 0);
	wait_for_child();
	syscall3(SYS_kill, child, SIGSTOP, 0);
	wait_for("stopped quietly", WUNTRACED);
	syscall3(SYS_kill, child, SIGCONT, 0);
	wait_for("continued quietly", WCONTINUED);
	wait_for("no more to tell", WCONTINUED | WUNTRACED | WNOHANG);
	syscall3(SYS_kill, child, SIGSTOP, 0);
	wait_for("stopped quietly", WUNTRACED);
	syscall3(SYS_kill, child, SIGKILL, 0);
	wait_for("killed while stopped", WUNTRACED);

	set_action(SIGCHLD, (u32)told, SA_SIGINFO | SA_NOCLDWAIT, 0);
	start();
	if (!child)
		exit(5);
	wait_for_child();
	wait_for("reaped by itself", 0);
	set_action(SIGCHLD, SIG_IGN, 0, 0);
	start();
	if (!child)
		exit(6);
	wait_for_child();
	wait_for("ignored", 0);
	set_action(SIGCHLD, SIG_DFL, 0, 0);
	set_action(SIGUSR1, (u32)told, SA_SIGINFO, 0);
	start();
	if (!child) {
		raise(SIGUSR1);
		exit(heard);
	}
	wait_for_child();
	wait_for("handler in the child", 0);
	return 0;
}
