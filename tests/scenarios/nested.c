/*
 * nested.c - pid namespaces within that of the first process, three deep: who is
 * in one has a number there and in each further out.
 */
#include "tree.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
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

/* ---- with mounts, a host name and IPC of their own, one within the other ---- */

static char mounts[1 << 16];

/* mounted reads /proc/self/mountinfo, without the numbers of mounts and devices. */
static void mounted(char *to, size_t size)
{
	char line[4096], *rest;
	FILE *f = fopen("/proc/self/mountinfo", "r");

	check(f != NULL);
	*to = 0;
	while (fgets(line, sizeof(line), f)) {
		rest = line;
		for (int i = 0; i < 3; i++)
			rest = strchr(rest, ' ') + 1;
		check(strlen(to) + strlen(rest) < size);
		strcat(to, rest);
	}
	check_eq(fclose(f), 0);
}

/* What /proc shows are the few processes of the namespace, by their numbers in it. */
static void listed(int least)
{
	struct dirent *e;
	DIR *dir = opendir("/proc");
	char text[16] = "";
	int n = 0;

	check(dir != NULL);
	check(readlink("/proc/self", text, sizeof(text) - 1) > 0);
	check_eq(atoi(text), getpid());
	while ((e = readdir(dir)))
		if (atoi(e->d_name)) {
			check(atoi(e->d_name) < 1000);
			n++;
		}
	check_eq(closedir(dir), 0);
	check(n >= least && n <= least + 1); /* one that has just been made to be waited for */
}

static int setting(int value)
{
	FILE *f = fopen("/proc/sys/kernel/msgmnb", value ? "w" : "r");

	check(f != NULL);
	if (value)
		check(fprintf(f, "%d", value) > 0);
	else
		check_eq(fscanf(f, "%d", &value), 1);
	check_eq(fclose(f), 0);
	return value;
}

static int jails;	/* how deep this one lies */

static void jail_verify(int cycle)
{
	static char now[sizeof(mounts)];
	char host[64], want[64];
	struct stat st;

	(void)cycle;
	same();
	check_eq(getpid(), 1);
	check_eq(gethostname(host, sizeof(host)), 0);
	snprintf(want, sizeof(want), "jail%d", jails);
	check(!strcmp(host, want));
	mounted(now, sizeof(now));
	check(!strcmp(now, mounts));
	listed(jails == 2 ? 1 : 3); /* with who has opened the inner one, and its first process */
	check_eq(setting(0), 9000 + jails);
	check_eq(stat(path("bound/inside", -1), &st), 0);
	check(stat(path("empty/inside", -1), &st) == -1 && errno == ENOENT);
	fresh(1);
}

static void opens_jail(void);

static void jailer_verify(int cycle)
{
	(void)cycle;
	if (jails > 1) /* the outer one has a number of the first process's namespace alone */
		same();
}

static const struct child jailer = { opens_jail, jailer_verify };

static void jail_setup(void)
{
	check_eq(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), 0);
	if (jails < 2)
		grow(&jailer);
	note();
	mounted(mounts, sizeof(mounts));
}

static const struct child jail = { jail_setup, jail_verify };

/* As unshare --pid --fork --mount-proc --uts --ipc. */
static void opens_jail(void)
{
	char name[64];
	int n;

	jails++;
	check_eq(unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC), 0);
	check_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	snprintf(name, sizeof(name), "jail%d", jails);
	check_eq(sethostname(name, strlen(name)), 0);
	setting(9000 + jails);
	if (jails == 1) {
		check_eq(mount(path("source", -1), path("bound", -1), NULL, MS_BIND, NULL), 0);
		check_eq(mount(NULL, path("bound", -1), NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
		check_eq(mount("none", path("empty", -1), "tmpfs", MS_NOSUID, "size=64k,mode=700"), 0);
	}
	n = atomic_fetch_add(&control->count, 1);
	forked = fork();
	check(forked >= 0);
	if (!forked) {
		self = n;
		obey(&jail, 0);
	}
	await(&control->of[n].done, 1);
	note();
}

static char outside_host[64], outside_mounts[1 << 16];

static void jails_setup(void)
{
	static const char *const dirs[] = { "empty", "bound", "source", "source/inside" };

	share();
	signals = mmap(NULL, MOST * sizeof(*signals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(signals != MAP_FAILED);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		check_eq(mkdir(path(dirs[i], -1), 0777), 0);
	check_eq(mkdir(path("empty/inside", -1), 0777), 0);
	grow(&jailer);
	check_eq(gethostname(outside_host, sizeof(outside_host)), 0);
	mounted(outside_mounts, sizeof(outside_mounts));
}

static void jails_verify(int cycle)
{
	static char now[sizeof(outside_mounts)];
	char host[64];
	struct stat st;

	check_eq(gethostname(host, sizeof(host)), 0);
	check(!strcmp(host, outside_host));
	mounted(now, sizeof(now));
	check(!strcmp(now, outside_mounts));
	check_eq(stat(path("empty/inside", -1), &st), 0);
	all(cycle);
}

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
	{ .name = "jails", .flags = EXTERNAL | ROOT, .setup = jails_setup, .verify = jails_verify },
	{ .name = "nested-entered", .flags = EXTERNAL | ROOT | REFUSED, .setup = entered_setup, .verify = nothing, .refused = EPERM },
	{ .name = "nested-left", .flags = EXTERNAL | ROOT | REFUSED, .setup = left_setup, .verify = nothing, .refused = EOPNOTSUPP },
)
