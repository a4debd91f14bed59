/*
 * ptimer.c - POSIX timers, by the calls themselves: their numbers are the
 * kernel's.
 */
#include "scenario.h"

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

/* What the kernel takes, whatever the C library calls its fields. */
struct event {
	uint64_t value;
	int signo, notify, tid, pad[11];
};

static int ids[8];
static volatile sig_atomic_t signals;
static siginfo_t last;

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	signals++;
	last = *info;
}

static void handle(int sig)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART };

	check_eq(sigaction(sig, &sa, NULL), 0);
}

static int make(clockid_t clock, int notify, int signo, uint64_t value)
{
	struct event event = { .value = value, .signo = signo, .notify = notify, .tid = (int)syscall(SYS_gettid) };
	int id;

	check_eq(syscall(SYS_timer_create, clock, &event, &id), 0);
	return id;
}

static void set(int id, int flags, long sec, long nsec, long every)
{
	struct itimerspec spec = { { 0, every }, { sec, nsec } };

	check_eq(syscall(SYS_timer_settime, id, flags, &spec, NULL), 0);
}

static struct itimerspec get(int id)
{
	struct itimerspec spec;

	check_eq(syscall(SYS_timer_gettime, id, &spec), 0);
	return spec;
}

static void drop(int id)
{
	check_eq(syscall(SYS_timer_delete, id), 0);
}

static void await(int n)
{
	struct timespec ms = { .tv_nsec = 1000000 };

	while (signals < n)
		syscall(SYS_nanosleep, &ms, NULL);
}

/* Numbers with holes between them; the time that is left only falls. */
static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
				    CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID };
static struct itimerspec before[5];

static void clocks_setup(void)
{
	for (int i = 0; i < 5; i++) {
		drop(make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0));
		ids[i] = make(clocks[i], SIGEV_SIGNAL, SIGUSR2, i);
		set(ids[i], 0, 5000 + i, 500, 7000);
		before[i] = get(ids[i]);
	}
}

static void clocks_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < 5; i++) {
		struct itimerspec now = get(ids[i]);

		check_eq(now.it_interval.tv_sec, 0);
		check_eq(now.it_interval.tv_nsec, 7000);
		check(now.it_value.tv_sec > 4000);
		check(now.it_value.tv_sec < before[i].it_value.tv_sec ||
		      (now.it_value.tv_sec == before[i].it_value.tv_sec &&
		       now.it_value.tv_nsec <= before[i].it_value.tv_nsec));
		before[i] = now;
	}
	/* New ones get numbers of their own. */
	ids[7] = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
	for (int i = 0; i < 5; i++)
		check(ids[7] != ids[i]);
	drop(ids[7]);
}

/*
 * It beats on, with its value, and the signal says which it is. Nobody compares
 * what /proc says: at any moment a signal may be pending or not.
 */
static void beat_setup(void)
{
	handle(SIGRTMIN + 3);
	ids[0] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 3, 0xfedcba9876543210);
	set(ids[0], 0, 0, 3000000, 3000000);
	await(2);
}

static void beat_verify(int cycle)
{
	(void)cycle;
	await(signals + 3);
	check_eq(last.si_code, SI_TIMER);
	check_eq((uintptr_t)last.si_value.sival_ptr, 0xfedcba9876543210);
	check_eq(last.si_timerid, ids[0]);
}

/* One that tells this thread, one that tells nobody, one that is not armed. */
static void notify_setup(void)
{
	handle(SIGUSR1);
	ids[0] = make(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGUSR1, 1);
	ids[1] = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
	set(ids[1], 0, 0, 1000, 0);
	ids[2] = make(CLOCK_REALTIME, SIGEV_SIGNAL, SIGKILL, 0);
}

static void notify_verify(int cycle)
{
	struct itimerspec spec = get(ids[1]);

	check_eq(signals, cycle - 1);
	check_eq(spec.it_value.tv_sec, 0);
	check_eq(spec.it_value.tv_nsec, 0);
	spec = get(ids[2]);
	check_eq(spec.it_value.tv_nsec, 0);
	set(ids[0], 0, 0, 1000, 0);
	await(cycle);
	check_eq(last.si_timerid, ids[0]);
}

/* Expired while its signal was blocked: it is pending once. */
static void pending_setup(void)
{
	struct timespec ms = { .tv_nsec = 5000000 };
	sigset_t mask;

	handle(SIGRTMIN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN);
	check_eq(sigprocmask(SIG_BLOCK, &mask, NULL), 0);
	ids[0] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN, 9);
	set(ids[0], 0, 0, 1, 0);
	check_eq(nanosleep(&ms, NULL), 0);
}

static void pending_verify(int cycle)
{
	sigset_t mask, now;

	check_eq(signals, cycle - 1);
	check_eq(sigpending(&now), 0);
	check_eq(sigismember(&now, SIGRTMIN), 1);
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN);
	check_eq(sigprocmask(SIG_UNBLOCK, &mask, NULL), 0);
	check_eq(signals, cycle);
	check_eq(last.si_code, SI_TIMER);
	check_eq((uintptr_t)last.si_value.sival_ptr, 9);
	check_eq(sigprocmask(SIG_BLOCK, &mask, NULL), 0);
	set(ids[0], 0, 0, 1, 0);
	do
		check_eq(sigpending(&now), 0);
	while (!sigismember(&now, SIGRTMIN));
}

SCENARIOS(
	{ "clocks", BOTH, clocks_setup, clocks_verify, NULL, 0 },
	{ "beat", SELF | BARE, beat_setup, beat_verify, NULL, 0 },
	{ "notify", BOTH, notify_setup, notify_verify, NULL, 0 },
	{ "pending", BOTH, pending_setup, pending_verify, NULL, 0 },
)
