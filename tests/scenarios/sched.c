/*
 * sched.c - when and where threads run: policies, nice values, processors, I/O
 * priorities.
 */
#include "scenario.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

/* struct sched_attr, which not every C library has. */
struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

enum { BATCH = 3, IDLE = 5, DEADLINE = 6 };

struct sched {
	struct attr attr;
	long nice, ioprio;
	unsigned char cpus[1024];
};

static void ask(struct sched *s)
{
	memset(s, 0, sizeof(*s));
	check_eq(syscall(SYS_sched_getattr, 0, &s->attr, sizeof(s->attr), 0), 0);
	s->nice = syscall(SYS_getpriority, PRIO_PROCESS, 0);
	s->ioprio = syscall(SYS_ioprio_get, 1, 0);
	check(syscall(SYS_sched_getaffinity, 0, sizeof(s->cpus), s->cpus) > 0);
}

static void unchanged(const struct sched *was)
{
	struct sched now;

	ask(&now);
	check_eq(now.attr.policy, was->attr.policy);
	check_eq(now.attr.flags, was->attr.flags);
	check_eq(now.attr.nice, was->attr.nice);
	check_eq(now.attr.priority, was->attr.priority);
	check_eq(now.attr.runtime, was->attr.runtime);
	check_eq(now.attr.deadline, was->attr.deadline);
	check_eq(now.attr.period, was->attr.period);
	check_eq(now.nice, was->nice);
	check_eq(now.ioprio, was->ioprio);
	check_eq(memcmp(now.cpus, was->cpus, sizeof(now.cpus)), 0);
}

static struct sched before;

static void verify(int cycle)
{
	(void)cycle;
	unchanged(&before);
}

static void set(uint32_t policy, int nice, uint32_t priority, uint64_t flags, uint64_t slice)
{
	struct attr a = { .size = 48, .policy = policy, .nice = nice, .priority = priority, .flags = flags, .runtime = slice };

	check_eq(syscall(SYS_sched_setattr, 0, &a, 0), 0);
}

/* What anybody may do to itself. */
static void meek_setup(void)
{
	unsigned char one[1024] = { 1 };

	set(BATCH, 7, 0, 1, 0);
	check_eq(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6), 0);
	check_eq(syscall(SYS_sched_setaffinity, 0, sizeof(one), one), 0);
	ask(&before);
	check_eq(before.nice, 13);
}

static void slice_setup(void)
{
	set(0, 3, 0, 0, 5000000);
	ask(&before);
}

static void idle_setup(void)
{
	check_eq(setpriority(PRIO_PROCESS, 0, 4), 0);
	set(IDLE, 0, 0, 0, 0);
	check_eq(syscall(SYS_ioprio_set, 1, 0, 3 << 13), 0);
	ask(&before);
}

/* What takes CAP_SYS_NICE. */
static void nicer_setup(void)
{
	set(0, -11, 0, 0, 0);
	check_eq(syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 2), 0);
	ask(&before);
}

static void realtime_setup(void)
{
	check_eq(setpriority(PRIO_PROCESS, 0, 6), 0);
	set(SCHED_FIFO, 0, 3, 1, 0);
	ask(&before);
	check_eq(before.nice, 14);
}

static void deadline_setup(void)
{
	struct attr a = { .size = 48, .policy = DEADLINE, .runtime = 20000000, .deadline = 90000000, .period = 100000000 };

	if (syscall(SYS_sched_setattr, 0, &a, 0))
		needs("processor time for SCHED_DEADLINE");
	ask(&before);
}

/* ---- threads ---- */

static struct who {
	void (*set)(void);
	struct sched sched;
	volatile int ready, ask, told;
} others[3];

static void thread_batch(void) { set(BATCH, 9, 0, 0, 0); }

static void thread_idle(void) { set(IDLE, 0, 0, 0, 0); }

static void thread_bound(void)
{
	unsigned char one[1024] = { 1 };

	check_eq(syscall(SYS_sched_setaffinity, 0, sizeof(one), one), 0);
	check_eq(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 1), 0);
}

static void *other(void *arg)
{
	struct who *w = arg;

	w->set();
	ask(&w->sched);
	w->ready = 1;
	for (;;) {
		while (!w->ask)
			usleep(1000);
		unchanged(&w->sched);
		w->ask = 0;
		w->told = 1;
	}
	return NULL;
}

static void threads_setup(void)
{
	void (*const set[])(void) = { thread_batch, thread_idle, thread_bound };
	pthread_t t;

	for (int i = 0; i < 3; i++) {
		others[i].set = set[i];
		check_eq(pthread_create(&t, NULL, other, &others[i]), 0);
		while (!others[i].ready)
			usleep(1000);
	}
	ask(&before);
}

static void threads_verify(int cycle)
{
	verify(cycle);
	for (int i = 0; i < 3; i++) {
		others[i].told = 0;
		others[i].ask = 1;
		while (!others[i].told)
			usleep(1000);
	}
}

SCENARIOS(
	{ .name = "meek", .flags = BOTH, .setup = meek_setup, .verify = verify },
	{ .name = "slice", .flags = BOTH, .setup = slice_setup, .verify = verify },
	{ .name = "idle", .flags = BOTH, .setup = idle_setup, .verify = verify },
	{ .name = "nicer", .flags = BOTH | ROOT, .setup = nicer_setup, .verify = verify },
	{ .name = "realtime", .flags = BOTH | ROOT, .setup = realtime_setup, .verify = verify },
	{ .name = "deadline", .flags = BOTH | ROOT, .setup = deadline_setup, .verify = verify },
	{ .name = "threads", .flags = BOTH, .setup = threads_setup, .verify = threads_verify },
)
