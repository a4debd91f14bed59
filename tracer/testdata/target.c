// Programs that look after themselves while others trace them. argv[1] names
// what to do, argv[2] a file for the report.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct report {
	volatile uint64_t loops;  // grows while all is well
	volatile uint64_t bad;    // what went wrong, how often
	volatile uint64_t detail; // the last of it
	volatile uint64_t signals[65];
	volatile uint64_t address; // of what the test asks for
};
static struct report *report;

static void wrong(uint64_t detail)
{
	report->bad++;
	report->detail = detail;
}

// spin fills every register, stays in a loop that changes none but one, and
// looks at them again. Two rounds: counted in rcx, then in rax.
uint64_t want[16], got[16], flags, below;
uint8_t vwant[16][32] __attribute__((aligned(32))), vgot[16][32] __attribute__((aligned(32)));

#define EACH_GPR(X) X(0, rax) X(1, rbx) X(2, rcx) X(3, rdx) X(4, rsi) X(5, rdi) X(6, rbp) \
	X(8, r8) X(9, r9) X(10, r10) X(11, r11) X(12, r12) X(13, r13) X(14, r14) X(15, r15)
#define LOAD(i, r) "movq want+8*" #i "(%%rip), %%" #r "\n"
#define STORE(i, r) "movq %%" #r ", got+8*" #i "(%%rip)\n"

#define ROUND(count) asm volatile( \
	"push %%rbx; push %%rbp\n" \
	"movq $0x5a5a5a5a, -128(%%rsp)\n" /* the red zone is ours */ \
	EACH_GPR(LOAD) \
	count \
	"pushfq; popq flags(%%rip)\n" \
	"cld\n" \
	EACH_GPR(STORE) \
	"movq -128(%%rsp), %%rax; movq %%rax, below(%%rip)\n" \
	"pop %%rbp; pop %%rbx\n" \
	::: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc")

static void vload(void)
{
#define V(i) "vmovdqa vwant+32*" #i "(%%rip), %%ymm" #i "\n"
	asm volatile(V(0) V(1) V(2) V(3) V(4) V(5) V(6) V(7) V(8) V(9) V(10) V(11) V(12) V(13) V(14) V(15) ::: "memory");
#undef V
}

static void vstore(void)
{
#define V(i) "vmovdqa %%ymm" #i ", vgot+32*" #i "(%%rip)\n"
	asm volatile(V(0) V(1) V(2) V(3) V(4) V(5) V(6) V(7) V(8) V(9) V(10) V(11) V(12) V(13) V(14) V(15) ::: "memory");
#undef V
}

static void check(uint64_t wantflags)
{
	for (int i = 0; i < 16; i++)
		if (i != 7 && got[i] != want[i])
			wrong(0x100 + i);
	if (below != 0x5a5a5a5a)
		wrong(0x700);
	if ((flags & 0xcd5) != wantflags)
		wrong(0x200 + flags);
}

