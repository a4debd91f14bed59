/*
 * signals.c - handlers, masks, the alternate stack.
 */
#include "scenario.h"

#include <sys/time.h>

struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static struct kernel_sigaction actions[65];
static volatile sig_atomic_t handled, handled_info, on_stack;
static char *stack_area;

static void handler(int sig)
{
	handled = sig;
}

static void info_handler(int sig, siginfo_t *info, void *context)
{
	char here;

	(void)context;
	handled = sig;
	handled_info = info->si_pid == getpid() && info->si_code == SI_USER;
	on_stack = &here >= stack_area && &here < stack_area + (64 << 10);
}

/* Every signal gets something; the kernel's own view is kept for later. */
static void actions_setup(void)
{
	struct sigaction sa;
	int sig;

	for (sig = 1; sig < 65; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP || (sig >= 32 && sig < 36))
			continue;	/* not ours to set: the kernel's and libc's own */
		memset(&sa, 0, sizeof(sa));
		sa.sa_handler = sig % 3 == 0 ? SIG_IGN : sig % 3 == 1 ? SIG_DFL : handler;
		sa.sa_flags = (sig & 1 ? SA_RESTART : 0) | (sig & 2 ? SA_NODEFER : 0) |
			      (sig & 4 ? SA_RESETHAND : 0) | (sig == SIGCHLD ? SA_NOCLDSTOP : 0);
		sigaddset(&sa.sa_mask, sig % 31 + 1);
		check_eq(sigaction(sig, &sa, NULL), 0);
	}
	for (sig = 1; sig < 65; sig++)
		check_eq(syscall(SYS_rt_sigaction, sig, NULL, &actions[sig], 8), 0);
}

static void actions_verify(int cycle)
{
	struct kernel_sigaction now;

	(void)cycle;
	for (int sig = 1; sig < 65; sig++) {
		check_eq(syscall(SYS_rt_sigaction, sig, NULL, &now, 8), 0);
		if (memcmp(&now, &actions[sig], sizeof(now)))
			fail("action of signal %d: handler %p flags %#lx mask %#llx, was %p %#lx %#llx",
			     sig, now.handler, now.flags, (unsigned long long)now.mask,
			     actions[sig].handler, actions[sig].flags,
			     (unsigned long long)actions[sig].mask);
	}
}

/* Handlers really run, on the alternate stack, with their information. */
static void altstack_setup(void)
{
	struct sigaction sa = { .sa_sigaction = info_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_size = 64 << 10 };

	stack_area = ss.ss_sp = malloc(64 << 10);
	check(stack_area != NULL);
	check_eq(sigaltstack(&ss, NULL), 0);
	check_eq(sigaction(SIGUSR2, &sa, NULL), 0);
}

static void altstack_verify(int cycle)
{
	stack_t ss;

	(void)cycle;
	check_eq(sigaltstack(NULL, &ss), 0);
	check(ss.ss_sp == stack_area);
	check_eq(ss.ss_size, 64 << 10);
	check_eq(ss.ss_flags, 0);
	handled = handled_info = on_stack = 0;
	check_eq(kill(getpid(), SIGUSR2), 0);
	check_eq(handled, SIGUSR2);
	check_eq(handled_info, 1);
	check_eq(on_stack, 1);
}

/* The mask holds signals back, and opening it lets them through. */
static void mask_setup(void)
{
	uint64_t set = 0xfffffffe7ffbfaffull & ~(1ull << (SIGKILL - 1)) & ~(1ull << (SIGSTOP - 1));

	check_eq(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, NULL, 8), 0);
	signal(SIGTERM, handler);
}

static void mask_verify(int cycle)
{
	uint64_t set, term = 1ull << (SIGTERM - 1);

	(void)cycle;
	handled = 0;
	check_eq(kill(getpid(), SIGTERM), 0);
	check_eq(handled, 0);
	check_eq(syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &term, &set, 8), 0);
	check_eq(handled, SIGTERM);
	check_eq(set & term, term);
	check_eq(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, NULL, 8), 0);
}

/*
 * Signals that wait because they are blocked: ordinary ones once, real-time
 * ones each with its value, to the process and to the thread.
 */
static sigset_t waiting_set;

static void pending_send(void)
{
	check_eq(kill(getpid(), SIGUSR2), 0);
	check_eq(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGTERM), 0);
	for (int i = 1; i <= 3; i++)
		check_eq(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){ .sival_int = i }), 0);
}

static void pending_setup(void)
{
	sigemptyset(&waiting_set);
	sigaddset(&waiting_set, SIGUSR2);
	sigaddset(&waiting_set, SIGTERM);
	sigaddset(&waiting_set, SIGRTMIN + 2);
	check_eq(sigprocmask(SIG_BLOCK, &waiting_set, NULL), 0);
	pending_send();
}

/* The kernel's own call: that of glibc calls SI_TKILL SI_USER. */
static int take(siginfo_t *info)
{
	struct timespec none = { 0 };

	return (int)syscall(SYS_rt_sigtimedwait, &waiting_set, info, &none, 8);
}

static void pending_verify(int cycle)
{
	siginfo_t info;

	(void)cycle;
	check_eq(take(&info), SIGTERM);
	check_eq(info.si_code, SI_TKILL);
	check_eq(take(&info), SIGUSR2);
	check_eq(info.si_code, SI_USER);
	check_eq(info.si_uid, getuid());
	for (int i = 1; i <= 3; i++) {
		check_eq(take(&info), SIGRTMIN + 2);
		check_eq(info.si_code, SI_QUEUE);
		check_eq(info.si_value.sival_int, i);
	}
	check_eq(take(&info), -1);
	pending_send();
}

