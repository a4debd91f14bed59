/*
 * events.c - eventfd, signalfd, timerfd.
 */
#include "scenario.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static int fd, fd2;

/* got takes a new descriptor, or names what is missing. */
static int got(int n, const char *what)
{
	if (n < 0 && (errno == ENOSYS || errno == EPERM))
		needs("%s", what);
	if (n < 0)
		fail("%s: errno %d", what, errno);
	return n;
}

static int ready(int n, int events, int timeout)
{
	struct pollfd p = { .fd = n, .events = (short)events };

	return poll(&p, 1, timeout);
}

static uint64_t take(int n)
{
	uint64_t value;

	check_eq(read(n, &value, sizeof(value)), sizeof(value));
	return value;
}

static void give(int n, uint64_t value)
{
	check_eq(write(n, &value, sizeof(value)), sizeof(value));
}

/* ---- eventfd ---- */

static void counter_setup(void)
{
	fd = got(eventfd(7, EFD_CLOEXEC), "eventfd");
	fd2 = dup(fd);
	check(fd2 >= 0);
}

static void counter_verify(int cycle)
{
	check_eq(take(fd), 6 + cycle);
	check_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	give(fd2, 7 + cycle);
}

/* Up to the limit, so that it is not writable. */
static void limit_setup(void)
{
	fd = got(eventfd(0, EFD_NONBLOCK), "eventfd");
	give(fd, UINT64_MAX - 1);
}

static void limit_verify(int cycle)
{
	uint64_t one = 1;

	(void)cycle;
	check_eq(ready(fd, POLLOUT, 0), 0);
	check_eq(write(fd, &one, 8), -1);
	check_eq(errno, EAGAIN);
	check_eq(take(fd), (long long)(UINT64_MAX - 1));
	check_eq(read(fd, &one, 8), -1);
	give(fd, UINT64_MAX - 1);
}

static void semaphore_setup(void)
{
	fd = got(eventfd(5, EFD_SEMAPHORE | EFD_NONBLOCK), "eventfd");
}

static void semaphore_verify(int cycle)
{
	uint64_t n;

	check_eq(take(fd), 1);
	if (cycle < 3)
		return;
	for (int i = cycle; i < 5; i++)
		check_eq(take(fd), 1);
	check_eq(read(fd, &n, 8), -1);
}

/* ---- signalfd ---- */

static void signalfd_setup(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	check_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	fd = got(signalfd(-1, &set, SFD_NONBLOCK), "signalfd");
	check_eq(kill(getpid(), SIGUSR1), 0);
}

static void signalfd_verify(int cycle)
{
	struct signalfd_siginfo info;

	(void)cycle;
	check_eq(read(fd, &info, sizeof(info)), sizeof(info));
	check_eq(info.ssi_signo, SIGUSR1);
	check_eq(read(fd, &info, sizeof(info)), -1);
	check_eq(errno, EAGAIN);
	check_eq(kill(getpid(), SIGRTMAX), 0);
	check_eq(read(fd, &info, sizeof(info)), sizeof(info));
	check_eq(info.ssi_signo, SIGRTMAX);
	check_eq(kill(getpid(), SIGUSR1), 0);
}

/* ---- timerfd ---- */

static struct itimerspec spec, now;

static void timer(clockid_t clock, int flags)
{
	fd = got(timerfd_create(clock, TFD_NONBLOCK), "timerfd");
	check_eq(timerfd_settime(fd, flags, &spec, NULL), 0);
}

/* Far away: the time that is left only falls. */
static void remaining_setup(void)
{
	spec.it_value.tv_sec = 5000;
	spec.it_interval.tv_sec = 70;
	spec.it_interval.tv_nsec = 123456789;
	timer(CLOCK_BOOTTIME, 0);
	now.it_value.tv_sec = 5000;
}

