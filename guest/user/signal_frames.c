/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a handler finds on its stack, and what sigreturn makes of a frame that was changed. */
#include "signals.h"

extern char after_kill[];

static u32 loaded[4];

static u32 signal_frame(void *argument)
{
	return (u32)argument - 4;
}

static void show_context(const struct sigcontext *context, u32 *fpstate)
{
	show("edi", context->edi);
	show("esi", context->esi);
	show("ebx == pid", context->ebx == (u32)self());
	show("ecx", context->ecx);
	show("edx", context->edx);
	show("ebp", context->ebp);
	show("eax", context->eax);
	show("eip after int 0x80", context->eip == (u32)after_kill);
	show("esp == esp_at_signal", context->esp == context->esp_at_signal);
	show("cs", context->cs);
	show("ds", context->ds);
	show("es", context->es);
	show("ss", context->ss);
	show("gs", context->gs);
	show("DF in the program", context->eflags >> 10 & 1);
	show("CF in the program", context->eflags & 1);
	show("oldmask", context->oldmask);
	show("x87 control word", fpstate[0] & 0xFFFF);
	show("x87 status word", fpstate[1] & 0xFFFF);
	show("x87 tag word", fpstate[2] & 0xFFFF);
	/* pi is on top: its exponent, and the upper half of its significand. */
	show("st0 exponent", fpstate[9] & 0xFFFF);
	show("st0 significand", fpstate[8]);
	show("fxsave control word", fpstate[28] & 0xFFFF);
	show("fxsave tags", fpstate[29] & 0xFF);
	show("mxcsr", fpstate[28 + 6]);
	show("xmm1", fpstate[28 + 40 + 4]);
	show("xmm1 end", fpstate[28 + 40 + 7]);
}

static u32 eflags(void)
{
	u32 value;

	asm volatile("pushfl\n\tpopl %0" : "=r"(value));
	return value;
}

static void with_info(int signal, struct siginfo *info, struct ucontext *context)
{
	struct siginfo **pinfo = (struct siginfo **)((u32)&signal + 4);
	u32 frame = signal_frame(&signal);

	show("handler of signal", signal);
	show("ESP + 4 modulo 16", (frame + 4) % 16);
	show("siginfo at", (u32)*pinfo - frame);
	show("ucontext at", (u32)context - frame);
	show("si_signo", info->signo);
	show("si_errno", info->error);
	show("si_code", info->code);
	show("si_pid is mine", info->field[0] == (u32)self());
	show("si_uid", info->field[1]);
	show("uc_link", context->link);
	show("uc_stack flags", context->stack.flags);
	show("uc_sigmask", context->mask.low);
	show("uc_sigmask high", context->mask.high);
	show("blocked", blocked());
	show("DF in the handler", eflags() >> 10 & 1);
	show("return code", *(u32 *)*(u32 *)frame);
	show_context(&context->context, (u32 *)context->context.fpstate);
	/* The program goes on with what stands here now. */
	context->context.edi = 0x1111;
	context->context.esi = 0x2222;
	context->context.eax = 0x3333;
	context->context.eflags |= 0x1 | 0x3000 | 0x4000;
	context->context.eflags &= ~0x200;
	context->mask.low = BIT(SIGHUP) | BIT(SIGKILL) | BIT(SIGSTOP);
}

static void without_info(int signal)
{
	u32 frame = signal_frame(&signal);
	struct sigcontext *context = (struct sigcontext *)(frame + 8);

	show("plain handler of signal", signal);
	show("ESP + 4 modulo 16", (frame + 4) % 16);
	show("return code", *(u32 *)*(u32 *)frame);
	show("blocked", blocked());
	show_context(context, (u32 *)context->fpstate);
	context->edi = 0x4444;
	context->esi = 0x5555;
	context->eax = 0x6666;
	context->oldmask = BIT(SIGINT);
}

/* kill() with every register known, the x87 and SSE in use, DF and CF set. */
static void kill_with_known_registers(int signal)
{
	static u32 ones[4] = { 0x3f800000, 0x40000000, 0x40400000, 0x40800000 };
	u32 eax = SYS_kill, edi = 0xd1d1d1d1, esi = 0x51515151, flags;

	asm volatile("fninit\n\tfldpi\n\t"
		     ".byte 0x0f, 0x10, 0x09\n\t" /* movups (%%ecx), %%xmm1 */
		     "movl %[signal], %%ecx\n\t"
		     "pushl %%ebp\n\tmovl $0xbbbb, %%ebp\n\t"
		     "std\n\tstc\n\t"
		     "int $0x80\n"
		     "after_kill:\n\t"
		     "pushfl\n\tcld\n\t"
		     "popl %%ecx\n\tpopl %%ebp\n\t"
		     "fstp %%st(0)\n\t"
		     ".byte 0x0f, 0x11, 0x0a\n\t" /* movups %%xmm1, (%%edx) */
		     : "+a"(eax), "+D"(edi), "+S"(esi), "=c"(flags)
		     : "b"(self()), "c"(ones), "d"(loaded), [signal] "i"(SIGUSR1)
		     : "memory", "cc");
	(void)signal;
	show("edi after", edi);
	show("esi after", esi);
	show("eax after", eax);
	/* CF, TF, IF, DF, IOPL, NT. */
	show("flags after", flags & 0x7701);
	show("xmm1 after", loaded[0]);
	show("blocked after", blocked());
}

int main(int argc, char **argv)
{
	(void)argc, (void)argv;
	show("rt_sigaction", set_action(SIGUSR1, (u32)with_info, SA_SIGINFO, BIT(SIGTERM)));
	kill_with_known_registers(SIGUSR1);
	show("rt_sigaction", set_action(SIGUSR1, (u32)without_info, 0, BIT(SIGQUIT)));
	block(SIG_SETMASK, BIT(SIGHUP));
	kill_with_known_registers(SIGUSR1);
	return 0;
}
