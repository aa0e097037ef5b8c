/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that no path leads to: counters, timers, signals, sets of files, pairs of sockets. */
#include "signals.h"

#define SYS_open 5
#define SYS_close 6
#define SYS_dup 41
#define SYS_fcntl 55
#define SYS_socketcall 102
#define SYS_epoll_ctl 255
#define SYS_epoll_wait 256
#define SYS_poll 168
#define SYS_epoll_pwait 319
#define SYS_timerfd_create 322
#define SYS_timerfd_settime 325
#define SYS_timerfd_gettime 326
#define SYS_signalfd4 327
#define SYS_eventfd2 328
#define SYS_epoll_create1 329
#define SYS_socketpair 360
#define SYS_shutdown 373

#define NONBLOCK 04000
#define CLOEXEC 02000000
#define IN 1
#define OUT 4
#define ONESHOT 0x40000000
#define EDGE 0x80000000
#define EXCLUSIVE 0x10000000
enum { ADD = 1, DELETE, MODIFY };

struct event { u32 events, data, high; };

static u32 value[2];
static struct event events[8];
static int handled;


static int read_value(int file)
{
	value[0] = value[1] = 0;
	return syscall3(SYS_read, file, (u32)value, 8);
}

static int write_value(int file, u32 low, u32 high)
{
	value[0] = low, value[1] = high;
	return write(file, value, 8);
}

static int ready(int file)
{
	struct { int file; u16 events, revents; } entry = { file, 0x2FFF, 0 };

	syscall3(SYS_poll, (u32)&entry, 1, 0);
	return entry.revents;
}

static void sleep_ms(int milliseconds)
{
	u32 time[2] = { 0, milliseconds * 1000000 };

	syscall3(SYS_nanosleep, (u32)time, 0, 0);
}

static int status_of(int child)
{
	int status = -1;

	syscall4(SYS_wait4, child, (u32)&status, 0, 0);
	return status;
}

/* -- counters ---------------------------------------------------------------------------------- */

static void counters(void)
{
	int file = syscall3(SYS_eventfd2, 3, NONBLOCK, 0), child;

	print("-- counters\n");
	show("flags", syscall3(SYS_eventfd2, 0, 2, 0));
	show("ready", ready(file));
	show("read", read_value(file));
	show(" value", value[0]);
	show("read again", read_value(file));
	show("ready", ready(file));
	show("write", write_value(file, 5, 0));
	show("write", write_value(file, 6, 0));
	show("read", read_value(file));
	show(" value", value[0]);
	show("never", write_value(file, 0xFFFFFFFF, 0xFFFFFFFF));
	show("short read", syscall3(SYS_read, file, (u32)value, 7));
	show("short write", write(file, value, 7));
	show("highest", write_value(file, 0xFFFFFFFE, 0xFFFFFFFF));
	show("ready", ready(file));
	show("one more", write_value(file, 1, 0));
	show("read", read_value(file));
	show(" value", value[0]);
	show(" high", value[1]);
	syscall3(SYS_close, file, 0, 0);

	file = syscall3(SYS_eventfd2, 2, 1, 0);
	show("semaphore", read_value(file));
	show(" value", value[0]);
	show("semaphore", read_value(file));
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child) {
		sleep_ms(20);
		exit(write_value(file, 7, 0));
	}
	show("after a wait", read_value(file));
	show(" value", value[0]);
	show("writer", status_of(child) >> 8);
	syscall3(SYS_close, file, 0, 0);
	file = syscall3(SYS_eventfd2, 0, 0, 0);
	write_value(file, 0xFFFFFFF0, 0xFFFFFFFF);
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child)
		exit(write_value(file, 0x40, 0));
	sleep_ms(20);
	show("before a waiting writer", read_value(file));
	show(" value", value[0]);
	show("writer", status_of(child) >> 8);
	show("after it", read_value(file));
	show(" value", value[0]);
	syscall3(SYS_close, file, 0, 0);
}

/* -- timers ------------------------------------------------------------------------------------ */

static int set_timer(int file, int flags, u32 milliseconds, u32 interval)
{
	u32 spec[4] = { interval / 1000, interval % 1000 * 1000000, milliseconds / 1000,
			milliseconds % 1000 * 1000000 };

	return syscall4(SYS_timerfd_settime, file, flags, (u32)spec, 0);
}

