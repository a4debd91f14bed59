/*
 * fifos.c - named pipes that nobody else has open.
 */
#include "scenario.h"

#include <poll.h>

#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#define F_GETPIPE_SZ 1032
#endif

static int fds[2] = { -1, -1 };
static char big[1 << 18];

static int opened(int flags)
{
	int fd = open(path("fifo", -1), flags);

	check(fd >= 0);
	return fd;
}

static void both(int flags)
{
	check_eq(mkfifo(path("fifo", -1), 0600), 0);
	fds[0] = opened(O_RDONLY | O_NONBLOCK);
	fds[1] = opened(O_WRONLY | flags);
}

static int events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	check(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* What is in it comes out in order, and the name still leads to it. */
static void data_setup(void)
{
	both(0);
	check_eq(write(fds[1], "0123456789", 10), 10);
}

static void data_verify(int cycle)
{
	char c;
	int fd;

	check_eq(fcntl(fds[0], F_GETFL) & ~0100000, O_RDONLY | O_NONBLOCK);	/* O_LARGEFILE */
	check_eq(read(fds[0], &c, 1), 1);
	check_eq(c, '0' + cycle - 1);
	fd = opened(O_WRONLY | O_NONBLOCK);	/* somebody reads */
	check_eq(write(fd, "x", 1), 1);
	check_eq(close(fd), 0);
}

static void full_setup(void)
{
	both(O_NONBLOCK | O_CLOEXEC);
	check_eq(fcntl(fds[0], F_SETPIPE_SZ, sizeof(big)), sizeof(big));
	fill(big, sizeof(big), 1);
	check_eq(write(fds[1], big, sizeof(big)), sizeof(big));
	memset(big, 0, sizeof(big));
}

static void full_verify(int cycle)
{
	(void)cycle;
	check_eq(fcntl(fds[0], F_GETPIPE_SZ), sizeof(big));
	check_eq(write(fds[1], "x", 1), -1);
	check_eq(errno, EAGAIN);
	check_eq(read(fds[0], big, sizeof(big)), sizeof(big));
	filled(big, sizeof(big), 1);
	check_eq(write(fds[1], big, sizeof(big)), sizeof(big));
	memset(big, 0, sizeof(big));
}

/* One descriptor for both ends, and a second name for the same pipe. */
static void single_setup(void)
{
	check_eq(mkfifo(path("fifo", -1), 0600), 0);
	fds[0] = opened(O_RDWR);
	fds[1] = dup(fds[0]);
	check_eq(write(fds[0], "abc", 3), 3);
}

static void single_verify(int cycle)
{
	char buf[3];

	(void)cycle;
	check_eq(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[0], fds[1]), 0);
	check_eq(read(fds[1], buf, 3), 3);
	check_eq(memcmp(buf, "abc", 3), 0);
	check_eq(events(fds[0]), POLLOUT);
	check_eq(write(fds[0], "abc", 3), 3);
}

/* Only the end to read from, and nobody has ever written. */
static void unmet_setup(void)
{
	check_eq(mkfifo(path("fifo", -1), 0600), 0);
	fds[0] = opened(O_RDONLY | O_NONBLOCK);
	check_eq(events(fds[0]), 0);
}

static void unmet_verify(int cycle)
{
	char c;

	check_eq(events(fds[0]), 0);
	check_eq(read(fds[0], &c, 1), 0);
	if (cycle < 3)
		return;
	fds[1] = opened(O_WRONLY | O_NONBLOCK);
	check_eq(write(fds[1], "x", 1), 1);
	check_eq(close(fds[1]), 0);
	check_eq(events(fds[0]), POLLIN | POLLHUP);
	check_eq(read(fds[0], &c, 1), 1);
}

/* Only the end to read from, with what a writer has left. */
static void left_setup(void)
{
	both(0);
	check_eq(write(fds[1], "0123456789", 10), 10);
	check_eq(close(fds[1]), 0);
}

static void left_verify(int cycle)
{
	char buf[16];

	check_eq(events(fds[0]), POLLIN | POLLHUP);
	check_eq(read(fds[0], buf, 1), 1);
	check_eq(buf[0], '0' + cycle - 1);
	if (cycle < 3)
		return;
	check_eq(read(fds[0], buf, sizeof(buf)), 10 - cycle);
	check_eq(events(fds[0]), POLLHUP);
	check_eq(read(fds[0], buf, sizeof(buf)), 0);
}

/* Only the end to write to. */
static void writer_setup(void)
{
	both(0);
	check_eq(close(fds[0]), 0);
}

static void writer_verify(int cycle)
{
	char c;

	check_eq(events(fds[1]), POLLOUT | POLLERR);
	check(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	check_eq(write(fds[1], "x", 1), -1);
	check_eq(errno, EPIPE);
	if (cycle < 3)
		return;
	fds[0] = opened(O_RDONLY);
	check_eq(write(fds[1], "x", 1), 1);
	check_eq(read(fds[0], &c, 1), 1);
}

SCENARIOS(
	{ "data", BOTH, data_setup, data_verify, NULL, 0 },
	{ "full", BOTH, full_setup, full_verify, NULL, 0 },
	{ "single", BOTH, single_setup, single_verify, NULL, 0 },
	{ "unmet", BOTH, unmet_setup, unmet_verify, NULL, 0 },
	{ "left", BOTH, left_setup, left_verify, NULL, 0 },
	{ "writer", BOTH, writer_setup, writer_verify, NULL, 0 },
)
