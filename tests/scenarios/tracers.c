/*
 * tracers.c - trees in which one process traces another one. They are refused
 * (docs/decisions/017), and what is refused must be left as it was: the tracer
 * traces on, the traced one is where it was, and no event is lost or new.
 */
#include "scenario.h"

#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#define LAST 3 /* the cycle behind which the traced one goes on */
#define EVENT(e) (SIGTRAP << 8 | 0x7f | (e) << 16)
#define STOP(sig) ((sig) << 8 | 0x7f)

/* What all share: how far the traced one has come, and who it is. */
static struct { volatile int steps, tid, ready; } *shared;
static pid_t traced;
static volatile sig_atomic_t told_of_children;

/* What the tracer knows of the stop. */
static struct { struct user_regs_struct regs; siginfo_t info; unsigned long message; int told; } before, after;

static void count(int sig)
{
	(void)sig;
	told_of_children++;
}

static pid_t child(void (*does)(void))
{
	pid_t parent = getpid(), pid = fork();

	check(pid >= 0);
	if (!pid) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
			_exit(97);
		does();
		_exit(7);
	}
	return pid;
}

static void share(void)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED);
	signal(SIGCHLD, count);
}

static void until(const volatile int *flag)
{
	for (int i = 0; !*flag; i++) {
		check(i < 30000);
		usleep(1000);
	}
}

/* next waits for a report about the traced one. */
static void next(int want)
{
	int status;

	check_eq(waitpid(traced, &status, __WALL), traced);
	check_eq(status, want);
}

static void nothing_new(void)
{
	siginfo_t info = { 0 };

	check_eq(waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG | __WALL), 0);
	check_eq(info.si_pid, 0);
}

static void go_on(int request)
{
	check_eq(ptrace(request, traced, NULL, NULL), 0);
}

static void look(void *regs, siginfo_t *info, unsigned long *message)
{
	check_eq(ptrace(PTRACE_GETREGS, traced, NULL, regs), 0);
	check_eq(ptrace(PTRACE_GETEVENTMSG, traced, NULL, message), 0);
	if (ptrace(PTRACE_GETSIGINFO, traced, NULL, info)) {
		check_eq(errno, EINVAL); /* a group-stop has none */
		memset(info, 0, sizeof(*info));
	}
}

static void note(void)
{
	memset(&before, 0, sizeof(before));
	look(&before.regs, &before.info, &before.message);
	before.told = told_of_children;
}

/* same expects the stop that note has seen. */
static void same(void)
{
	memset(&after, 0, sizeof(after));
	nothing_new();
	look(&after.regs, &after.info, &after.message);
	after.told = told_of_children;
	check(!memcmp(&before, &after, sizeof(before)));
}

static void begin(void)
{
	until(&shared->ready);
}

/* seized starts a process that is traced from its first step on. */
static void seized(void (*does)(void), long options)
{
	share();
	traced = child(does);
	check_eq(ptrace(PTRACE_SEIZE, traced, NULL, options), 0);
	shared->ready = 1;
}

/* ---- at a breakpoint ---- */

static void breakpoint(void)
{
	begin();
	__asm__ volatile("int3");
	shared->steps++;
	raise(SIGUSR1);
}

static void breakpoint_setup(void)
{
	seized(breakpoint, PTRACE_O_EXITKILL);
	next(STOP(SIGTRAP));
	note();
}

static void breakpoint_verify(int cycle)
{
	same();
	check_eq(shared->steps, 0);
	if (cycle < LAST)
		return;
	go_on(PTRACE_CONT);
	next(STOP(SIGUSR1));
	check_eq(shared->steps, 1);
}

/* ---- the tracer has not waited for the stop yet ---- */

static void unwaited_setup(void)
{
	siginfo_t info;

	seized(breakpoint, 0);
	check_eq(waitid(P_PID, traced, &info, WSTOPPED | WNOWAIT), 0);
	before.told = told_of_children;
}

static void unwaited_verify(int cycle)
{
	siginfo_t info;

	check_eq(waitid(P_PID, traced, &info, WSTOPPED | WNOWAIT | WNOHANG), 0);
	check_eq(info.si_pid, traced);
	check_eq(told_of_children, before.told);
	if (cycle < LAST)
		return;
	next(STOP(SIGTRAP));
	nothing_new();
}

/* ---- stopped by a signal, which one who was attached to sees ---- */

static void spin(void)
{
	for (;;)
		shared->steps++;
}

/* Two children of the first process: one traces the other. */
static void attach(void)
{
	traced = shared->tid;
	check_eq(ptrace(PTRACE_ATTACH, traced, NULL, NULL), 0);
	next(STOP(SIGSTOP));
	note();
	shared->ready = 1;
	for (int cycle = 1; cycle <= LAST; cycle++) {
		int steps = shared->steps;

		wait_told(cycle);
		same();
		check_eq(shared->steps, steps);
	}
	check_eq(kill(traced, SIGUSR1), 0);
	go_on(PTRACE_CONT);
	next(STOP(SIGUSR1));
}

