/*
 * sleep.c - checkpointed while asleep in a system call. Two kinds: those that
 * run out by themselves, and must not do so early; and those that the harness
 * ends with SIGUSR1 after the restart, and whose remaining time is looked at.
 *
 * No upper limits on time: a slow machine is not a fault. That the remaining
 * time is kept, not started anew, shows in what the interrupted calls report.
 */
#include "scenario.h"

#include <limits.h>
#include <poll.h>
#include <sys/select.h>

#define SHORT 2.5		/* runs out by itself, after the checkpoint */
#define LONG 1000		/* is ended by SIGUSR1 */
/* The harness lets a sleeper sleep this long, at least, before it acts. */
#define HELD 0.2

static volatile sig_atomic_t woken;

static void on_usr1(int sig)
{
	(void)sig;
	woken++;
}

static void wake_setup(void)
{
	struct sigaction sa = { .sa_handler = on_usr1 };

	check_eq(sigaction(SIGUSR1, &sa, NULL), 0);
}

static struct timespec timespec_of(double s)
{
	return (struct timespec){ .tv_sec = (time_t)s, .tv_nsec = (long)((s - (time_t)s) * 1e9) };
}

static double start;

static void begin(int cycle)
{
	woken = 0;
	snapshot(&snapshot_before);
	announce("ready", cycle);
	start = seconds(CLOCK_MONOTONIC);
}

static void end(void)
{
	snapshot(&snapshot_after);
	snapshot_compare();
}

/* ran_out: the call took at least its time. */
static void ran_out(double want)
{
	double took = seconds(CLOCK_MONOTONIC) - start;

	end();
	if (took < want)
		fail("returned after %.3f s of %.3f", took, want);
}

/*
 * interrupted: of LONG seconds left remain. At least HELD passed before the
 * checkpoint, and no more than all the time can have been used up.
 */
static void interrupted(double left)
{
	double took = seconds(CLOCK_MONOTONIC) - start;

	end();
	check_eq(woken, 1);
	if (left > LONG - HELD)
		fail("%.3f s of %d remain: the sleep began anew", left, LONG);
	if (left < LONG - took - 0.02)	/* timers are read in ticks */
		fail("%.3f s of %d remain after %.3f s", left, LONG, took);
}

/* ---- sleeping calls ---- */

static int nanosleep_point(int cycle)
{
	struct timespec t = timespec_of(SHORT);

	begin(cycle);
	check_eq(syscall(SYS_nanosleep, &t, NULL), 0);
	ran_out(SHORT);
	return 0;
}

static int nanosleep_left_point(int cycle)
{
	struct timespec t = timespec_of(LONG), left = { 0 };

	begin(cycle);
	check_eq(syscall(SYS_nanosleep, &t, &left), -1);
	check_eq(errno, EINTR);
	interrupted(left.tv_sec + left.tv_nsec / 1e9);
	return 0;
}

static int clock_relative_point(int cycle)
{
	struct timespec t = timespec_of(LONG), left = { 0 };

	begin(cycle);
	check_eq(syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &t, &left), -1);
	check_eq(errno, EINTR);
	interrupted(left.tv_sec + left.tv_nsec / 1e9);
	return 0;
}

static int clock_absolute_point(int cycle)
{
	double until = seconds(CLOCK_MONOTONIC) + SHORT;
	struct timespec t = timespec_of(until);

	begin(cycle);
	check_eq(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
	end();
	check(seconds(CLOCK_MONOTONIC) >= until - 1e-6);
	return 0;
}

static int poll_point(int cycle)
{
	begin(cycle);
	check_eq(syscall(SYS_poll, NULL, 0, (int)(SHORT * 1000)), 0);
	ran_out(SHORT);
	return 0;
}

static int poll_wake_point(int cycle)
{
	begin(cycle);
	check_eq(syscall(SYS_poll, NULL, 0, -1), -1);
	check_eq(errno, EINTR);
	end();
	check_eq(woken, 1);
	return 0;
}

static int select_left_point(int cycle)
{
	struct timeval left = { .tv_sec = LONG };

	begin(cycle);
	check_eq(syscall(SYS_select, 0, NULL, NULL, NULL, &left), -1);
	check_eq(errno, EINTR);
	interrupted(left.tv_sec + left.tv_usec / 1e6);
	return 0;
}

static int select_point(int cycle)
{
	struct timeval t = { .tv_usec = SHORT * 1e6 };

	begin(cycle);
	check_eq(syscall(SYS_select, 0, NULL, NULL, NULL, &t), 0);
	ran_out(SHORT);
	return 0;
}

/* ppoll with a mask: the program's own mask must be back afterwards. */
static int ppoll_mask_point(int cycle)
{
	uint64_t during = 1ull << (SIGTERM - 1), after;
	struct timespec t = timespec_of(LONG);

	begin(cycle);
	check_eq(syscall(SYS_ppoll, NULL, 0, &t, &during, 8), -1);
	check_eq(errno, EINTR);
	end();
	check_eq(woken, 1);
	check_eq(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &after, 8), 0);
	check_eq(after, 0);
	return 0;
}

