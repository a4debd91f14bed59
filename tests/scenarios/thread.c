/*
 * thread.c - what the kernel remembers for a thread's library: robust list,
 * clear_child_tid, restartable sequences.
 */
#include "scenario.h"

#include <sched.h>
#include <stddef.h>

/* ---- robust list ---- */

static struct { void *next; long offset; void *pending; } robust = { &robust, 0, NULL };

static void robust_setup(void)
{
	check_eq(syscall(SYS_set_robust_list, &robust, sizeof(robust)), 0);
}

static void robust_verify(int cycle)
{
	void *head;
	size_t len;

	(void)cycle;
	check_eq(syscall(SYS_get_robust_list, 0, &head, &len), 0);
	check(head == &robust);
	check_eq(len, sizeof(robust));
}

/* ---- clear_child_tid ---- */

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

static int tid_word = 1;

static void tid_setup(void)
{
	int *at;

	if (prctl(PR_GET_TID_ADDRESS, &at))
		needs("CONFIG_CHECKPOINT_RESTORE");
	check(syscall(SYS_set_tid_address, &tid_word) > 0);
}

static void tid_verify(int cycle)
{
	int *at;

	(void)cycle;
	check_eq(prctl(PR_GET_TID_ADDRESS, &at), 0);
	check(at == &tid_word);
	check_eq(tid_word, 1);
}

/* ---- restartable sequences ---- */

struct rseq_area {
	uint32_t cpu_id_start, cpu_id;
	uint64_t rseq_cs;
	uint32_t flags, node_id, mm_cid, pad;
} __attribute__((aligned(32)));

#define RSEQ_SIGNATURE 0x53053053

#ifdef __GLIBC__
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));
#endif

static struct rseq_area own_area;
static volatile struct rseq_area *area;

static void rseq_setup(void)
{
#ifdef __GLIBC__
	if (&__rseq_size && __rseq_size) {
		area = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
		return;
	}
#endif
	if (syscall(SYS_rseq, &own_area, sizeof(own_area), 0, RSEQ_SIGNATURE))
		needs("rseq(2)");
	area = &own_area;
}

/* Registered means: the kernel writes the number of the cpu we run on. */
static void rseq_verify(int cycle)
{
	cpu_set_t all, one;
	int cpu, tried = 0;

	(void)cycle;
	check_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	for (cpu = 0; cpu < CPU_SETSIZE && tried < 2; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		tried++;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		check_eq(sched_setaffinity(0, sizeof(one), &one), 0);
		check_eq(area->cpu_id, cpu);
		check_eq(area->cpu_id_start, cpu);
	}
	check_eq(sched_setaffinity(0, sizeof(all), &all), 0);
}

/* A program that wants none has none afterwards, either. */
static void rseq_none_setup(void)
{
	rseq_setup();
	if (area == &own_area)
		check_eq(syscall(SYS_rseq, &own_area, sizeof(own_area), 1, RSEQ_SIGNATURE), 0);
#ifdef __GLIBC__
	else
		check_eq(syscall(SYS_rseq, area, 32, 1, RSEQ_SIGNATURE), 0);
#endif
}

static void rseq_none_verify(int cycle)
{
	static struct rseq_area fresh;

	(void)cycle;
	/* Nothing is registered: a new registration is taken, and given back. */
	check_eq(syscall(SYS_rseq, &fresh, sizeof(fresh), 0, RSEQ_SIGNATURE), 0);
	check_eq(syscall(SYS_rseq, &fresh, sizeof(fresh), 1, RSEQ_SIGNATURE), 0);
}

/* ---- switches of prctl(2) ---- */

#ifndef PR_MCE_KILL
#define PR_MCE_KILL 33
#define PR_MCE_KILL_GET 34
#endif
#ifndef PR_SET_SPECULATION_CTRL
#define PR_GET_SPECULATION_CTRL 52
#define PR_SET_SPECULATION_CTRL 53
#endif

static long speculation;

static void switches_setup(void)
{
	check_eq(prctl(PR_SET_TSC, PR_TSC_SIGSEGV), 0);
	check_eq(prctl(PR_MCE_KILL, 1 /* set */, 1 /* early */, 0, 0), 0);
	/* store bypass, where a processor has it */
	(void)prctl(PR_SET_SPECULATION_CTRL, 0, 4 /* disable */, 0, 0);
	speculation = prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0);
	check_eq(prctl(PR_SET_TSC, PR_TSC_ENABLE), 0); /* the clock reads it */
}

static void switches_verify(int cycle)
{
	int tsc;

	(void)cycle;
	check_eq(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), 1);
	check_eq(prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0), speculation);
	check_eq(prctl(PR_GET_TSC, &tsc), 0);
	check_eq(tsc, PR_TSC_ENABLE);
}

SCENARIOS(
	{ "switches", BOTH, switches_setup, switches_verify, NULL, 0 },
	{ "robust-list", BOTH, robust_setup, robust_verify, NULL, 0 },
	{ "clear-child-tid", BOTH, tid_setup, tid_verify, NULL, 0 },
	{ "rseq", BOTH, rseq_setup, rseq_verify, NULL, 0 },
	{ "rseq-none", BOTH, rseq_none_setup, rseq_none_verify, NULL, 0 },
)
