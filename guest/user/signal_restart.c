/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What becomes of a system call when a signal ends its waiting, and interval timers. */
#include "signals.h"

static int handled, write_end;

static void nothing(int signal)
{
	handled++;
	(void)signal;
}

/* Gives the reader what it waits for, so that a call that is made again comes to an end. */
static void feeding(int signal)
{
	handled++;
	(void)signal;
	write(write_end, "x", 1);
}

static void alarm_soon(void)
{
	u32 timer[4] = { 0, 0, 0, 20000 };

	handled = 0;
	syscall3(SYS_setitimer, 0, (u32)timer, 0);
}

static void done(const char *name, int result)
{
	show(name, result);
	show(" handled", handled);
}

int main(int argc, char **argv)
{
	int ends[2];
	char byte;
	u32 sleep[2] = { 0, 400000000 }, left[2] = { 7, 7 }, timer[4], old[4];
	struct sigset none = { 0, 0 }, alarm = { BIT(SIGALRM), 0 };
	struct siginfo info;

	(void)argc, (void)argv;
	syscall3(SYS_pipe, (u32)ends, 0, 0);
	write_end = ends[1];

	set_action(SIGALRM, (u32)nothing, 0, 0);
	alarm_soon();
	done("read", syscall3(SYS_read, ends[0], (u32)&byte, 1));
	set_action(SIGALRM, (u32)feeding, SA_RESTART, 0);
	alarm_soon();
	done("read with SA_RESTART", syscall3(SYS_read, ends[0], (u32)&byte, 1));
	alarm_soon();
	done("pause with SA_RESTART", syscall3(SYS_pause, 0, 0, 0));
	alarm_soon();
	done("nanosleep", syscall3(SYS_nanosleep, (u32)sleep, (u32)left, 0));
	show(" left of it", left[0] == 0 && left[1] > 300000000 && left[1] < 400000000);
	alarm_soon();
	done("sigsuspend", syscall3(SYS_rt_sigsuspend, (u32)&none, 8, 0));
	alarm_soon();
	block(SIG_SETMASK, BIT(SIGALRM));
	done("sigtimedwait", syscall4(SYS_rt_sigtimedwait, (u32)&alarm, (u32)&info, 0, 8));
	show(" code", info.code);
	show(" pid", info.field[0]);
	block(SIG_SETMASK, 0);
	alarm_soon();
	alarm.low = BIT(SIGUSR1);
	done("sigtimedwait for another", syscall4(SYS_rt_sigtimedwait, (u32)&alarm, 0, 0, 8));

	/* Ignored: nobody is woken, and the sleep takes its time. */
	set_action(SIGALRM, SIG_IGN, 0, 0);
	alarm_soon();
	sleep[1] = 60000000;
	done("nanosleep undisturbed", syscall3(SYS_nanosleep, (u32)sleep, 0, 0));

	timer[0] = timer[1] = timer[2] = 0, timer[3] = 1000000;
	show("bad timer", syscall3(SYS_setitimer, 0, (u32)timer, 0));
	show("no timer", syscall3(SYS_setitimer, 3, (u32)timer + 8, 0));
	timer[0] = 5, timer[2] = 100, timer[3] = 0;
	show("setitimer", syscall3(SYS_setitimer, 0, (u32)timer, 0));
	show("getitimer", syscall3(SYS_getitimer, 0, (u32)old, 0));
	show(" interval", old[0]);
	show(" seconds", old[2] == 99 || (old[2] == 100 && old[3] == 0));
	show("alarm", syscall3(27, 50, 0, 0));
	show("alarm", syscall3(27, 0, 0, 0));
	show("alarm", syscall3(27, 0, 0, 0));

	set_action(SIGALRM, (u32)nothing, 0, 0);
	handled = 0;
	timer[0] = 0, timer[1] = 10000, timer[2] = 0, timer[3] = 10000;
	syscall3(SYS_setitimer, 0, (u32)timer, 0);
	while (handled < 3)
		syscall3(SYS_pause, 0, 0, 0);
	show("interval timer", handled >= 3);
	/* VIRTUAL: only what the program itself runs counts. */
	handled = 0;
	set_action(26, (u32)nothing, 0, 0);
	timer[0] = timer[1] = timer[2] = 0, timer[3] = 10000;
	syscall3(SYS_setitimer, 0, (u32)timer, 0);
	syscall3(27, 0, 0, 0);
	syscall3(SYS_setitimer, 1, (u32)timer, 0);
	while (!*(volatile int *)&handled)
		;
	show("virtual timer", handled);
	return 0;
}
