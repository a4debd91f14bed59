/*
 * nested.c - pid namespaces within that of the first process, three deep: who is
 * in one has a number there and in each further out.
 */
#include "tree.h"

#include <sched.h>
#include <sys/wait.h>

static pid_t was, was_parent, was_group, was_session;

static void note(void)
{
	was = getpid();
	was_parent = getppid();
	was_group = getpgrp();
	was_session = getsid(0);
}

/* The numbers within such a namespace are as they were, those of outside are 0. */
static void same(void)
{
	check_eq(getpid(), was);
	check_eq(getppid(), was_parent);
	check_eq(getpgrp(), was_group);
	check_eq(getsid(0), was_session);
}

/* nest is grow of the first process of a pid namespace. */
static int nest(const struct child *c)
{
	int n = atomic_fetch_add(&control->count, 1);
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);

	if (pid < 0 && errno == EPERM)
		needs("CAP_SYS_ADMIN");
	check(pid >= 0);
	if (!pid) {
		self = n;
		check_eq(getpid(), 1);
		obey(c, 0);
	}
	await(&control->of[n].done, 1);
	return n;
}

/* fresh makes one more process, whose number nobody has, and waits for it. */
static void fresh(int first)
{
	pid_t pid = fork();
	int status;

	check(pid >= 0);
	if (!pid)
		_exit(getpid() == 1 ? 1 : getppid() == (first ? 1 : 0) ? 7 : 8);
	check(pid > 1);
	check_eq(waitpid(pid, &status, 0), pid);
	check_eq(WEXITSTATUS(status), 7);
}

/* ---- who is in one ---- */

static atomic_int *signals; /* by place */

static void count(int sig)
{
	(void)sig;
	atomic_fetch_add(&signals[self], 1);
}

static void plain_setup(void)
{
	struct sigaction sa = { .sa_handler = count };

	check_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	note();
}

static void plain_verify(int cycle)
{
	(void)cycle;
	same();
}

static const struct child plain = { plain_setup, plain_verify };

static void led_setup(void)
{
	check(setsid() > 0);
	plain_setup();
}

static const struct child led = { led_setup, plain_verify };

/* The first process of a namespace, which has others below it. */
static int mine, ended, left;

static void zone_verify(int cycle)
{
	pid_t other = control->of[mine].pid;
	siginfo_t info;

	(void)cycle;
	same();
	check_eq(getpid(), 1);
	fresh(1);
	check_eq(kill(other, 0), 0);
	for (int before = signals[mine], i = 0; signals[mine] == before; i++) {
		check(i < 20000);
		if (!i)
			check_eq(kill(other, SIGUSR1), 0);
		usleep(500);
	}
	memset(&info, 0, sizeof(info));
	check_eq(waitid(P_PID, (id_t)ended, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	check_eq(info.si_pid, ended);
	check_eq(info.si_status, 5);
	check(kill(control->of[left].sid, 0) == -1 && errno == ESRCH);
}

static void zone(const struct child *below)
{
	pid_t pid;

	note();
	mine = grow(&plain);
	ended = fork();
	check(ended >= 0);
	if (!ended)
		_exit(5);
	grow(&led);
	/* One that is taken in, and whose session nobody leads any more. */
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		int n = atomic_fetch_add(&control->count, 1);

		check(setsid() > 0);
		if (!fork()) {
			self = n;
			while (getppid() != 1)
				usleep(1000);
			obey(&plain, 1);
		}
		_exit(n);
	}
	check_eq(waitpid(pid, &left, 0), pid);
	left = WEXITSTATUS(left);
	await(&control->of[left].done, 1);
	if (below)
		nest(below);
}

static void deepest_setup(void) { zone(NULL); }

static const struct child deepest = { deepest_setup, zone_verify };

static void deeper_setup(void)
{
	check(setsid() > 0);
	zone(&deepest);
}

static const struct child deeper = { deeper_setup, zone_verify };

static void deep_setup(void) { zone(&deeper); }

static const struct child deep = { deep_setup, zone_verify };

/* ---- as unshare --pid --fork: the leader of a process group, whose further
 * children go where the first one is ---- */

static pid_t forked;

static void opener_setup(void)
{
	int n;

	check_eq(setpgid(0, 0), 0);
	check_eq(unshare(CLONE_NEWPID), 0);
	n = atomic_fetch_add(&control->count, 1);
	forked = fork();
	check(forked >= 0);
	if (!forked) {
		self = n;
		check_eq(getpid(), 1);
		obey(&deepest, 0);
	}
	await(&control->of[n].done, 1);
	note();
}

static void opener_verify(int cycle)
{
	(void)cycle;
	check_eq(getpgrp(), getpid());
	if (getpid() == was) /* the one in its group that cannot name it */
		check_eq(getpgid(forked), was);
	fresh(0);
}

static const struct child opener = { opener_setup, opener_verify };

static void nested_setup(void)
{
	share();
	signals = mmap(NULL, MOST * sizeof(*signals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(signals != MAP_FAILED);
	nest(&deep);
	grow(&opener);
}

static void nested_verify(int cycle) { all(cycle); }

/* ---- refused ---- */

static void entered_setup(void)
{
	pid_t pid;

	share();
	grow(&opener);
	check_eq(unshare(CLONE_NEWPID), 0);
	for (int i = 0; i < 2; i++) { /* the second one has a parent of outside, and is not the first */
		pid = fork();
		check(pid >= 0);
		if (!pid) {
			check_eq(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
			for (;;)
				pause();
		}
	}
}

static void left_setup(void)
{
	static const struct child grouped = { NULL, NULL };
	pid_t first;

	share();
	first = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
	check(first >= 0);
	if (!first) {
		self = 0;
		atomic_store(&control->count, 1);
		check_eq(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
		grow(&grouped);
		check(setsid() > 0); /* its child stays in a group of outside */
		atomic_store(&control->of[0].done, 1);
		for (;;)
			pause();
	}
	await(&control->of[0].done, 1);
}

static void nothing(int cycle) { (void)cycle; }

SCENARIOS(
	{ .name = "nested", .flags = EXTERNAL | ROOT, .setup = nested_setup, .verify = nested_verify },
	{ .name = "nested-entered", .flags = EXTERNAL | ROOT | REFUSED, .setup = entered_setup, .verify = nothing, .refused = EPERM },
	{ .name = "nested-left", .flags = EXTERNAL | ROOT | REFUSED, .setup = left_setup, .verify = nothing, .refused = EOPNOTSUPP },
)
