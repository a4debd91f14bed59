/*
 * pipes.c - pipes with both ends in the program, or with one end closed.
 */
#include "scenario.h"

#include <poll.h>

#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#define F_GETPIPE_SZ 1032
#endif
#ifndef O_DIRECT
#define O_DIRECT 040000
#endif

static int fds[2];
static char big[1 << 20];

static int buffered(int fd)
{
	int n;

	/* FIONREAD, which musl has in another header. */
	check_eq(syscall(SYS_ioctl, fd, 0x541b, &n), 0);
	return n;
}

/* What is in it comes out in order, with what is written later behind it. */
static void data_setup(void)
{
	check_eq(pipe(fds), 0);
	check_eq(write(fds[1], "0123456789", 10), 10);
}

static void data_verify(int cycle)
{
	char c;

	check_eq(read(fds[0], &c, 1), 1);
	check_eq(c, '0' + cycle - 1);
	check_eq(write(fds[1], "x", 1), 1);
	check_eq(buffered(fds[0]), 10);
	check_eq(fcntl(fds[0], F_GETPIPE_SZ), 65536);
}

static void empty_setup(void)
{
	check_eq(pipe2(fds, O_NONBLOCK), 0);
}

static void empty_verify(int cycle)
{
	char c;

	(void)cycle;
	check_eq(read(fds[0], &c, 1), -1);
	check_eq(errno, EAGAIN);
	check_eq(write(fds[1], "x", 1), 1);
	check_eq(read(fds[0], &c, 1), 1);
}