static void remaining_verify(int cycle)
{
	struct itimerspec before = now;

	(void)cycle;
	check_eq(timerfd_gettime(fd, &now), 0);
	check_eq(now.it_interval.tv_sec, 70);
	check_eq(now.it_interval.tv_nsec, 123456789);
	check(now.it_value.tv_sec < before.it_value.tv_sec ||
	      (now.it_value.tv_sec == before.it_value.tv_sec && now.it_value.tv_nsec <= before.it_value.tv_nsec));
	check(now.it_value.tv_sec > 4000);
	check_eq(ready(fd, POLLIN, 0), 0);
}

/* A date stays that date. */
static void date_setup(void)
{
	check_eq(clock_gettime(CLOCK_REALTIME, &spec.it_value), 0);
	spec.it_value.tv_sec += 5000;
	timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
}

static void date_verify(int cycle)
{
	struct timespec date;
	double left, want;

	(void)cycle;
	check_eq(timerfd_gettime(fd, &now), 0);
	check_eq(clock_gettime(CLOCK_REALTIME, &date), 0);
	left = (double)now.it_value.tv_sec + (double)now.it_value.tv_nsec / 1e9;
	want = (double)(spec.it_value.tv_sec - date.tv_sec) + (double)(spec.it_value.tv_nsec - date.tv_nsec) / 1e9;
	/* It may be seen later than it was saved, by what a load of the machine makes of two calls. */
	if (left - want > 1 || want - left > 1)
		fail("%f seconds left, not %f", left, want);
}

/* Expired once and not read. */
static void expired_setup(void)
{
	spec.it_value.tv_nsec = 1;
	timer(CLOCK_MONOTONIC, 0);
	check_eq(ready(fd, POLLIN, -1), 1);
}

static void expired_verify(int cycle)
{
	(void)cycle;
	check_eq(ready(fd, POLLIN, 0), 1);
	check_eq(take(fd), 1);
	check_eq(timerfd_gettime(fd, &now), 0);
	check_eq(now.it_value.tv_sec, 0);
	check_eq(now.it_value.tv_nsec, 0);
	check_eq(timerfd_settime(fd, 0, &spec, NULL), 0);
	check_eq(ready(fd, POLLIN, -1), 1);
}

/* One that beats: no expiration is forgotten. */
static double begun;

static void beat_setup(void)
{
	spec.it_value.tv_nsec = spec.it_interval.tv_nsec = 1000000;
	begun = seconds(CLOCK_MONOTONIC);
	timer(CLOCK_MONOTONIC, 0);
	while (seconds(CLOCK_MONOTONIC) < begun + 0.02)
		;
}

static void beat_verify(int cycle)
{
	(void)cycle;
	/* Twenty before the point; between save and restart time stood still. */
	check(take(fd) >= 19);
	check_eq(ready(fd, POLLIN, -1), 1);
	take(fd);
	begun = seconds(CLOCK_MONOTONIC);
	while (seconds(CLOCK_MONOTONIC) < begun + 0.02)
		;
}

/* Not armed, though it has an interval. */
static void disarmed_setup(void)
{
	spec.it_interval.tv_nsec = 1000;
	timer(CLOCK_MONOTONIC, 0);
}

static void disarmed_verify(int cycle)
{
	(void)cycle;
	check_eq(timerfd_gettime(fd, &now), 0);
	check_eq(now.it_value.tv_nsec, 0);
	check_eq(ready(fd, POLLIN, 10), 0);
}

SCENARIOS(
	{ "counter", BOTH, counter_setup, counter_verify, NULL, 0 },
	{ "limit", BOTH, limit_setup, limit_verify, NULL, 0 },
	{ "semaphore", BOTH, semaphore_setup, semaphore_verify, NULL, 0 },
	{ "signalfd", BOTH, signalfd_setup, signalfd_verify, NULL, 0 },
	{ "remaining", BOTH, remaining_setup, remaining_verify, NULL, 0 },
	{ "date", BOTH, date_setup, date_verify, NULL, 0 },
	{ "expired", BOTH, expired_setup, expired_verify, NULL, 0 },
	{ "beat", BOTH, beat_setup, beat_verify, NULL, 0 },
	{ "disarmed", BOTH, disarmed_setup, disarmed_verify, NULL, 0 },
)