static void timers(void)
{
	int file = syscall3(SYS_timerfd_create, 1, NONBLOCK, 0), other = file;
	u32 spec[4] = { 9, 9, 9, 9 };

	print("-- timers\n");
	show("clock", syscall3(SYS_timerfd_create, 2, 0, 0));
	show("flags", syscall3(SYS_timerfd_create, 1, 1, 0));
	show("not set", read_value(file));
	show("ready", ready(file));
	show("set", set_timer(file, 0, 30, 0));
	show("too early", read_value(file));
	sleep_ms(60);
	show("ready", ready(file));
	show("read", read_value(file));
	show(" value", value[0]);
	show("read again", read_value(file));
	show("get", syscall3(SYS_timerfd_gettime, file, (u32)spec, 0));
	show(" nothing left", spec[0] | spec[1] | spec[2] | spec[3]);
	set_timer(file, 0, 20, 20);
	sleep_ms(90);
	show("read", read_value(file));
	show(" value", value[0] == 4);
	syscall3(SYS_timerfd_gettime, file, (u32)spec, 0);
	show(" interval", spec[1] == 20000000);
	show(" left", spec[2] == 0 && spec[3] > 0 && spec[3] <= 20000000);
	show("disarm", set_timer(file, 0, 0, 0));
	sleep_ms(30);
	show("ready", ready(file));
	spec[1] = 1000000000;
	show("bad time", syscall4(SYS_timerfd_settime, file, 0, (u32)spec, 0));
	spec[1] = 0;
	show("bad flags", syscall4(SYS_timerfd_settime, file, 4, (u32)spec, 0));
	show("no timer", syscall4(SYS_timerfd_settime, 1, 0, (u32)spec, 0));
	show("long ago", set_timer(file, 1, 1, 0));
	show("read", read_value(file));
	syscall3(SYS_close, file, 0, 0);

	other = syscall3(SYS_timerfd_create, 0, 0, 0);
	set_timer(other, 0, 20, 0);
	show("after a wait", read_value(other));
	show(" value", value[0]);
	syscall3(SYS_close, other, 0, 0);
}

/* -- signals ----------------------------------------------------------------------------------- */

static u32 told[2][32];

static void show_told(int number)
{
	show(" signal", told[number][0]);
	show(" code", told[number][2]);
	show(" from myself", (int)told[number][3] == self());
}

static void signals(void)
{
	u32 set[2] = { BIT(SIGUSR1) | BIT(SIGCHLD) | BIT(SIGKILL), 0 }, only[2] = { BIT(SIGUSR2), 0 };
	int file = syscall4(SYS_signalfd4, -1, (u32)set, 8, NONBLOCK), child;

	print("-- signals\n");
	show("size", syscall4(SYS_signalfd4, -1, (u32)set, 4, 0));
	show("flags", syscall4(SYS_signalfd4, -1, (u32)set, 8, 1));
	show("no such file", syscall4(SYS_signalfd4, 1, (u32)set, 8, 0));
	block(SIG_BLOCK, BIT(SIGUSR1) | BIT(SIGUSR2) | BIT(SIGCHLD));
	show("none", syscall3(SYS_read, file, (u32)told, 256));
	raise(SIGUSR1);
	raise(SIGUSR2);
	show("ready", ready(file));
	show("short", syscall3(SYS_read, file, (u32)told, 127));
	show("read", syscall3(SYS_read, file, (u32)told, 256));
	show_told(0);
	show("ready", ready(file));
	show("another set", syscall4(SYS_signalfd4, file, (u32)only, 8, 0) == file);
	show("read", syscall3(SYS_read, file, (u32)told, 300));
	show_told(0);
	syscall4(SYS_signalfd4, file, (u32)set, 8, 0);
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child)
		exit(3);
	status_of(child);
	raise(SIGUSR1);
	show("two at once", syscall3(SYS_read, file, (u32)told, 256));
	show_told(0);
	show(" signal", told[1][0]);
	show(" code", told[1][2]);
	show(" from the child", (int)told[1][3] == child);
	show(" status", told[1][10]);
	syscall3(SYS_close, file, 0, 0);
	block(SIG_SETMASK, 0);
}

/* -- sets of files ----------------------------------------------------------------------------- */

static int control(int set, int operation, int file, u32 wanted, u32 data)
{
	struct event event = { wanted, data, 0 };

	return syscall4(SYS_epoll_ctl, set, operation, file, (u32)&event);
}

static void wait_for(const char *name, int set, int timeout)
{
	int count = syscall4(SYS_epoll_wait, set, (u32)events, 8, timeout);

	show(name, count);
	for (int n = 0; n < count; n++) {
		show(" data", events[n].data);
		show(" events", events[n].events);
	}
}

static void nothing(int signal)
{
	handled++;
	(void)signal;
}

