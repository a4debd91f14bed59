/*
 * tree.h - the frame of a scenario of several processes.
 *
 * The children do what they are told by shared memory, and end with their
 * parent.
 */
#ifndef TREE_H
#define TREE_H

#include "scenario.h"

#include <signal.h>
#include <stdatomic.h>

enum { MOST = 25 };

/* What all share. */
static struct control {
	atomic_int turn, count;
	struct {
		atomic_int done;
		atomic_int pid, ppid, pgrp, sid;
	} of[MOST];
	char page[1 << 16];
} *control;

struct child {
	void (*setup)(void);
	void (*verify)(int cycle);
};

static int self = -1;	/* place among the children, -1 in the parent */

static void await(atomic_int *what, int least)
{
	for (int i = 0; atomic_load(what) < least; i++) {
		if (i > 50000) /* how long the harness takes is its own matter */
			fail("child %d waits for %d, and it is %d", self, least, atomic_load(what));
		usleep(i < 20 ? 200 : 5000);
	}
}

static void report(void)
{
	control->of[self].pid = getpid();
	control->of[self].ppid = getppid();
	control->of[self].pgrp = getpgrp();
	control->of[self].sid = getsid(0);
}

static void obey(const struct child *c, int parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(97);
	if (c->setup)
		c->setup();
	report();
	atomic_store(&control->of[self].done, 1);
	for (int cycle = 1;; cycle++) {
		await(&control->turn, 2 * cycle);
		report();
		atomic_store(&control->of[self].done, 2 * cycle);
		await(&control->turn, 2 * cycle + 1);
		if (c->verify)
			c->verify(cycle);
		atomic_store(&control->of[self].done, 2 * cycle + 1);
	}
}

/* grow makes a child, and waits until it is set up. */
__attribute__((unused)) static int grow(const struct child *c)
{
	int n = atomic_fetch_add(&control->count, 1);
	pid_t parent = getpid(), pid;

	check(n < MOST);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		self = n;
		obey(c, parent);
	}
	await(&control->of[n].done, 1);
	return n;
}

__attribute__((unused)) static void share(void)
{
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(control != MAP_FAILED);
}

/* all has every child tell who it is by now, and then verify. */
__attribute__((unused)) static void all(int cycle)
{
	for (int turn = 2 * cycle; turn <= 2 * cycle + 1; turn++) {
		atomic_store(&control->turn, turn);
		for (int i = 0; i < control->count; i++)
			await(&control->of[i].done, turn);
	}
}

#endif
