/*
 * undo.c - adjustments of System V semaphores (SEM_UNDO): what the kernel is to
 * take back when a process ends.
 *
 * A process that gives its list of them up, as it does when it ends, sees by the
 * values what they were.
 */
#include "scenario.h"

#include <pthread.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/sem.h>

enum { SEMS = 5 };

static int set = -1, other = -1;
static unsigned short begin[SEMS] = { 5, 0, 30000, 32767, 7 };

static void op(int n, int by, int flags)
{
	check_eq(semop(set, &(struct sembuf){ (unsigned short)n, (short)by, (short)(IPC_NOWAIT | flags) }, 1), 0);
}

static void take(void)
{
	op(0, -2, SEM_UNDO);
	op(0, -1, SEM_UNDO);
	op(1, 3, SEM_UNDO);
	op(2, -20000, SEM_UNDO);
	op(3, -32767, SEM_UNDO);
	op(4, -1, 0);	/* is not taken back */
	op(4, 1, 0);
}

static void values(const unsigned short *want)
{
	unsigned short now[SEMS];

	check_eq(semctl(set, 0, GETALL, now), 0);
	for (int i = 0; i < SEMS; i++)
		if (now[i] != want[i])
			fail("semaphore %d is %d, not %d", i, now[i], want[i]);
}

static const unsigned short taken[SEMS] = { 2, 3, 10000, 0, 7 };

static void make(void)
{
	/* Everybody's: whoever may not try them cannot tell that he has none. */
	set = semget(IPC_PRIVATE, SEMS, 0666);
	if (set < 0)
		needs("System V semaphores");
	other = semget(IPC_PRIVATE, 300, 0666);	/* used, but not adjusted */
	check(other >= 0);
	check_eq(semctl(set, 0, SETALL, begin), 0);
	check_eq(semop(other, &(struct sembuf){ 299, 1, 0 }, 1), 0);
}

static void undo_setup(void)
{
	make();
	take();
}

/* The last one removes the sets: the original of a self checkpoint does not. */
static void leave(int cycle)
{
	if (cycle < 3 || (!scenario_external && !access(path("taken", cycle), F_OK) && access(path("saved", cycle), F_OK)))
		return;
	check_eq(semctl(set, 0, IPC_RMID), 0);
	check_eq(semctl(other, 0, IPC_RMID), 0);
}

static void undo_verify(int cycle)
{
	values(taken);
	check_eq(semctl(other, 299, GETVAL), 1);
	check_eq(semctl(other, 0, GETVAL), 0);
	check_eq(unshare(CLONE_SYSVSEM), 0);
	values(begin);
	take();
	leave(cycle);
}

/* Of all threads together: what one has taken goes back with the last of them. */
static pthread_mutex_t go = PTHREAD_MUTEX_INITIALIZER;

static void *thread(void *arg)
{
	take();
	*(volatile int *)arg = 1;
	check_eq(pthread_mutex_lock(&go), 0);
	check_eq(unshare(CLONE_SYSVSEM), 0);
	return arg;
}

static pthread_t one;

static void start(void)
{
	volatile int done = 0;

	check_eq(pthread_mutex_lock(&go), 0);
	check_eq(pthread_create(&one, NULL, thread, (void *)&done), 0);
	while (!done)
		usleep(1000);
}

static void threads_setup(void)
{
	make();
	start();
}

static void threads_verify(int cycle)
{
	values(taken);
	check_eq(unshare(CLONE_SYSVSEM), 0);
	values(taken);	/* the thread has them yet */
	check_eq(pthread_mutex_unlock(&go), 0);
	check_eq(pthread_join(one, NULL), 0);
	values(begin);
	check_eq(pthread_mutex_unlock(&go), 0);
	start();
	leave(cycle);
}

SCENARIOS(
	{ "undo", BOTH, undo_setup, undo_verify, NULL, 0 },
	{ "threads", BOTH, threads_setup, threads_verify, NULL, 0 },
)