/* Interval timers keep their remaining time and their interval. */
static void itimer_setup(void)
{
	struct itimerval in = { .it_value.tv_sec = 3600, .it_interval.tv_usec = 250000 };

	check_eq(setitimer(ITIMER_REAL, &in, NULL), 0);
	check_eq(setitimer(ITIMER_VIRTUAL, &in, NULL), 0);
	check_eq(setitimer(ITIMER_PROF, &in, NULL), 0);
}

static void itimer_verify(int cycle)
{
	static const int which[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };
	static long left[3] = { 3601, 3601, 3601 };
	struct itimerval now;

	(void)cycle;
	for (int i = 0; i < 3; i++) {
		check_eq(getitimer(which[i], &now), 0);
		/* Timers of processor time are read in ticks, rounded up. */
		check(now.it_value.tv_sec > 3000 && now.it_value.tv_sec <= left[i] + 1);
		check_eq(now.it_interval.tv_usec, 250000);
		left[i] = now.it_value.tv_sec;
	}
}

/*
 * A timer that has fired, and that the kernel sets again when its signal is
 * taken: nothing is left of its time meanwhile.
 */
static sigset_t alarm_set;

static int alarm_waits(void)
{
	sigset_t now;

	check_eq(sigpending(&now), 0);
	return sigismember(&now, SIGALRM);
}

static void fired_setup(void)
{
	sigemptyset(&alarm_set);
	sigaddset(&alarm_set, SIGALRM);
	check_eq(sigprocmask(SIG_BLOCK, &alarm_set, NULL), 0);
}

static int fired_point(int cycle)
{
	struct itimerval in = { { 0, 20000 }, { 0, 1000 } }, now;
	struct timespec ms = { .tv_nsec = 1000000 }, long_time = { .tv_sec = 20 };
	int crid;

	check_eq(setitimer(ITIMER_REAL, &in, NULL), 0);
	for (int i = 0; !alarm_waits(); i++) {
		check(i < 30000);
		nanosleep(&ms, NULL);
	}
	crid = scenario_external ? external_point(cycle) : self_point(cycle);
	check(alarm_waits());
	for (int i = 0; i < 3; i++)
		check_eq(sigtimedwait(&alarm_set, NULL, &long_time), SIGALRM);
	check_eq(getitimer(ITIMER_REAL, &now), 0);
	check_eq(now.it_interval.tv_usec, 20000);
	in = (struct itimerval){ 0 };
	check_eq(setitimer(ITIMER_REAL, &in, NULL), 0);
	if (alarm_waits())
		check_eq(sigtimedwait(&alarm_set, NULL, &long_time), SIGALRM);
	return crid;
}

/* A timer that fires after the restart, and a handler that sees it. */
static void alarm_setup(void)
{
	signal(SIGALRM, handler);
}

static int alarm_point(int cycle)
{
	struct itimerval in = { .it_value.tv_usec = 600000 };
	struct timespec ms = { .tv_nsec = 1000000 };
	int crid;

	handled = 0;
	check_eq(setitimer(ITIMER_REAL, &in, NULL), 0);
	crid = scenario_external ? external_point(cycle) : self_point(cycle);
	for (int i = 0; !handled; i++) {
		check(i < 30000);
		nanosleep(&ms, NULL);
	}
	check_eq(handled, SIGALRM);
	return crid;
}

/*
 * The point lies in a handler, on the alternate stack or not: the frame of
 * the interrupted code must be as it was when it returns.
 */
static int inside_crid, inside_cycle;

static void inside_handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	inside_crid = scenario_external ? external_point(inside_cycle) : self_point(inside_cycle);
}

static void inside_setup(void)
{
	struct sigaction sa = { .sa_sigaction = inside_handler, .sa_flags = SA_SIGINFO };

	check_eq(sigaction(SIGUSR2, &sa, NULL), 0);
}

static void inside_altstack_setup(void)
{
	struct sigaction sa = { .sa_sigaction = inside_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_size = 128 << 10 };

	ss.ss_sp = malloc(128 << 10);
	check(ss.ss_sp != NULL);
	check_eq(sigaltstack(&ss, NULL), 0);
	check_eq(sigaction(SIGUSR2, &sa, NULL), 0);
}

static int inside_point(int cycle)
{
	volatile double x = 1.5;
	stack_t ss;

	inside_cycle = cycle;
	/* Not raise(): musl remembers the tid, and a restart may change it. */
	check_eq(kill(getpid(), SIGUSR2), 0);
	check(x == 1.5);
	check_eq(sigaltstack(NULL, &ss), 0);
	check_eq(ss.ss_flags, ss.ss_size ? 0 : SS_DISABLE);
	return inside_crid;
}

SCENARIOS(
	{ "actions", BOTH, actions_setup, actions_verify, NULL, 0 },
	{ "altstack", BOTH, altstack_setup, altstack_verify, NULL, 0 },
	{ "pending", BOTH, pending_setup, pending_verify, NULL, 0 },
	{ "itimer", BOTH, itimer_setup, itimer_verify, NULL, 0 },
	{ "alarm", BOTH, alarm_setup, NULL, alarm_point, 0 },
	{ "itimer-fired", BOTH, fired_setup, NULL, fired_point, 0 },
	{ "mask", BOTH, mask_setup, mask_verify, NULL, 0 },
	{ "inside-handler", BOTH, inside_setup, NULL, inside_point, 0 },
	{ "inside-altstack", BOTH, inside_altstack_setup, NULL, inside_point, 0 },
)
