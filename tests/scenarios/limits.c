/*
 * limits.c - what a process may use: the resource limits of getrlimit(2).
 */
#include "scenario.h"

#include <sys/resource.h>

enum { N = 16 };

static struct rlimit before[N];

static void ask(void)
{
	for (int i = 0; i < N; i++)
		check_eq(getrlimit(i, &before[i]), 0);
}

static void verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < N; i++) {
		struct rlimit now;

		check_eq(getrlimit(i, &now), 0);
		check_eq(now.rlim_cur, before[i].rlim_cur);
		check_eq(now.rlim_max, before[i].rlim_max);
	}
}

static void set(int resource, rlim_t soft, rlim_t hard)
{
	struct rlimit l = { soft, hard };

	check_eq(setrlimit(resource, &l), 0);
}

/* Every one is another, and lower than what the restarter has. */
static void all_setup(void)
{
	ask();
	for (int i = 0; i < N; i++) {
		rlim_t most = before[i].rlim_max;

		if (most > 1000000)
			most = i == RLIMIT_FSIZE || i == RLIMIT_AS || i == RLIMIT_DATA ? 1ULL << 40 : 1000000ULL + (rlim_t)i;
		set(i, most - most / 4, most);
	}
	ask();
}

/* size is what /proc/self/status says, in bytes. */
static rlim_t size(const char *key)
{
	char line[256];
	rlim_t kb = 0;
	FILE *f = fopen("/proc/self/status", "r");

	check(f != NULL);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kb = strtoull(line + strlen(key), NULL, 10);
	check_eq(fclose(f), 0);
	return kb << 10;
}

/* What a checkpoint needs for a moment. */
#define ROOM ((rlim_t)32 << 20)

/* Limits that would stand in the way of a restart. */
static void low_setup(void)
{
	set(RLIMIT_NOFILE, 4, 16);
	set(RLIMIT_NPROC, 1, 1);
	set(RLIMIT_AS, size("VmSize:") + ROOM, size("VmSize:") + ROOM);
	set(RLIMIT_DATA, size("VmData:") + ROOM, size("VmData:") + ROOM);
	set(RLIMIT_STACK, 65536, 65536);
	set(RLIMIT_MEMLOCK, 0, 0);
	set(RLIMIT_SIGPENDING, 0, 0);
	set(RLIMIT_MSGQUEUE, 0, 0);
	set(RLIMIT_CORE, 0, 0);
	ask();
}

static void low_verify(int cycle)
{
	verify(cycle);
	check(mmap(NULL, 2 * ROOM, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	check_eq(errno, ENOMEM);
	check_eq(dup2(1, 5), -1);
	check_eq(errno, EBADF);
}

/* The usual soft limits, but a queue of signals that is shorter than it is long. */
static void queue_setup(void)
{
	sigset_t all;

	sigfillset(&all);
	check_eq(sigprocmask(SIG_BLOCK, &all, NULL), 0);
	for (int i = 0; i < 20; i++)
		check_eq(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = i }), 0);
	set(RLIMIT_SIGPENDING, 3, 3);
	ask();
}

static void queue_verify(int cycle)
{
	sigset_t one;
	siginfo_t info;

	verify(cycle);
	if (cycle < 3)
		return;
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 1);
	for (int i = 0; i < 20; i++) {
		check_eq(sigwaitinfo(&one, &info), SIGRTMIN + 1);
		check_eq(info.si_value.sival_int, i);
	}
}

/* Descriptors that it has opened while it might. */
static void descriptors_setup(void)
{
	struct rlimit l;
	int high;

	check_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	high = (int)l.rlim_max - 1;
	set(RLIMIT_NOFILE, l.rlim_max, l.rlim_max);
	check_eq(dup2(1, high), high);
	set(RLIMIT_NOFILE, 8, l.rlim_max);
	ask();
}

static void descriptors_verify(int cycle)
{
	verify(cycle);
	check(fcntl((int)before[RLIMIT_NOFILE].rlim_max - 1, F_GETFD) >= 0);
}

/* ---- settings of the process ---- */

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	check(fd >= 0);
	check_eq(write(fd, text, strlen(text)), strlen(text));
	check_eq(close(fd), 0);
}

static void reads(const char *name, const char *want)
{
	char text[64] = "";
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	check(read(fd, text, sizeof(text) - 1) > 0);
	check_eq(close(fd), 0);
	if (strcmp(text, want))
		fail("%s is %s, not %s", name, text, want);
}

static void settings_setup(void)
{
	write_file("/proc/self/oom_score_adj", "321");
	check_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	ask();
}

static void settings_verify(int cycle)
{
	int subreaper = 0;

	verify(cycle);
	reads("/proc/self/oom_score_adj", "321\n");
	check_eq(prctl(PR_GET_CHILD_SUBREAPER, &subreaper, 0, 0, 0), 0);
	check_eq(subreaper, 1);
}

SCENARIOS(
	{ .name = "all", .flags = BOTH, .setup = all_setup, .verify = verify },
	{ .name = "low", .flags = EXTERNAL | BARE, .setup = low_setup, .verify = low_verify },
	{ .name = "queue", .flags = BOTH, .setup = queue_setup, .verify = queue_verify },
	{ .name = "settings", .flags = BOTH, .setup = settings_setup, .verify = settings_verify },
	{ .name = "descriptors", .flags = BOTH, .setup = descriptors_setup, .verify = descriptors_verify },
)
