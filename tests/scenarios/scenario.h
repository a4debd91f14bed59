/*
 * scenario.h - the frame of a program that is checkpointed, and judges itself.
 *
 *	PROGRAM                                   lists its scenarios
 *	PROGRAM SCENARIO self|external DIR CYCLES runs one
 *
 * A scenario builds some state (setup), passes a point at which it is
 * checkpointed, and looks at the state again (verify); then on to the next
 * point, CYCLES times. DIR is an absolute path.
 *
 *   self      the program calls checkpoint() itself, image in DIR/img.N. In
 *             the original (crid > 0) it writes DIR/taken.N, waits for
 *             DIR/go.N, verifies, writes DIR/saved.N and ends; in the restored
 *             process (0) it goes on.
 *   external  the program writes DIR/ready.N and waits for DIR/go.N; somebody
 *             else checkpoints, kills and restarts it meanwhile.
 *
 * Where a scenario changes files of its own in DIR, the harness puts them back
 * to what they were at the point before it restarts the image.
 *
 * Every file it writes holds the pid of the writer. The verdict is one line
 * in DIR/result: PASS, FAIL why, or SKIP needs: what. It goes to a file
 * because a pipe could not be saved and because standard output may be part
 * of a scenario.
 *
 * Around each point the frame itself compares what /proc/self says of the
 * process: mappings with their flags, descriptors, offsets, status, names,
 * argument and environment areas. A scenario adds what only a program that
 * uses the state can see.
 *
 * Needs nothing but libc headers: musl-gcc finds no <linux/...>.
 */
#ifndef SCENARIO_H
#define SCENARIO_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef __NR_checkpoint
#define __NR_checkpoint 1000
#endif

/* Where a scenario runs, and what the harness does to it. */
enum {
	SELF = 1,	/* runs in mode self */
	EXTERNAL = 2,	/* runs in mode external */
	BOTH = SELF | EXTERNAL,
	ROOT = 4,	/* only as root */
	BLOCKS = 8,	/* external: wait until the task sleeps, then a little */
	WAKE = 16,	/* send SIGUSR1 after the restart (and to the original) */
	REFUSED = 32,	/* external: checkpoint must fail with .refused */
	BARE = 64,	/* the frame does not compare /proc/self */
	CALL = 128,	/* self: restarted by call only, since the tool would run under a filter */
};

struct scenario {
	const char *name;
	int flags;
	void (*setup)(void);
	void (*verify)(int cycle);
	/* Replaces the frame's own point. Returns as checkpoint(), external: 0. */
	int (*point)(int cycle);
	int refused;	/* errno */
};

static const struct scenario *scenario;
static const char *scenario_dir;
static int scenario_external;
static const char *const *scenario_argv;

/* ---- verdict ---- */

/* path returns DIR/NAME.N, in a buffer that the next call but three reuses. */
__attribute__((unused)) static char *path(const char *name, int n)
{
	static char ring[4][4096];
	static int next;
	char *p = ring[next++ & 3];

	if (n >= 0)
		snprintf(p, sizeof(ring[0]), "%s/%s.%d", scenario_dir, name, n);
	else
		snprintf(p, sizeof(ring[0]), "%s/%s", scenario_dir, name);
	return p;
}

/* put writes a whole file at once: readers see all of it or none. */
static int put(const char *name, int n, const char *text)
{
	char tmp[4200];
	char *to = path(name, n);
	size_t len = strlen(text);
	int fd;

	snprintf(tmp, sizeof(tmp), "%s.new", to);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return -1;
	if (write(fd, text, len) != (ssize_t)len || close(fd) || rename(tmp, to))
		return -1;
	return 0;
}

/* verdict ends the program; format may be NULL. */
__attribute__((noreturn, format(printf, 2, 3)))
static void verdict(const char *word, const char *format, ...)
{
	char text[4096];
	int n = snprintf(text, sizeof(text), "%s %s", word, scenario->name);
	va_list ap;

	va_start(ap, format);
	if (format)
		vsnprintf(text + n, sizeof(text) - n, format, ap);
	va_end(ap);
	if (*word == 'F' && !access(path("result", -1), F_OK))
		_exit(1); /* another process of the scenario has said why */
	if (put("result", -1, text))
		_exit(99);
	_exit(*word == 'F');
}

#define fail(format, ...) \
	verdict("FAIL", ": %s:%d: " format, __FILE__, __LINE__, ##__VA_ARGS__)
/* needs ends a scenario that this machine or user cannot run. */
#define needs(format, ...) verdict("SKIP", ": needs: " format, ##__VA_ARGS__)

#define check(cond) do { \
	if (!(cond)) \
		fail("not so: %s (errno %d)", #cond, errno); \
} while (0)

#define check_eq(got, want) do { \
	long long got_ = (long long)(got), want_ = (long long)(want); \
	if (got_ != want_) \
		fail("%s is %lld (%#llx), not %lld (%#llx) (errno %d)", #got, got_, \
		     (unsigned long long)got_, want_, (unsigned long long)want_, errno); \
} while (0)

/* ---- time and patterns ---- */