static void sets(void)
{
	int set = syscall3(SYS_epoll_create1, 0, 0, 0), ends[2], other, third, timer, file;
	u32 soon[4] = { 0, 0, 0, 20000 }, none[2] = { 0, 0 };
	char byte;

	print("-- sets\n");
	show("flags", syscall3(SYS_epoll_create1, 1, 0, 0));
	syscall3(SYS_pipe, (u32)ends, 0, 0);
	show("add", control(set, ADD, ends[0], IN, 10));
	show("again", control(set, ADD, ends[0], IN, 10));
	show("itself", control(set, ADD, set, IN, 0));
	show("no set", control(ends[0], ADD, ends[1], IN, 0));
	show("no file", control(set, ADD, 99, IN, 0));
	show("unknown", control(set, MODIFY, ends[1], IN, 0));
	show("unknown", control(set, DELETE, ends[1], 0, 0));
	show("operation", control(set, 4, ends[0], 0, 0));
	file = syscall3(SYS_open, (u32)"/proc/self/exe", 0, 0);
	show("regular file", control(set, ADD, file, IN, 0));
	syscall3(SYS_close, file, 0, 0);
	show("no room", syscall4(SYS_epoll_wait, set, (u32)events, 0, 0));
	wait_for("nothing", set, 0);
	write(ends[1], "abc", 3);
	wait_for("readable", set, -1);
	wait_for("still", set, 0);
	control(set, MODIFY, ends[0], IN | EDGE, 11);
	wait_for("edge", set, 0);
	wait_for("no edge", set, 0);
	write(ends[1], "d", 1);
	wait_for("another edge", set, 0);
	wait_for("no edge", set, 0);
	control(set, MODIFY, ends[0], IN | ONESHOT, 12);
	wait_for("once", set, 0);
	wait_for("no more", set, 0);
	control(set, MODIFY, ends[0], IN, 13);
	control(set, ADD, ends[1], OUT, 14);
	wait_for("both", set, 0);
	show("delete", control(set, DELETE, ends[1], 0, 0));
	show("exclusive", control(set, MODIFY, ends[0], IN | EXCLUSIVE, 0));
	syscall3(SYS_read, ends[0], (u32)events, 8);
	wait_for("empty", set, 0);

	other = syscall3(SYS_epoll_create1, CLOEXEC, 0, 0);
	show("nested", control(other, ADD, set, IN, 20));
	show("in a circle", control(set, ADD, other, IN, 0));
	wait_for("nested, nothing", other, 0);
	write(ends[1], "e", 1);
	wait_for("nested, readable", other, 0);
	show("ready", ready(set));
	syscall3(SYS_read, ends[0], (u32)&byte, 1);

	timer = syscall3(SYS_timerfd_create, 1, 0, 0);
	control(set, ADD, timer, IN, 30);
	set_timer(timer, 0, 20, 0);
	wait_for("a timer", set, -1);
	wait_for("a timer", set, 0);
	syscall3(SYS_close, timer, 0, 0);
	wait_for("its time is up", set, 10);

	third = syscall3(SYS_dup, ends[0], 0, 0);
	write(ends[1], "f", 1);
	syscall3(SYS_close, ends[0], 0, 0);
	wait_for("a duplicate is open", set, 0);
	syscall3(SYS_close, third, 0, 0);
	wait_for("all are closed", set, 0);

	set_action(SIGALRM, (u32)nothing, SA_RESTART, 0);
	syscall3(SYS_setitimer, 0, (u32)soon, 0);
	wait_for("a signal", set, -1);
	show(" handled", handled);
	block(SIG_BLOCK, BIT(SIGALRM));
	raise(SIGALRM);
	show("blocked", syscall4(SYS_epoll_wait, set, (u32)events, 8, 0));
	show(" handled", handled);
	asm volatile("pushl %%ebp\n movl %7, %%ebp\n int $0x80\n popl %%ebp"
		     : "=a"(file)
		     : "a"(SYS_epoll_pwait), "b"(set), "c"(events), "d"(8), "S"(1000), "D"(none),
		       "i"(8)
		     : "memory");
	show("not blocked meanwhile", file);
	show(" handled", handled);
	show(" blocked again", blocked() == BIT(SIGALRM));
	block(SIG_SETMASK, 0);
	syscall3(SYS_close, set, 0, 0);
	syscall3(SYS_close, other, 0, 0);
	syscall3(SYS_close, ends[1], 0, 0);
}

/* -- pairs of sockets -------------------------------------------------------------------------- */

