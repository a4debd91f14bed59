/*
 * daemons.c - processes that were taken in by the first one when their parents
 * had ended, in sessions that nobody leads any more, or that a brother leads.
 */
#include "tree.h"

#include <sys/wait.h>

static pid_t first;
static pid_t ended;	/* who led a session, and was not waited for */
static pid_t was;	/* the first one, when all was set up */
static int brother;	/* place of one that leads a session */

/* orphan makes a child that comes to the first process when its parent ends. */
static void orphan(const struct child *c)
{
	int n = atomic_fetch_add(&control->count, 1);
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		self = n;
		while (getppid() != first)
			usleep(1000);
		obey(c, first);
	}
}

/* zombie is the child that has ended with that status. */
static pid_t zombie(int status)
{
	char name[64];
	siginfo_t info;
	int pid;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/task/%d/children", getpid());
	f = fopen(name, "r");
	check(f != NULL);
	while (fscanf(f, "%d", &pid) == 1) {
		memset(&info, 0, sizeof(info));
		check_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
		if (info.si_pid == pid && info.si_status == status) {
			check_eq(fclose(f), 0);
			return pid;
		}
	}
	fail("no child has ended with %d", status);
}

/* The session has no leader, and is of those who were in it. */
static void of_nobody(int n)
{
	pid_t sid = control->of[n].sid;

	check_eq(control->of[n].ppid, getpid());
	check(sid != getsid(0) && sid != control->of[n].pid);
	check(kill(sid, 0) == -1 && errno == ESRCH);
}

static void daemon_verify(int cycle)
{
	(void)cycle;
	check_eq(getpgrp(), getsid(0));
}

static void own_group(void) { check_eq(setpgid(0, 0), 0); }

static void own_verify(int cycle)
{
	(void)cycle;
	check_eq(getpgrp(), getpid());
}

static const struct child plain, grouped = { own_group, own_verify }, daemonised = { NULL, daemon_verify };

/* A daemon with children of its own, and one that has only the session with it. */
static void busy_setup(void)
{
	grow(&plain);
	grow(&grouped);
}

static const struct child busy = { busy_setup, daemon_verify };

static pid_t twice(void)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid) {
		check(setsid() > 0);
		orphan(&busy);
		orphan(&grouped);
		_exit(0);
	}
	return pid;
}

/* One that leads its session yet, and whose child has made another one and ended. */
static void leading(void)
{
	pid_t pid;

	check(setsid() > 0);
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		orphan(&plain);
		_exit(0);
	}
	check_eq(waitpid(pid, NULL, 0), pid);
}

static const struct child leads = { leading, NULL };

static void settle(void)
{
	for (int i = 0; i < control->count; i++)
		await(&control->of[i].done, 1);
}

static void daemons_setup(void)
{
	siginfo_t info;
	pid_t pid, lone;

	check_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	share();
	was = first = getpid();
	pid = twice();
	check_eq(waitpid(pid, NULL, 0), pid);
	await(&control->count, 2);
	settle();
	ended = fork();
	check(ended >= 0);
	if (!ended) {
		check(setsid() > 0);
		orphan(&daemonised);
		_exit(9);
	}
	await(&control->count, 5);
	settle();
	lone = fork();
	check(lone >= 0);
	if (!lone)
		_exit(setsid() > 0 ? 4 : 5);
	check_eq(waitid(P_PID, (id_t)lone, &info, WEXITED | WNOWAIT), 0);
	brother = grow(&leads);
	settle();
	check_eq(control->count, 7);
}

static void daemons_verify(int cycle)
{
	pid_t lone;

	all(cycle);
	/* 0 and 1 are of one session, and so are 2 and 3, the children of 0; 4 is of
	 * that of who has ended, and 6 of that of 5. */
	of_nobody(0);
	of_nobody(1);
	check_eq(control->of[0].sid, control->of[1].sid);
	for (int i = 2; i < 4; i++)
		check_eq(control->of[i].sid, control->of[0].sid);
	lone = control->of[4].sid;
	check(lone != control->of[0].sid);
	check_eq(control->of[5].sid, control->of[5].pid);
	check_eq(control->of[6].sid, control->of[5].pid);
	check_eq(control->of[6].ppid, getpid());
	/* Who led it is there yet, with his status and his number. */
	check_eq(zombie(9), lone);
	/* And so is one that has led a session alone. */
	check_eq(getsid(zombie(4)), zombie(4));
	if (getpid() == was)
		check_eq(lone, ended);
}

/* ---- what two have taken in cannot come of one leader ---- */

static void step(char n) { *(volatile char *)control->page = n; }

static void reached(char n)
{
	while (*(volatile char *)control->page < n)
		usleep(1000);
}

static void takes_in(void)
{
	pid_t grandparent = first, pid = fork();

	check(pid >= 0);
	if (!pid) {
		check(setsid() > 0);
		pid = fork();
		check(pid >= 0);
		if (!pid) {
			orphan(&plain); /* to the first one */
			_exit(0);
		}
		check_eq(waitpid(pid, NULL, 0), pid);
		check_eq(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
		first = getppid();
		step(1);
		reached(2);
		orphan(&plain); /* to the one that takes in by then */
		_exit(0);
	}
	reached(1);
	check_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	step(2);
	check_eq(waitpid(pid, NULL, 0), pid);
	first = grandparent;
}

static const struct child taker = { takes_in, NULL };

static void parted_setup(void)
{
	check_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	share();
	first = getpid();
	grow(&taker);
	settle();
	check_eq(control->count, 3);
}

/* ---- a session whose leader is further up ---- */

static void outside_setup(void)
{
	pid_t parent = getpid(), pid = fork();
	int status;

	check(pid >= 0);
	if (pid) { /* who leads the session, and is not saved */
		check_eq(waitpid(pid, &status, 0), pid);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 96);
	}
	check_eq(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
	check_eq(getppid(), parent);
	share();
	grow(&plain);
	check(setsid() > 0); /* leaving its child behind */
}

static void all_verify(int cycle) { all(cycle); }

SCENARIOS(
	{ .name = "daemons", .flags = EXTERNAL, .setup = daemons_setup, .verify = daemons_verify },
	{ .name = "two-parents", .flags = EXTERNAL | REFUSED, .setup = parted_setup, .verify = all_verify, .refused = EOPNOTSUPP },
	{ .name = "led-outside", .flags = EXTERNAL | REFUSED, .setup = outside_setup, .verify = all_verify, .refused = EOPNOTSUPP },
)