__attribute__((unused)) static double seconds(clockid_t clock)
{
	struct timespec t;

	check_eq(clock_gettime(clock, &t), 0);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* pattern is the byte at place i of a region with this seed. */
__attribute__((unused)) static unsigned char pattern(size_t i, unsigned seed)
{
	return (unsigned char)((i * 2654435761u >> 13) ^ (i >> 9) ^ seed * 29u);
}

__attribute__((unused)) static void fill(void *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		((unsigned char *)p)[i] = pattern(i, seed);
}

__attribute__((unused)) static void filled(const void *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		if (((const unsigned char *)p)[i] != pattern(i, seed))
			fail("byte %zu of the region at %p differs", i, p);
}

/* ---- faults ---- */

static sigjmp_buf fault_jump;

__attribute__((unused)) static void fault_handler(int sig)
{
	siglongjmp(fault_jump, sig);
}

/* faults returns the signal that reading or writing *p raises, or 0. */
__attribute__((unused)) static int faults(volatile char *p, int write)
{
	struct sigaction sa = { .sa_handler = fault_handler }, segv, bus;
	volatile int sig;

	check_eq(sigaction(SIGSEGV, &sa, &segv), 0);
	check_eq(sigaction(SIGBUS, &sa, &bus), 0);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig) {
		if (write)
			*p = *p;
		else
			(void)*p;
	}
	check_eq(sigaction(SIGSEGV, &segv, NULL), 0);
	check_eq(sigaction(SIGBUS, &bus, NULL), 0);
	return sig;
}

#include "snapshot.h"

/* ---- the point ---- */

static void announce(const char *what, int cycle)
{
	char text[32];

	snprintf(text, sizeof(text), "%d\n", (int)syscall(SYS_getpid));
	if (put(what, cycle, text))
		_exit(98);
}

/* told says whether the harness wants us to go on. */
static int told(int cycle)
{
	return access(path("go", cycle), F_OK) == 0;
}

/* open_image opens the image of a self checkpoint. */
static int open_image(int cycle)
{
	int fd = open(path("img", cycle), O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		fail("open image: errno %d", errno);
	snapshot_ignore_fd = fd;
	return fd;
}

static void close_image(int fd)
{
	snapshot_ignore_fd = -1;
	check_eq(close(fd), 0);
}

__attribute__((unused)) static int self_point(int cycle)
{
	int fd = open_image(cycle);
	long crid;

	snapshot(&snapshot_before);
	crid = syscall(__NR_checkpoint, getpid(), fd, 0UL);
	if (scenario->flags & REFUSED) {
		struct stat st;

		if (crid >= 0)
			fail("checkpoint returned %ld, not %s", crid, strerror(scenario->refused));
		if (errno != scenario->refused)
			fail("checkpoint failed with %s, not %s", strerror(errno), strerror(scenario->refused));
		check_eq(fstat(fd, &st), 0);
		check_eq(st.st_size, 0);
	} else if (crid < 0) {
		fail("checkpoint: %s", strerror(errno));
	}
	snapshot(&snapshot_after);
	snapshot_compare();
	close_image(fd);
	return (int)crid;
}

/* wait_told sleeps until the harness wants us to go on. */
static void wait_told(int cycle)
{
	struct timespec ms = { .tv_nsec = 1000000 };

	for (int i = 0; !told(cycle); i++) {
		if (i > 30000)
			fail("nobody wrote go.%d", cycle);
		syscall(SYS_nanosleep, &ms, NULL);
	}
}

__attribute__((unused)) static int external_point(int cycle)
{
	snapshot(&snapshot_before);
	announce("ready", cycle);
	wait_told(cycle);
	snapshot(&snapshot_after);
	snapshot_compare();
	return 0;
}

/*
 * own_output gives the program a standard output and error of its own: those
 * that it was started with are shared with the supervisor, whose messages
 * move their offset.
 */
static void own_output(void)
{
	int fd = open(path("log.program", -1), O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || close(fd))
		_exit(96);
}

/* run is main without the list of scenarios. */
__attribute__((unused)) static int run(int argc, char *argv[], const struct scenario *table, size_t n)
{
	int cycles, crid;
	size_t i;

	if (argc == 1) {
		for (i = 0; i < n; i++)
			printf("%s %d %s\n", table[i].name, table[i].flags,
			       table[i].flags & REFUSED ? strerror(table[i].refused) : "");
		return 0;
	}
	if (argc != 5 || argv[3][0] != '/')
		return 2;
	for (i = 0; i < n && strcmp(table[i].name, argv[1]); i++)
		;
	if (i == n)
		return 2;
	scenario = &table[i];
	scenario_external = !strcmp(argv[2], "external");
	scenario_dir = argv[3];
	scenario_argv = (const char *const *)argv;
	cycles = atoi(argv[4]);
	own_output();

	if (scenario->setup)
		scenario->setup();
	for (int cycle = 1; cycle <= cycles; cycle++) {
		if (scenario->point)
			crid = scenario->point(cycle);
		else
			crid = scenario_external ? external_point(cycle) : self_point(cycle);
		if (crid > 0) {
			announce("taken", cycle);
			wait_told(cycle);
		}
		if (scenario->verify)
			scenario->verify(cycle);
		if (crid > 0) {
			announce("saved", cycle);
			_exit(0);
		}
	}
	verdict("PASS", NULL);
}

#define SCENARIOS(...) \
	static const struct scenario scenarios[] = { __VA_ARGS__ }; \
	int main(int argc, char *argv[]) \
	{ \
		return run(argc, argv, scenarios, sizeof(scenarios) / sizeof(*scenarios)); \
	}

#endif