/* ---- futex ---- */

#define FUTEX_WAIT 0
#define FUTEX_WAIT_BITSET 9

static int word;

static int futex_point(int cycle)
{
	struct timespec t = timespec_of(SHORT);

	begin(cycle);
	check_eq(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, NULL, 0), -1);
	check_eq(errno, ETIMEDOUT);
	ran_out(SHORT);
	return 0;
}

static int futex_absolute_point(int cycle)
{
	double until = seconds(CLOCK_MONOTONIC) + SHORT;
	struct timespec t = timespec_of(until);

	begin(cycle);
	check_eq(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &t, NULL, 1), -1);
	check_eq(errno, ETIMEDOUT);
	end();
	check(seconds(CLOCK_MONOTONIC) >= until - 1e-6);
	return 0;
}

static int futex_wake_point(int cycle)
{
	begin(cycle);
	check_eq(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0), -1);
	check_eq(errno, EINTR);
	end();
	check_eq(woken, 1);
	return 0;
}

/* ---- waiting for signals ---- */

static int pause_point(int cycle)
{
	begin(cycle);
	check_eq(syscall(SYS_pause), -1);
	check_eq(errno, EINTR);
	end();
	check_eq(woken, 1);
	return 0;
}

static void blocked_setup(void)
{
	uint64_t set = 1ull << (SIGUSR1 - 1) | 1ull << (SIGHUP - 1);

	wake_setup();
	check_eq(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, NULL, 8), 0);
}

static void blocked_verify(int cycle)
{
	uint64_t set;

	(void)cycle;
	check_eq(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &set, 8), 0);
	check_eq(set, 1ull << (SIGUSR1 - 1) | 1ull << (SIGHUP - 1));
}

static int sigsuspend_point(int cycle)
{
	uint64_t none = 0;

	begin(cycle);
	check_eq(syscall(SYS_rt_sigsuspend, &none, 8), -1);
	check_eq(errno, EINTR);
	end();
	check_eq(woken, 1);
	return 0;
}

/* The kernel would have it fail with EINTR (eintr.c). */
static int sigtimedwait_point(int cycle)
{
	uint64_t set = 1ull << (SIGUSR2 - 1);
	struct timespec t = timespec_of(SHORT);

	begin(cycle);
	check_eq(syscall(SYS_rt_sigtimedwait, &set, NULL, &t, 8), -1);
	check_eq(errno, EAGAIN);
	ran_out(SHORT);
	return 0;
}

/* A stopped clock: the time a program sees never runs backwards. */
static double last_monotonic;

static void monotonic_verify(int cycle)
{
	double t = seconds(CLOCK_MONOTONIC);

	(void)cycle;
	check(t >= last_monotonic);
	last_monotonic = t;
}

#define RUNS_OUT (EXTERNAL | BLOCKS)
#define WOKEN (EXTERNAL | BLOCKS | WAKE)

SCENARIOS(
	{ "nanosleep", RUNS_OUT, NULL, NULL, nanosleep_point, 0 },
	{ "nanosleep-left", WOKEN, wake_setup, NULL, nanosleep_left_point, 0 },
	{ "clock-nanosleep-relative", WOKEN, wake_setup, NULL, clock_relative_point, 0 },
	{ "clock-nanosleep-absolute", RUNS_OUT, NULL, NULL, clock_absolute_point, 0 },
	{ "poll", RUNS_OUT, NULL, NULL, poll_point, 0 },
	{ "poll-wake", WOKEN, wake_setup, NULL, poll_wake_point, 0 },
	{ "select", RUNS_OUT, NULL, NULL, select_point, 0 },
	{ "select-left", WOKEN, wake_setup, NULL, select_left_point, 0 },
	{ "ppoll-mask", WOKEN, wake_setup, NULL, ppoll_mask_point, 0 },
	{ "futex", RUNS_OUT, NULL, NULL, futex_point, 0 },
	{ "futex-absolute", RUNS_OUT, NULL, NULL, futex_absolute_point, 0 },
	{ "futex-wake", WOKEN, wake_setup, NULL, futex_wake_point, 0 },
	{ "pause", WOKEN, wake_setup, NULL, pause_point, 0 },
	{ "sigsuspend", WOKEN, blocked_setup, blocked_verify, sigsuspend_point, 0 },
	{ "sigtimedwait", RUNS_OUT, NULL, NULL, sigtimedwait_point, 0 },
	{ "monotonic", BOTH, NULL, monotonic_verify, NULL, 0 },
)
