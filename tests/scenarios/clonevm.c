/*
 * clonevm.c - processes that have one memory without being threads (clone(2),
 * CLONE_VM), as LinuxThreads and Wine have made them.
 *
 * They have the thread-local storage of the first one, too, and so make raw system
 * calls only. What one of them finds wrong the first one tells.
 */
#include "tree.h"

#include <sched.h>
#include <sys/wait.h>

enum { FUTEX_WAIT, FUTEX_WAKE };
enum { ALL, NONE, NESTED, BROTHER, COPY, KINDS };

static struct {
	atomic_int at, seen;	/* the cycle it is to verify, and has */
	atomic_int wrong;	/* line of this file */
	atomic_int pid, ppid;
	int counter;
	unsigned *page;		/* that it has mapped */
} *of, own[KINDS];

/* A word that ends with the process; the kernel writes to it. */
static int cleared[KINDS];

static unsigned *given;	/* mapped by the first one */
static int descriptor = -1;
static unsigned private_word = 1;
static char stacks[KINDS][1 << 16] __attribute__((aligned(64)));

static long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}

#define RAW(nr, a, b, c, d, e) raw(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define right(cond) do { if (!(cond) && !of[kind].wrong) of[kind].wrong = __LINE__; } while (0)

static void on_signal(int sig) { (void)sig; }
static void on_other(int sig) { (void)sig; }

struct action { void *handler; unsigned long flags; void *restorer; unsigned long mask; };

static void *handler_of(int sig)
{
	struct action a;

	return RAW(SYS_rt_sigaction, sig, 0, &a, 8, 0) ? 0 : a.handler;
}

static int begun(int kind, int flags, long (*fn)(long));

/* verify_one looks at what the process has together with the first one, and at what it has not. */
static void verify_one(int kind, int cycle)
{
	int files = kind == ALL || kind == BROTHER;

	of[kind].pid = (int)RAW(SYS_getpid, 0, 0, 0, 0, 0);
	of[kind].ppid = (int)RAW(SYS_getppid, 0, 0, 0, 0, 0);
	right((RAW(SYS_fcntl, descriptor, F_GETFD, 0, 0, 0) >= 0) == files);
	right(handler_of(SIGUSR1) == (files ? cycle & 1 ? (void *)on_other : (void *)on_signal : (void *)SIG_IGN));
	if (kind == COPY) {
		right(private_word == 1);
		return;
	}
	right(private_word == 1000u + cycle);
	right(given[0] == 77u * cycle);
	given[1 + kind] = 88u * cycle + kind;
	of[kind].counter++;
	if (of[kind].page) {
		right(of[kind].page[5] == (unsigned)cycle - 1);
		RAW(SYS_munmap, of[kind].page, 4096, 0, 0, 0);
	}
	of[kind].page = (unsigned *)raw(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	of[kind].page[5] = cycle;
}

static long obeying(long kind)
{
	struct action ignore = { .handler = (void *)SIG_IGN };

	RAW(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (kind != ALL && kind != BROTHER) {
		RAW(SYS_close, descriptor, 0, 0, 0, 0);
		RAW(SYS_rt_sigaction, SIGUSR1, &ignore, 0, 8, 0);
	}
	if (kind != COPY)
		RAW(SYS_set_tid_address, &cleared[kind], 0, 0, 0, 0);
	if (kind == NONE) {
		begun(NESTED, CLONE_VM, obeying);
		begun(COPY, 0, obeying);
	}
	if (kind == ALL)
		begun(BROTHER, CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS | CLONE_PARENT, obeying);
	of[kind].seen = 1;
	for (int cycle = 1;; cycle++) {
		struct timespec most = { .tv_sec = kind == NONE ? 1000 : 0, .tv_nsec = 3000000 };

		while (of[kind].at < cycle)
			RAW(SYS_futex, &of[kind].at, FUTEX_WAIT, cycle - 1, &most, 0);
		verify_one((int)kind, cycle);
		of[kind].seen = cycle + 1;
	}
	return 0;
}

/* begun makes a process on a stack of its own, and waits until it is there. */
__attribute__((noinline)) static int begun(int kind, int flags, long (*fn)(long))
{
	void **top = (void **)(stacks[kind] + sizeof(stacks[kind]));
	long pid;

	top -= 2;
	*--top = (void *)(long)kind;
	*--top = (void *)fn;
	__asm__ volatile("syscall\n\ttest %%eax, %%eax\n\tjnz 1f\n\tpop %%rax\n\tpop %%rdi\n\txor %%ebp, %%ebp\n\tcall *%%rax\n\thlt\n1:"
		: "=a"(pid)
		: "a"((long)SYS_clone), "D"((long)flags | SIGCHLD), "S"(top), "d"(0L)
		: "rcx", "r11", "memory");
	while (pid > 0 && !of[kind].seen)
		RAW(SYS_sched_yield, 0, 0, 0, 0, 0);
	return (int)pid;
}

static void together_setup(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	share();
	of = (void *)control->page; /* which the copy has as well */
	memcpy(of, own, sizeof(own));
	descriptor = open(path("file", -1), O_RDWR | O_CREAT, 0600);
	check(descriptor >= 0);
	check_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	given = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(given != MAP_FAILED);
	memset(cleared, 1, sizeof(cleared));
	check(begun(ALL, CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS, obeying) > 0);
	check(begun(NONE, CLONE_VM, obeying) > 0);
	for (int i = 0; i < KINDS; i++)
		await(&of[i].seen, 1);
}

static void together_verify(int cycle)
{
	struct sigaction sa = { .sa_handler = cycle & 1 ? on_other : on_signal };

	check_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	given[0] = 77u * cycle;
	private_word = 1000u + cycle;
	for (int i = 0; i < KINDS; i++) {
		of[i].at = cycle;
		syscall(SYS_futex, &of[i].at, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	for (int i = 0; i < KINDS; i++) {
		await(&of[i].seen, cycle + 1);
		if (of[i].wrong)
			fail("process of kind %d: line %d", i, of[i].wrong);
		if (i == COPY)
			continue;
		check_eq(given[1 + i], 88u * cycle + i);
		check_eq(of[i].counter, cycle);
		check_eq(of[i].page[5], cycle);
		check(cleared[i] != 0);
	}
	check_eq(of[ALL].ppid, getpid());
	check_eq(of[BROTHER].ppid, getpid());
	check_eq(of[NONE].ppid, getpid());
	check_eq(of[NESTED].ppid, of[NONE].pid);
	check_eq(of[COPY].ppid, of[NONE].pid);
	if (cycle < 3)
		return;
	/* It ends as it is to: the word of its number is cleared. */
	check_eq(kill(of[ALL].pid, SIGKILL), 0);
	check_eq(waitpid(of[ALL].pid, NULL, 0), of[ALL].pid);
	check_eq(cleared[ALL], 0);
}

/* One of them that has threads; or, of who saves itself alone, one that is left out. */
static long with_thread(long kind)
{
	RAW(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (kind == ALL)
		begun(NONE, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, with_thread);
	of[kind].seen = 1;
	for (;;)
		RAW(SYS_pause, 0, 0, 0, 0, 0);
	return 0;
}

static void threads_setup(void)
{
	of = own;
	check(begun(ALL, CLONE_VM, with_thread) > 0);
	await(&of[NONE].seen, 1);
}

SCENARIOS(
	{ .name = "clonevm", .flags = EXTERNAL, .setup = together_setup, .verify = together_verify },
	{ .name = "with-thread", .flags = BOTH | REFUSED, .setup = threads_setup, .refused = EOPNOTSUPP },
)
