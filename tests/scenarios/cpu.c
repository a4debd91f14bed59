/*
 * cpu.c - every register that a program can see: general ones and flags,
 * x87, SSE, AVX, AVX-512 with its masks, protection keys, fs and gs base.
 */
#include "scenario.h"

#include <cpuid.h>

/* ---- general and extended registers, held across the point ---- */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Used by the assembly below; area as XSAVE lays it out. */
__attribute__((used)) static uint64_t cross_in[16], cross_out[16];
__attribute__((used)) static uint64_t cross_flags_in, cross_flags_out, cross_sp, cross_mask;
__attribute__((used, aligned(64))) static unsigned char cross_area_in[16384], cross_area_out[16384];

/*
 * cross_spin and cross_call load all registers, pass the point and store all
 * registers. In between they use no memory, and the stack pointer is a
 * pattern as well. The loop of cross_spin counts rcx down by instructions
 * that leave the flags alone.
 */
void cross_spin(void);
void cross_call(void);

__asm__(
"	.macro	CROSS name, body:vararg\n"
"	.text\n"
"	.globl	\\name\n"
"	.type	\\name, @function\n"
"\\name:\n"
"	push	%rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; pushfq\n"
"	mov	%rsp, cross_sp(%rip)\n"
"	mov	cross_mask(%rip), %rax\n"
"	xor	%edx, %edx\n"
"	xrstor64 cross_area_in(%rip)\n"
"	pushq	cross_flags_in(%rip)\n"
"	popfq\n"
"	mov	0+cross_in(%rip), %rax\n"
"	mov	8+cross_in(%rip), %rcx\n"
"	mov	16+cross_in(%rip), %rdx\n"
"	mov	24+cross_in(%rip), %rbx\n"
"	mov	32+cross_in(%rip), %rsp\n"
"	mov	40+cross_in(%rip), %rbp\n"
"	mov	48+cross_in(%rip), %rsi\n"
"	mov	56+cross_in(%rip), %rdi\n"
"	mov	64+cross_in(%rip), %r8\n"
"	mov	72+cross_in(%rip), %r9\n"
"	mov	80+cross_in(%rip), %r10\n"
"	mov	88+cross_in(%rip), %r11\n"
"	mov	96+cross_in(%rip), %r12\n"
"	mov	104+cross_in(%rip), %r13\n"
"	mov	112+cross_in(%rip), %r14\n"
"	mov	120+cross_in(%rip), %r15\n"
"	\\body\n"
"	mov	%rax, 0+cross_out(%rip)\n"
"	mov	%rcx, 8+cross_out(%rip)\n"
"	mov	%rdx, 16+cross_out(%rip)\n"
"	mov	%rbx, 24+cross_out(%rip)\n"
"	mov	%rsp, 32+cross_out(%rip)\n"
"	mov	%rbp, 40+cross_out(%rip)\n"
"	mov	%rsi, 48+cross_out(%rip)\n"
"	mov	%rdi, 56+cross_out(%rip)\n"
"	mov	%r8, 64+cross_out(%rip)\n"
"	mov	%r9, 72+cross_out(%rip)\n"
"	mov	%r10, 80+cross_out(%rip)\n"
"	mov	%r11, 88+cross_out(%rip)\n"
"	mov	%r12, 96+cross_out(%rip)\n"
"	mov	%r13, 104+cross_out(%rip)\n"
"	mov	%r14, 112+cross_out(%rip)\n"
"	mov	%r15, 120+cross_out(%rip)\n"
"	mov	cross_sp(%rip), %rsp\n"
"	pushfq\n"
"	popq	cross_flags_out(%rip)\n"
"	cld\n"
"	mov	cross_mask(%rip), %rax\n"
"	xor	%edx, %edx\n"
"	xsave64	cross_area_out(%rip)\n"
"	popfq; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
"	ret\n"
"	.size	\\name, . - \\name\n"
"	.endm\n"
"	.macro	SPIN\n"
"1:	lea	-1(%rcx), %rcx\n"
"	jrcxz	2f\n"
"	jmp	1b\n"
"2:\n"
"	.endm\n"
"	CROSS	cross_spin, SPIN\n"
"	CROSS	cross_call, syscall\n"
);

static const char *const component_name[] = {
	"x87", "SSE", "AVX", 0, 0, "opmask", "ZMM_Hi256", "Hi16_ZMM", 0, "PKRU",
};

static void component(int i, unsigned *offset, unsigned *size)
{
	unsigned c, d;

	__cpuid_count(0xd, i, *size, *offset, c, d);
	if (*offset + *size > sizeof(cross_area_in))
		fail("component %d ends at %u", i, *offset + *size);
}

static void registers_setup(void)
{
	unsigned a, b, c, d, offset, size;
	unsigned char *area = cross_area_in;
	uint64_t xcr0;

	__cpuid(1, a, b, c, d);
	if (!(c & 1u << 27))
		needs("OSXSAVE");
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	xcr0 = (uint64_t)d << 32 | a;
	cross_mask = xcr0 & 0x2e7;	/* all but MPX, AMX and what is not user state */

	*(uint16_t *)area = 0x0a7f;		/* FCW: round up, 53 bits */
	*(uint16_t *)(area + 2) = 5 << 11 | 0x4100;	/* FSW: top of stack 5, C3 C0 */
	area[4] = 0xff;				/* FTW: all eight in use */
	*(uint32_t *)(area + 24) = 0x1f80 | 0x4000 | 0x20;	/* MXCSR: round up, inexact seen */
	for (int i = 0; i < 8; i++) {
		*(uint64_t *)(area + 32 + 16 * i) = 0x8000000000000000u | (uint64_t)i * 0x123456789abcu;
		*(uint16_t *)(area + 40 + 16 * i) = 0x3fff + i;
	}
	fill(area + 160, 256, 1);		/* xmm0-15 */
	for (int i = 2; i <= 9; i++) {
		if (!(cross_mask & 1u << i))
			continue;
		component(i, &offset, &size);
		if (i == 9)	/* key 15 may be read, 1-14 not, 0 all */
			*(uint32_t *)(area + offset) = 0x95555554;
		else
			fill(area + offset, size, i);
	}
	*(uint64_t *)(area + 512) = cross_mask;	/* XSTATE_BV */
}