static void spin(void)
{
	int avx = __builtin_cpu_supports("avx");
	for (int i = 0; i < 16; i++) {
		want[i] = 0x0101010101010101ull * (i + 0x21);
		memset(vwant[i], 0x30 + i, 32);
	}
	uint32_t mxcsr = 0x7f80, mxcsr2;
	uint16_t cw = 0x0f7f, cw2;
	for (;;) {
		long double pi;
		asm volatile("fninit; fldcw %0; ldmxcsr %1; fldpi" :: "m"(cw), "m"(mxcsr));
		if (avx)
			vload();
		want[2] = 100000; // rcx
		ROUND("std; stc\n 1: loop 1b\n"); // neither changes flags
		want[2] = 0;
		check(flags & 0xcd5);
		if ((flags & 0x401) != 0x401) // DF CF
			wrong(0x300 + flags);
		want[0] = 100000; // rax
		ROUND("1: sub $1, %%rax; jnz 1b\n");
		want[0] = 0;
		check(0x44); // ZF PF
		if (avx) {
			vstore();
			if (memcmp(vwant, vgot, sizeof vwant))
				wrong(0x400);
		}
		asm volatile("fstpt %0; stmxcsr %1; fnstcw %2" : "=m"(pi), "=m"(mxcsr2), "=m"(cw2));
		if (pi != 3.14159265358979323851280895940618620443274267017841339111328125L)
			wrong(0x500);
		if (mxcsr2 != mxcsr || cw2 != cw)
			wrong(0x600);
		asm volatile("fninit" ::);
		uint32_t usual = 0x1f80;
		asm volatile("ldmxcsr %0" :: "m"(usual));
		report->loops++;
	}
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

// nap sleeps again and again: each sleep must last, and return 0.
static void nap(void)
{
	for (;;) {
		struct timespec t = {0, 20000000};
		int64_t start = now();
		int err = nanosleep(&t, NULL) ? errno : 0;
		if (err)
			wrong(0x1000 + err);
		if (now() - start < 20000000)
			wrong(0x2000);
		report->loops++;
	}
}

// hover is where the test has the processor go.
extern char hover[];
asm(".globl hover\nhover: jmp hover\n");

// echo answers each byte of its standard input.
static void echo(void)
{
	report->address = (uint64_t)hover;
	for (;;) {
		char c;
		ssize_t n = read(0, &c, 1);
		if (n == 0)
			return;
		if (n != 1)
			wrong(0x3000 + errno);
		else if (write(1, &c, 1) != 1)
			wrong(0x4000 + errno);
		report->loops++;
	}
}

static void count(int sig) { report->signals[sig]++; }


// rseq sits in a critical section of its own making until it is aborted.
struct { uint32_t cpu_start, cpu; uint64_t cs; uint32_t flags, node, mm, pad; }
	area __attribute__((aligned(32)));
struct { uint32_t version, flags; uint64_t start, len, abort; } section __attribute__((aligned(32)));
extern char cs_start[], cs_end[], cs_abort[];

static void critical(void)
{
	if (syscall(SYS_rseq, &area, sizeof area, 0, 0x53053053)) {
		wrong(0x5000 + errno);
		return;
	}
	section.start = (uint64_t)cs_start;
	section.len = cs_end - cs_start;
	section.abort = (uint64_t)cs_abort;
	report->address = (uint64_t)&area;
	for (;;) {
		uint64_t aborted;
		asm volatile(
			"lea section(%%rip), %%rax\n"
			"mov %%rax, 8+area(%%rip)\n"
			".globl cs_start, cs_end, cs_abort\n"
			"cs_start:\n"
			"1: incq 0(%1)\n" // report->loops
			"jmp 1b\n"
			"cs_end:\n"
			".long 0x53053053\n"
			"cs_abort:\n"
			"mov $1, %0\n"
			: "=r"(aborted) : "r"(report) : "rax", "memory", "cc");
		if (area.cs != 0)
			wrong(0x6000);
		report->signals[0]++; // aborts
	}
}

static void *thread(void *arg)
{
	prctl(PR_SET_NAME, arg);
	for (;;)
		report->loops++;
	return NULL;
}

static void threads(void)
{
	pthread_t t;
	pthread_create(&t, NULL, thread, "other");
	for (;;)
		pause();
}

static void *spinner(void *arg)
{
	spin();
	return arg;
}

// team is a thread that checks all its registers, and one that only waits.
static void team(void)
{
	pthread_t t;
	pthread_create(&t, NULL, spinner, NULL);
	for (;;)
		pause();
}

// filter has a seccomp filter refuse one system call.
static void filter(unsigned nr)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		wrong(0x8000 + errno);
}

int main(int argc, char **argv)
{
	int fd = open(argv[2], O_RDWR);
	report = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (report == MAP_FAILED)
		return 1;
	close(fd);
	alarm(300); // in case the test does not live to end us
	struct sigaction sa = {.sa_handler = count, .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGTRAP, &sa, NULL);
	sigaction(SIGURG, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGUSR2, &sa, NULL);
	sigset_t blocked;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	for (int i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "ignore-trap"))
			signal(SIGTRAP, SIG_IGN);
		if (!strncmp(argv[i], "filter=", 7))
			filter(atoi(argv[i] + 7));
		if (!strcmp(argv[i], "block-trap")) {
			sigaddset(&blocked, SIGTRAP);
			sigprocmask(SIG_BLOCK, &blocked, NULL);
		}
	}
	report->loops = 1;
	if (!strcmp(argv[1], "spin"))
		spin();
	else if (!strcmp(argv[1], "nap"))
		nap();
	else if (!strcmp(argv[1], "echo"))
		echo();
	else if (!strcmp(argv[1], "critical"))
		critical();
	else if (!strcmp(argv[1], "threads"))
		threads();
	else if (!strcmp(argv[1], "team"))
		team();
	return report->bad != 0;
}