/* A full pipe of another size than usual. */
static void full_setup(void)
{
	check_eq(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
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
	memset(big, 0, sizeof(big));
	check_eq(read(fds[0], big, sizeof(big)), sizeof(big));
	filled(big, sizeof(big), 1);
	check_eq(write(fds[1], big, sizeof(big)), sizeof(big));
	memset(big, 0, sizeof(big));
	check_eq(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
}

/* Packets keep their bounds; the flags of the two ends differ. */
static void packets_setup(void)
{
	check_eq(pipe2(fds, O_DIRECT), 0);
	check_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	check_eq(write(fds[1], "one", 3), 3);
	check_eq(write(fds[1], "three", 5), 5);
	fill(big, 4096, 1);
	check_eq(write(fds[1], big, 4096), 4096);
}

static void packets_verify(int cycle)
{
	(void)cycle;
	check_eq(fcntl(fds[0], F_GETFL), O_RDONLY | O_NONBLOCK);
	check_eq(fcntl(fds[1], F_GETFL), O_WRONLY | O_DIRECT);
	check_eq(read(fds[0], big, sizeof(big)), 3);
	check_eq(memcmp(big, "one", 3), 0);
	check_eq(read(fds[0], big, 2), 2);	/* the rest of a packet is lost */
	check_eq(read(fds[0], big, sizeof(big)), 4096);
	filled(big, 4096, 1);
	check_eq(read(fds[0], big, 1), -1);
	check_eq(errno, EAGAIN);
	check_eq(write(fds[1], "one", 3), 3);
	check_eq(write(fds[1], "three", 5), 5);
	check_eq(write(fds[1], big, 4096), 4096);
}

/* A single packet, of which nothing but the end that writes tells. */
static void packet_setup(void)
{
	check_eq(pipe2(fds, O_DIRECT | O_NONBLOCK), 0);
	check_eq(write(fds[1], "packet", 6), 6);
}

static void packet_verify(int cycle)
{
	char c;

	(void)cycle;
	check_eq(read(fds[0], &c, 1), 1);
	check_eq(c, 'p');
	check_eq(read(fds[0], &c, 1), -1);
	check_eq(write(fds[1], "packet", 6), 6);
}

/* Only the end to read from is left: data, and then the end. */
static void reader_setup(void)
{
	check_eq(pipe(fds), 0);
	check_eq(write(fds[1], "0123456789", 10), 10);
	check_eq(close(fds[1]), 0);
}

static void reader_verify(int cycle)
{
	char buf[16];

	check_eq(read(fds[0], buf, 1), 1);
	check_eq(buf[0], '0' + cycle - 1);
	if (cycle < 3)
		return;
	check_eq(read(fds[0], buf, sizeof(buf)), 10 - cycle);
	check_eq(read(fds[0], buf, sizeof(buf)), 0);
}

/* The same on standard input, where the other end may be outside. */
static void input_setup(void)
{
	reader_setup();
	check_eq(dup2(fds[0], 0), 0);
	check_eq(close(fds[0]), 0);
	fds[0] = 0;
}

static void writer_setup(void)
{
	check_eq(pipe(fds), 0);
	check_eq(close(fds[0]), 0);
	check(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
}

static void writer_verify(int cycle)
{
	(void)cycle;
	check_eq(write(fds[1], "x", 1), -1);
	check_eq(errno, EPIPE);
}

/* Several descriptors of each end, and ends that were opened a second time. */
static int again[3], other;

static void many_setup(void)
{
	char link[64];

	check_eq(pipe(fds), 0);
	other = dup(fds[1]);
	check(other >= 0);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fds[0]);
	again[0] = open(link, O_RDONLY | O_NONBLOCK);
	again[1] = open(link, O_WRONLY);
	again[2] = open(link, O_RDWR);
	check(again[0] >= 0 && again[1] >= 0 && again[2] >= 0);
	check_eq(close(fds[1]), 0);
}

static void many_verify(int cycle)
{
	int writers[3] = { other, again[1], again[2] }, readers[3] = { fds[0], again[0], again[2] };
	char c;

	(void)cycle;
	for (int i = 0; i < 9; i++) {
		check_eq(write(writers[i / 3], "x", 1), 1);
		check_eq(read(readers[i % 3], &c, 1), 1);
	}
	check_eq(fcntl(again[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
	check_eq(fcntl(fds[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
	check_eq(fcntl(again[2], F_GETFL) & O_ACCMODE, O_RDWR);
	check_eq(fcntl(other, F_SETFL, cycle & 1 ? O_NONBLOCK : 0), 0);
	check_eq(fcntl(again[1], F_GETFL) & O_NONBLOCK, 0);
}

/* The numbers of the restarter's own descriptors, crosswise. */
static void low_setup(void)
{
	int two[2];

	check_eq(pipe(fds), 0);
	check_eq(pipe(two), 0);
	check_eq(write(fds[1], "a", 1), 1);
	check_eq(write(two[1], "b", 1), 1);
	check_eq(dup2(two[1], 0), 0);
	check_eq(dup2(fds[0], 1), 1);
	check_eq(dup2(two[0], 2), 2);
	check_eq(close(two[0]), 0);
	check_eq(close(two[1]), 0);
	check_eq(close(fds[0]), 0);
	check_eq(dup2(fds[1], 3), 3);
	if (fds[1] != 3)
		check_eq(close(fds[1]), 0);
}

static void low_verify(int cycle)
{
	char c;

	(void)cycle;
	check_eq(read(1, &c, 1), 1);
	check_eq(c, 'a');
	check_eq(read(2, &c, 1), 1);
	check_eq(c, 'b');
	check_eq(write(3, "a", 1), 1);
	check_eq(write(0, "b", 1), 1);
}

SCENARIOS(
	{ "data", BOTH, data_setup, data_verify, NULL, 0 },
	{ "empty", BOTH, empty_setup, empty_verify, NULL, 0 },
	{ "full", BOTH, full_setup, full_verify, NULL, 0 },
	{ "packets", BOTH, packets_setup, packets_verify, NULL, 0 },
	{ "packet", BOTH, packet_setup, packet_verify, NULL, 0 },
	{ "reader", BOTH, reader_setup, reader_verify, NULL, 0 },
	{ "input", BOTH, input_setup, reader_verify, NULL, 0 },
	{ "writer", BOTH, writer_setup, writer_verify, NULL, 0 },
	{ "many", BOTH, many_setup, many_verify, NULL, 0 },
	{ "low", BOTH, low_setup, low_verify, NULL, 0 },
)