static int call(int number, u32 first, u32 second, u32 third, u32 fourth)
{
	u32 arguments[6] = { first, second, third, fourth, 0, 0 };

	return syscall3(SYS_socketcall, number, (u32)arguments, 0);
}

static void sockets(void)
{
	enum { SOCKETPAIR = 8, SEND, RECV, SENDTO, RECVFROM, SHUTDOWN };
	enum { PEEK = 2, DONTWAIT = 0x40, WAITALL = 0x100, NOSIGNAL = 0x4000 };
	int pair[2], child, parent = self();
	char text[16];

	print("-- sockets\n");
	show("family", call(SOCKETPAIR, 99, 1, 0, (u32)pair));
	show("protocol", call(SOCKETPAIR, 1, 1, 9, (u32)pair));
	show("kind", call(SOCKETPAIR, 1, 9, 0, (u32)pair));
	show("nowhere", call(SOCKETPAIR, 1, 1, 0, 0));
	show("pair", call(SOCKETPAIR, 1, 1, 0, (u32)pair));
	show("ready", ready(pair[0]));
	show("write", write(pair[0], "hello", 5));
	show("ready", ready(pair[1]));
	show("peek", call(RECV, pair[1], (u32)text, 2, PEEK));
	show("read", syscall3(SYS_read, pair[1], (u32)text, 16));
	show(" text", text[0] == 'h' && text[4] == 'o');
	show("nothing", call(RECV, pair[1], (u32)text, 16, DONTWAIT));
	show("send", call(SEND, pair[1], (u32)"back", 4, 0));
	show("receive", call(RECV, pair[0], (u32)text, 16, 0));
	show("no socket", call(SEND, 1, (u32)"x", 1, 0));
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child) {
		sleep_ms(10);
		write(pair[1], "ab", 2);
		sleep_ms(10);
		exit(write(pair[1], "cd", 2));
	}
	show("all of it", call(RECV, pair[0], (u32)text, 4, WAITALL));
	show(" text", text[0] == 'a' && text[3] == 'd');
	status_of(child);
	child = syscall3(SYS_fork, 0, 0, 0);
	if (!child) {
		write(pair[1], "ef", 2);
		sleep_ms(20);
		syscall3(SYS_kill, parent, SIGALRM, 0);
		sleep_ms(20);
		exit(write(pair[1], "gh", 2));
	}
	show("half of it", call(RECV, pair[0], (u32)text, 4, WAITALL));
	status_of(child);
	show("the rest", call(RECV, pair[0], (u32)text, 4, 0));
	show("bad shutdown", syscall3(SYS_shutdown, pair[0], 3, 0));
	show("shutdown", syscall3(SYS_shutdown, pair[0], 1, 0));
	show("ready", ready(pair[0]));
	show("ready", ready(pair[1]));
	show("end", syscall3(SYS_read, pair[1], (u32)text, 16));
	set_action(SIGPIPE, (u32)nothing, 0, 0);
	handled = 0;
	show("write", write(pair[0], "x", 1));
	show(" handled", handled);
	show("send quietly", call(SEND, pair[0], (u32)"x", 1, NOSIGNAL));
	show(" handled", handled);
	show("the other way", write(pair[1], "still", 5));
	show("read", syscall3(SYS_read, pair[0], (u32)text, 3));
	show("close", syscall3(SYS_close, pair[0], 0, 0));
	show("ready", ready(pair[1]));
	show("reset", syscall3(SYS_read, pair[1], (u32)text, 16));
	show("then the end", syscall3(SYS_read, pair[1], (u32)text, 16));
	show("ready", ready(pair[1]));
	show("write", write(pair[1], "x", 1));
	syscall3(SYS_close, pair[1], 0, 0);

	show("by its own call", syscall4(SYS_socketpair, 1, 1 | NONBLOCK | CLOEXEC, 0, (u32)pair));
	show(" flags", syscall3(SYS_fcntl, pair[0], 3, 0) == (NONBLOCK | 2));
	show(" closed by exec", syscall3(SYS_fcntl, pair[1], 1, 0));
	show("nothing", syscall3(SYS_read, pair[0], (u32)text, 16));
	write(pair[0], "last", 4);
	syscall3(SYS_close, pair[0], 0, 0);
	show("what was sent", syscall3(SYS_read, pair[1], (u32)text, 16));
	show("then the end", syscall3(SYS_read, pair[1], (u32)text, 16));
	syscall3(SYS_close, pair[1], 0, 0);
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	counters();
	timers();
	signals();
	sets();
	sockets();
	return 0;
}