static void registers_load(void)
{
	for (int i = 0; i < 16; i++)
		cross_in[i] = 0x0101010101010101u * (i + 1) ^ 0xf0e1d2c3b4a59687u;
	cross_in[RSP] = 0x11110000;	/* no stack is there */
	cross_flags_in = 0xed7;		/* CF PF AF ZF SF IF DF OF */
	memset(cross_out, 0, sizeof(cross_out));
	memset(cross_area_out, 0, sizeof(cross_area_out));
}

static void registers_compare(unsigned skip)
{
	const unsigned char *in = cross_area_in, *out = cross_area_out;
	unsigned offset, size;

	for (int i = 0; i < 16; i++)
		if (!(skip & 1u << i) && cross_in[i] != cross_out[i])
			fail("register %d is %#llx, not %#llx", i,
			     (unsigned long long)cross_out[i], (unsigned long long)cross_in[i]);
	check_eq(cross_flags_out, cross_flags_in);
	check_eq(*(uint16_t *)out, *(uint16_t *)in);
	check_eq(*(uint16_t *)(out + 2), *(uint16_t *)(in + 2));
	check_eq(out[4], in[4]);
	check_eq(*(uint32_t *)(out + 24), *(uint32_t *)(in + 24));
	for (int i = 0; i < 8; i++)
		if (memcmp(out + 32 + 16 * i, in + 32 + 16 * i, 10))
			fail("st(%d) differs", i);
	for (int i = 0; i < 16; i++)
		if (memcmp(out + 160 + 16 * i, in + 160 + 16 * i, 16))
			fail("xmm%d differs", i);
	for (int i = 2; i <= 9; i++) {
		if (!(cross_mask & 1u << i))
			continue;
		component(i, &offset, &size);
		if (i == 9)
			size = 4;
		if (memcmp(out + offset, in + offset, size))
			fail("%s differs", component_name[i]);
	}
}

static int registers_point(int cycle)
{
	int i, fd;

	if (!scenario_external) {
		fd = open_image(cycle);
		registers_load();
		cross_in[RAX] = __NR_checkpoint;
		cross_in[RDI] = getpid();
		cross_in[RSI] = fd;
		cross_in[RDX] = 0;
		cross_call();
		if ((long)cross_out[RAX] < 0)
			fail("checkpoint: %s", strerror(-(int)cross_out[RAX]));
		/* The syscall instruction itself leaves rip in rcx, flags in r11. */
		registers_compare(1u << RAX | 1u << RCX | 1u << R11);
		check_eq(cross_out[R11] & ~0x10000ull, cross_flags_in);
		close_image(fd);
		return (int)cross_out[RAX];
	}
	announce("ready", cycle);
	for (i = 0; !told(cycle); i++) {
		if (i > 3000)
			fail("nobody wrote go.%d", cycle);
		registers_load();
		cross_in[RCX] = 60000000;
		cross_spin();
		registers_compare(1u << RCX);
		check_eq(cross_out[RCX], 0);
	}
	return 0;
}

/* ---- fs and gs base ---- */

#define ARCH_SET_GS 0x1001
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004

static __thread long thread_local_value = 4711;
static uint64_t gs_block[4] = { 0x1122334455667788u };
static uint64_t fs_before;

static void bases_setup(void)
{
	thread_local_value += 1;
	check_eq(syscall(SYS_arch_prctl, ARCH_SET_GS, gs_block), 0);
	check_eq(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_before), 0);
}

static void bases_verify(int cycle)
{
	uint64_t fs, gs, value;

	(void)cycle;
	check_eq(thread_local_value, 4712);
	check_eq(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs), 0);
	check_eq(fs, fs_before);
	check_eq(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs), 0);
	check_eq(gs, (uint64_t)gs_block);
	__asm__ volatile("mov %%gs:0, %0" : "=r"(value));
	check_eq(value, gs_block[0]);
	errno = 0;
	check_eq(close(-1), -1);
	check_eq(errno, EBADF);		/* errno lives behind fs */
}

/* ---- a computation in floating point goes on ---- */

static double float_sum;
static long double float_long;

static void float_verify(int cycle)
{
	double want = 0;
	long double want_long = 1;

	for (int i = 1; i <= cycle; i++) {
		want += 1.0 / i;
		want_long *= 1 + 1.0L / (7 * i);
	}
	float_sum += 1.0 / cycle;
	float_long *= 1 + 1.0L / (7 * cycle);
	check(float_sum == want);
	check(float_long == want_long);
}

static void float_setup(void)
{
	float_long = 1;
}

SCENARIOS(
	{ "registers", BOTH | BARE, registers_setup, NULL, registers_point, 0 },
	{ "bases", BOTH, bases_setup, bases_verify, NULL, 0 },
	{ "float", BOTH, float_setup, float_verify, NULL, 0 },
)
