/*
 * team.c - tasks that call restart() together, in many wrong ways.
 *
 *	team MODE DIR
 *
 * The image of a tree is DIR/img; all its processes but the first are children
 * of that. This program makes as many tasks, writes their process ids into
 * DIR/img and has them call restart(). DIR/errno.I is what it failed with in task
 * I, which has then proved that it is as it was. The verdict is in DIR/result, as
 * scenarios have it, by whoever comes out of it.
 */
#include "../scenarios/scenario.h"

#include <sys/wait.h>

enum { TREE = 101, MOST = 8 };

struct pids { int32_t vpid, vtgid, vppid, padding; };

static struct pids was[MOST];
static off_t list;	/* where it is in the image */
static int tasks, image;
static const char *mode;
static volatile sig_atomic_t handled;

static int is(const char *m) { return !strcmp(mode, m); }

static void handler(int sig) { handled = sig; }

static void read_list(void)
{
	struct { int16_t type, len; uint32_t parent; } h;
	uint32_t n;
	off_t at = 0;

	for (;; at += sizeof(h) + h.len) {
		check_eq(pread(image, &h, sizeof(h), at), sizeof(h));
		if (h.type == TREE)
			break;
	}
	check_eq(pread(image, &n, sizeof(n), at + sizeof(h)), sizeof(n));
	check(n > 1 && n < MOST);
	tasks = n;
	list = at + sizeof(h) + h.len;
	check_eq(pread(image, was, tasks * sizeof(*was), list), tasks * sizeof(*was));
}

/* attempt calls restart(), and proves that nothing has changed if it fails. */
static void attempt(int i, pid_t root)
{
	char text[32];
	int err;

	snapshot(&snapshot_before);
	check_eq(syscall(__NR_checkpoint + 1, root, image, 0UL), -1);
	err = errno;
	snapshot_allow_scratch = is("unserved");	/* nobody is left to take it away */
	snapshot(&snapshot_after);
	snapshot_compare();
	snprintf(text, sizeof(text), "%d", err);
	check_eq(put("errno", i, text), 0);
}

static void member(int i)
{
	int last = i == tasks - 1;
	pid_t root = getppid();

	check_eq(prctl(PR_SET_PDEATHSIG, is("lost") ? 0 : SIGKILL), 0);
	while (access(path("pids", 0), F_OK))
		usleep(1000);
	if (is("late"))
		usleep(150000);
	if (is("extra") && i == 1)	/* who is too many is told before all are there */
		while (access(path("errno", tasks), F_OK))
			usleep(1000);
	if (last && is("missing"))
		_exit(0);
	if (last && is("session"))
		check(setsid() > 0);
	if (last && is("descriptor"))
		for (int fd = 10; fd < 40; fd++)
			check_eq(dup2(image, fd), fd);
	check_eq(put("calling", i, ""), 0);
	snapshot_ignore_fd = image;	/* its offset is the first task's */
	attempt(i, root);
	if (is("signal"))
		check_eq(handled, SIGUSR1);
	_exit(0);
}

/* make makes task i, and writes who it is into the image. */
static pid_t make(int i)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0)
		member(i);
	if (i < tasks) {
		struct pids now = { pid, pid, getpid(), was[i].padding };

		check_eq(pwrite(image, &now, sizeof(now), list + i * sizeof(now)), sizeof(now));
	}
	return pid;
}

static void wait_for(int i)
{
	while (access(path("calling", i), F_OK))
		usleep(1000);
}

/* lead is what the first task does. */
static void lead(void)
{
	struct pids now = { getpid(), getpid(), was[0].vppid, was[0].padding };
	int made = tasks + (is("extra") ? 1 : 0), status;
	pid_t pid[MOST];

	check_eq(pwrite(image, &now, sizeof(now), list), sizeof(now));
	for (int i = 1; i < made; i++)
		pid[i] = make(i);
	check_eq(put("pids", 0, ""), 0);
	if (is("early"))
		usleep(150000);
	if (is("lost")) {
		for (int i = 1; i < made; i++)
			wait_for(i);
		usleep(50000);
		_exit(0);
	}
	if (is("killed")) {
		wait_for(1);
		check_eq(kill(pid[1], SIGKILL), 0);
	}
	for (int i = 1; is("signal") && i < made; i++) {
		wait_for(i);
		while (waitpid(pid[i], &status, WNOHANG) == 0) {
			check_eq(kill(pid[i], SIGUSR1), 0);
			usleep(20000);
		}
		check_eq(status, 0);
	}
	if (is("unserved"))
		snapshot_ignore_fd = image;	/* its offset may be behind the image already */
	if (!is("signal"))
		attempt(0, getpid());
	if (!is("unserved"))
		check_eq(lseek(image, 0, SEEK_CUR), 0);
	while (wait(&status) > 0)
		check(status == 0 || is("killed"));
	verdict("PASS", NULL);
}

int main(int argc, char *argv[])
{
	static const struct scenario team = { .name = "team" };
	struct sigaction sa = { .sa_handler = handler };
	int status;
	pid_t pid;

	if (argc != 3)
		return 2;
	scenario = &team;
	mode = argv[1];
	scenario_dir = argv[2];
	own_output();
	image = open(path("img", -1), O_RDWR);
	check(image >= 0);
	read_list();
	check_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	if (!is("lost"))
		lead();

	/* One that outlives the first task sees what has become of the others. */
	check_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	pid = fork();
	check(pid >= 0);
	if (pid == 0)
		lead();
	while (wait(&status) > 0)
		check_eq(status, 0);
	verdict("PASS", NULL);
}