static pid_t attacher;

static void attached_setup(void)
{
	share();
	shared->tid = child(spin);
	attacher = child(attach);
	until(&shared->ready);
}

static void attached_verify(int cycle)
{
	int status;

	if (cycle < LAST)
		return;
	check_eq(waitpid(attacher, &status, 0), attacher);
	check_eq(status, 7 << 8);
}

/* ---- stopped with its group ---- */

static void group_setup(void)
{
	seized(spin, 0);
	check_eq(kill(traced, SIGSTOP), 0);
	next(STOP(SIGSTOP));
	check_eq(ptrace(PTRACE_CONT, traced, NULL, (long)SIGSTOP), 0);
	next(STOP(SIGSTOP) | PTRACE_EVENT_STOP << 16);
	go_on(PTRACE_LISTEN);
	before.told = told_of_children;
	shared->tid = shared->steps;
}

static void group_verify(int cycle)
{
	nothing_new();
	check_eq(told_of_children, before.told);
	check_eq(shared->steps, shared->tid);
	if (cycle < LAST)
		return;
	check_eq(kill(traced, SIGCONT), 0);
	next(EVENT(PTRACE_EVENT_STOP));
}

/* ---- running ---- */

static void running_setup(void)
{
	seized(spin, 0);
	before.told = told_of_children;
}

static void running_verify(int cycle)
{
	int steps = shared->steps;

	while (shared->steps == steps)
		usleep(1000);
	nothing_new();
	check_eq(told_of_children, before.told);
	if (cycle < LAST)
		return;
	go_on(PTRACE_INTERRUPT);
	next(EVENT(PTRACE_EVENT_STOP));
}

/* ---- before a system call, and asleep in one ---- */

static int ends[2];

static void writes(void)
{
	begin();
	check_eq(syscall(SYS_write, ends[1], "x", 1L), 1);
}

static void reads(void)
{
	char c;

	begin();
	check_eq(syscall(SYS_read, ends[0], &c, 1L), 1);
}

/* until_call lets the traced one go on until it is about to make a call. */
static void until_call(long nr)
{
	for (;;) {
		go_on(PTRACE_SYSCALL);
		next(STOP(SIGTRAP | 0x80));
		note();
		if ((long)before.regs.orig_rax == nr && (long)before.regs.rax == -ENOSYS)
			return;
	}
}

static void call_setup(void (*does)(void), long nr)
{
	check_eq(pipe2(ends, O_NONBLOCK * (nr == SYS_write)), 0);
	share();
	traced = child(does);
	check_eq(ptrace(PTRACE_SEIZE, traced, NULL, (long)PTRACE_O_TRACESYSGOOD), 0);
	go_on(PTRACE_INTERRUPT);
	next(EVENT(PTRACE_EVENT_STOP));
	shared->ready = 1;
	until_call(nr);
}

static void entry_setup(void) { call_setup(writes, SYS_write); }

static void entry_verify(int cycle)
{
	char c;

	same();
	check_eq(read(ends[0], &c, 1), -1);
	if (cycle < LAST)
		return;
	go_on(PTRACE_SYSCALL);
	next(STOP(SIGTRAP | 0x80));
	check_eq(read(ends[0], &c, 1), 1);
}

/* The tracer waits for it, as strace does. */
static void asleep_setup(void)
{
	call_setup(reads, SYS_read);
	go_on(PTRACE_SYSCALL);
}

static void wake(void)
{
	wait_told(LAST);
	check_eq(write(ends[1], "x", 1), 1);
}

static int asleep_point(int cycle)
{
	struct user_regs_struct regs;

	if (cycle < LAST)
		return external_point(cycle);
	child(wake);
	announce("ready", cycle);
	next(STOP(SIGTRAP | 0x80));
	check_eq(ptrace(PTRACE_GETREGS, traced, NULL, &regs), 0);
	check_eq(regs.orig_rax, SYS_read);
	check_eq(regs.rax, 1);
	return 0;
}

/* ---- at events ---- */

static void forks(void)
{
	begin();
	if (!fork())
		spin();
}

static void fork_setup(void)
{
	seized(forks, PTRACE_O_TRACEFORK | PTRACE_O_EXITKILL);
	next(EVENT(PTRACE_EVENT_FORK));
	note();
	shared->tid = (int)before.message;
	traced = shared->tid;
	next(EVENT(PTRACE_EVENT_STOP)); /* a child of the traced one, which nobody but its parent is to wait for */
	note();
}

static void fork_verify(int cycle)
{
	same();
	check_eq(shared->steps, 0);
	if (cycle < LAST)
		return;
	go_on(PTRACE_CONT);
	while (!shared->steps)
		usleep(1000);
}

static void exit_setup(void)
{
	seized(begin, PTRACE_O_TRACEEXIT);
	next(EVENT(PTRACE_EVENT_EXIT));
	note();
	check_eq(before.message, 7 << 8);
}

static void exit_verify(int cycle)
{
	same();
	if (cycle < LAST)
		return;
	go_on(PTRACE_CONT);
	next(7 << 8);
}

/* ---- one that has ended, which its parent is told of when the tracer has waited ---- */

static void waits(void)
{
	int status;

	traced = shared->tid;
	check_eq(ptrace(PTRACE_SEIZE, traced, NULL, NULL), 0);
	shared->ready = 1;
	wait_told(LAST);
	check_eq(waitpid(traced, &status, __WALL), traced);
	check_eq(status, 7 << 8);
}

static void ended_setup(void)
{
	siginfo_t info = { 0 };

	share();
	shared->tid = child(begin);
	attacher = child(waits);
	until(&shared->ready);
	for (char name[64], state = 0; state != 'Z'; usleep(1000)) {
		FILE *f;

		snprintf(name, sizeof(name), "/proc/%d/stat", shared->tid);
		f = fopen(name, "r");
		check(f && fscanf(f, "%*d %*s %c", &state) == 1);
		fclose(f);
	}
	check_eq(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	check_eq(info.si_pid, 0);
}

static void ended_verify(int cycle)
{
	int status;

	if (cycle < LAST)
		return;
	check_eq(waitpid(shared->tid, &status, 0), shared->tid);
	check_eq(status, 7 << 8);
	check_eq(waitpid(attacher, &status, 0), attacher);
	check_eq(status, 7 << 8);
}

/* ---- a thread that is traced alone ---- */

static void *thread(void *unused)
{
	shared->tid = (int)syscall(SYS_gettid);
	spin();
	return unused;
}

static void threaded(void)
{
	pthread_t t;

	check_eq(pthread_create(&t, NULL, thread, NULL), 0);
	for (;;)
		pause();
}

static void thread_setup(void)
{
	share();
	child(threaded);
	until(&shared->tid);
	traced = shared->tid;
	check_eq(ptrace(PTRACE_SEIZE, traced, NULL, NULL), 0);
	go_on(PTRACE_INTERRUPT);
	next(EVENT(PTRACE_EVENT_STOP));
	note();
	shared->ready = shared->steps;
}

static void thread_verify(int cycle)
{
	same();
	check_eq(shared->steps, shared->ready);
	if (cycle < LAST)
		return;
	go_on(PTRACE_CONT);
	while (shared->steps == shared->ready)
		usleep(1000);
}

/* ---- a child that traces its parent ---- */

static void traces_parent(void)
{
	int status;

	traced = getppid();
	if (ptrace(PTRACE_SEIZE, traced, NULL, NULL))
		needs("permission to trace a parent");
	shared->ready = 1;
	for (;;) { /* it hears of the signals of the parent, and passes them on */
		if (waitpid(traced, &status, __WALL) != traced || !WIFSTOPPED(status))
			_exit(0);
		shared->steps++;
		ptrace(PTRACE_CONT, traced, NULL, (long)WSTOPSIG(status));
	}
}

static void up_setup(void)
{
	share();
	signal(SIGCHLD, SIG_DFL);
	child(traces_parent);
	until(&shared->ready);
}

static void up_verify(int cycle)
{
	(void)cycle;
	check_eq(shared->steps, 0);
}

#define STATE(name, flags, word, verify, point) { name, (flags) | REFUSED, word##_setup, verify, point, EOPNOTSUPP }

SCENARIOS(
	STATE("breakpoint", BOTH, breakpoint, breakpoint_verify, NULL),
	STATE("not-waited-for", BOTH, unwaited, unwaited_verify, NULL),
	STATE("attached", EXTERNAL, attached, attached_verify, NULL),
	STATE("group-stop", BOTH, group, group_verify, NULL),
	STATE("running", BOTH, running, running_verify, NULL),
	STATE("call-entry", EXTERNAL, entry, entry_verify, NULL),
	STATE("asleep", EXTERNAL, asleep, NULL, asleep_point),
	STATE("fork-event", EXTERNAL, fork, fork_verify, NULL),
	STATE("exit-event", BOTH, exit, exit_verify, NULL),
	STATE("ended", EXTERNAL, ended, ended_verify, NULL),
	STATE("traced-thread", EXTERNAL, thread, thread_verify, NULL),
	STATE("traces-parent", EXTERNAL, up, up_verify, NULL),
)
