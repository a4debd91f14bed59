/*
 * tree.c - a program and its children, which are saved together.
 */
#include "tree.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- pipes from one to the next ---- */

static int chain[3][2];

static void middle_verify(int cycle)
{
	char c;

	for (int i = 0; i < 3; i++) {
		check_eq(read(chain[0][0], &c, 1), 1);
		check_eq(c, 'a' + cycle + i);
		c++;
		check_eq(write(chain[1][1], &c, 1), 1);
	}
}

static void last_verify(int cycle)
{
	char c;

	for (int i = 0; i < 3; i++) {
		check_eq(read(chain[1][0], &c, 1), 1);
		check_eq(c, 'b' + cycle + i);
		check_eq(write(chain[2][1], &c, 1), 1);
	}
}

static void middle_setup(void)
{
	check_eq(close(chain[0][1]), 0);
	check_eq(close(chain[1][0]), 0);
	check_eq(close(chain[2][0]), 0);
	check_eq(close(chain[2][1]), 0);
}

static void last_setup(void)
{
	check_eq(close(chain[0][1]), 0);
	check_eq(close(chain[0][0]), 0);
	check_eq(close(chain[1][1]), 0);
	check_eq(close(chain[2][0]), 0);
}

static const struct child middle = { middle_setup, middle_verify }, last = { last_setup, last_verify };

static void feed(int cycle)
{
	char c;

	for (int i = 0; i < 3; i++) {
		c = 'a' + cycle + i;
		check_eq(write(chain[0][1], &c, 1), 1);
	}
}

static void pipes_setup(void)
{
	share();
	for (int i = 0; i < 3; i++)
		check_eq(pipe(chain[i]), 0);
	grow(&middle);
	grow(&last);
	/* Neither end of the one in the middle is the parent's any more. */
	check_eq(close(chain[0][0]), 0);
	check_eq(close(chain[1][0]), 0);
	check_eq(close(chain[1][1]), 0);
	check_eq(close(chain[2][1]), 0);
	feed(1);
}

static void pipes_verify(int cycle)
{
	char c;

	all(cycle);
	for (int i = 0; i < 3; i++) {
		check_eq(read(chain[2][0], &c, 1), 1);
		check_eq(c, 'b' + cycle + i);
	}
	feed(cycle + 1);
}

/* ---- sessions and process groups ---- */

static void alone_setup(void) { check(setsid() > 0); }
static void group_setup(void) { check_eq(setpgid(0, 0), 0); }

static void alone_verify(int cycle)
{
	(void)cycle;
	check_eq(getsid(0), getpid());
	check_eq(getpgrp(), getpid());
}

static void group_verify(int cycle)
{
	(void)cycle;
	check_eq(getpgrp(), getpid());
	check_eq(getsid(0), getsid(getppid()));
}

static const struct child plain, grouped = { group_setup, group_verify };

/* One that leads a session, and has a child from before it did. */
static void late_setup(void)
{
	grow(&plain);	/* 2: of the session that this one leaves */
	alone_setup();
	grow(&grouped);	/* 3: of the new one */
}

static void late_verify(int cycle)
{
	alone_verify(cycle);
	check_eq(getsid(control->of[2].pid), getsid(getppid()));
	check_eq(getsid(control->of[3].pid), getpid());
}

static const struct child alone = { alone_setup, alone_verify }, late = { late_setup, late_verify };

/* A group whose leader has ended. */
static pid_t leader;

static void orphan_setup(void) { check_eq(setpgid(0, leader), 0); }

static void orphan_verify(int cycle)
{
	(void)cycle;
	check_eq(getpgrp(), control->of[4].pgrp);
	check(getpgrp() != getpgid(getppid()));
	check(getpgrp() != getpid());
}

static const struct child orphan = { orphan_setup, orphan_verify };

static void groups_setup(void)
{
	share();
	grow(&alone);
	grow(&late);
	leader = fork();
	check(leader >= 0);
	if (!leader) {
		pause();
		_exit(0);
	}
	check_eq(setpgid(leader, leader), 0);
	grow(&orphan);
	grow(&orphan);
	check_eq(kill(leader, SIGKILL), 0);
	check_eq(waitpid(leader, NULL, 0), leader);
}

static void groups_verify(int cycle)
{
	all(cycle);
	for (int i = 0; i < control->count; i++) {
		check_eq(control->of[i].ppid, i == 2 || i == 3 ? control->of[1].pid : getpid());
		check_eq(getpgid(control->of[i].pid), control->of[i].pgrp);
	}
	check_eq(control->of[4].pgrp, control->of[5].pgrp);
}

/* ---- children that have ended ---- */

static pid_t ended[3];

static void zombies_setup(void)
{
	share();
	grow(&plain);
	for (int i = 0; i < 3; i++) {
		ended[i] = fork();
		check(ended[i] >= 0);
		if (!ended[i]) {
			if (i == 0)
				_exit(7);
			raise(i == 1 ? SIGTERM : SIGKILL);
			_exit(99);
		}
	}
	for (int i = 0; i < 3; i++) {
		siginfo_t info;

		check_eq(waitid(P_PID, ended[i], &info, WEXITED | WNOWAIT), 0);
	}
}

static void zombies_verify(int cycle)
{
	int status, seen[3] = { 0 };

	all(cycle);
	if (cycle < 3)
		return;
	for (int i = 0; i < 3; i++) {
		check(waitpid(-1, &status, WNOHANG) > 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
			seen[0]++;
		else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM)
			seen[1]++;
		else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			seen[2]++;
		else
			fail("status %#x", status);
	}
	check(seen[0] == 1 && seen[1] == 1 && seen[2] == 1);
	check_eq(waitpid(-1, &status, WNOHANG), 0);
}

/* ---- memory: shared, and private since the fork ---- */

static char *private, *inner;

static void memory_child(int cycle)
{
	filled(private, 1 << 20, self + 100 + (cycle > 1));
	fill(private, 1 << 20, self + 101);
	control->page[self * 64]++;
	filled(inner, 4096, 55);
}

static void memory_begin(void)
{
	filled(private, 1 << 20, 3);
	fill(private, 1 << 20, self + 100);
}

static const struct child remembers = { memory_begin, memory_child };

static void memory_setup(void)
{
	share();
	private = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	inner = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(private != MAP_FAILED && inner != MAP_FAILED);
	fill(private, 1 << 20, 3);
	fill(inner, 1 << 20, 55);
	for (int i = 0; i < 5; i++)
		grow(&remembers);
}

static void memory_verify(int cycle)
{
	all(cycle);
	filled(private, 1 << 20, 3);
	for (int i = 0; i < 5; i++)
		check_eq(control->page[i * 64], cycle);
}

/* ---- memory of the huge page pool, shared and private ---- */

enum { HUGE = 2 << 20 };

static char *huge, *huge_own;

static char *map_huge(int flags)
{
	char *p = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		needs("huge pages (vm.nr_hugepages)");
	return p;
}

static void huge_child(int cycle)
{
	filled(huge, HUGE, 7);
	check_eq(huge[HUGE + self], cycle);
	huge[HUGE + 100 + self] = (char)(cycle + self);
	filled(huge_own, 5000, self + 1);
}

/* Each changes what it has of its own. */
static void huge_begin(void) { fill(huge_own, 5000, self + 1); }

static const struct child uses_huge = { huge_begin, huge_child };

static void huge_setup(void)
{
	share();
	huge = map_huge(MAP_SHARED);
	huge_own = map_huge(MAP_PRIVATE);
	fill(huge, HUGE, 7);
	fill(huge_own, 5000, 0);
	for (int i = 0; i < 2; i++)
		grow(&uses_huge);
}

static void huge_verify(int cycle)
{
	for (int i = 0; i < 2; i++)
		huge[HUGE + i] = (char)cycle;
	all(cycle);
	for (int i = 0; i < 2; i++)
		check_eq(huge[HUGE + 100 + i], cycle + i);
	filled(huge_own, 5000, 0);
}

/* ---- open files: shared offsets, own ones, locks ---- */

static int common, owned, locked;

static void files_begin(void)
{
	char name[32];

	sprintf(name, "own%d", self);
	owned = open(path(name, -1), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(owned >= 0);
	check_eq(write(owned, "0123456789", 10), 10);
	check_eq(lseek(owned, self, SEEK_SET), self);
	if (self == 0) {
		struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4 };

		check_eq(fcntl(locked, F_SETLK, &l), 0);
	}
}

static void files_child(int cycle)
{
	check_eq(lseek(owned, 0, SEEK_CUR), self + cycle - 1);
	check_eq(lseek(owned, 1, SEEK_CUR), self + cycle);
	check_eq(lseek(common, 1, SEEK_CUR) > 0, 1);
}

static const struct child reader = { files_begin, files_child };

static void files_setup(void)
{
	share();
	common = open(path("common", -1), O_RDWR | O_CREAT | O_TRUNC, 0600);
	locked = open(path("locked", -1), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(common >= 0 && locked >= 0);
	check_eq(write(common, "abcdefghijklmnopqrstuvwxyz", 26), 26);
	check_eq(lseek(common, 0, SEEK_SET), 0);
	for (int i = 0; i < 3; i++)
		grow(&reader);
}

static void files_verify(int cycle)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	all(cycle);
	check_eq(lseek(common, 0, SEEK_CUR), 3 * cycle);
	check_eq(fcntl(locked, F_GETLK, &l), 0);
	check_eq(l.l_type, F_WRLCK);
	check_eq(l.l_pid, control->of[0].pid);
	check_eq(l.l_start, 3);
	check_eq(l.l_len, 4);
}

/* ---- sockets between children ---- */

static int pair[2], server = -1;

static void socket_name(struct sockaddr_un *a)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof(a->sun_path), "%s", path("s", -1));
}

static void server_begin(void)
{
	struct sockaddr_un a;

	socket_name(&a);
	check_eq(close(pair[1]), 0);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	check(server >= 0);
	unlink(a.sun_path);
	check_eq(bind(server, (void *)&a, sizeof(a)), 0);
	check_eq(listen(server, 5), 0);
}

static void server_child(int cycle)
{
	struct epoll_event e = { .events = EPOLLIN };
	int ep = epoll_create1(0), c;
	char b[8];

	(void)cycle;
	check_eq(epoll_ctl(ep, EPOLL_CTL_ADD, server, &e), 0);
	check_eq(read(pair[0], b, 5), 5);
	check(!memcmp(b, "hello", 5));
	check_eq(epoll_wait(ep, &e, 1, 10000), 1);
	c = accept(server, NULL, NULL);
	check(c >= 0);
	check_eq(read(c, b, 2), 2);
	check(!memcmp(b, "hi", 2));
	check_eq(close(c), 0);
	check_eq(close(ep), 0);
}

static void client_begin(void)
{
	check_eq(close(pair[0]), 0);
	check_eq(write(pair[1], "hello", 5), 5);
}

static void client_child(int cycle)
{
	struct sockaddr_un a;
	int c = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)cycle;
	socket_name(&a);
	check_eq(connect(c, (void *)&a, sizeof(a)), 0);
	check_eq(write(c, "hi", 2), 2);
	check_eq(close(c), 0);
	check_eq(write(pair[1], "hello", 5), 5);
}

static const struct child serves = { server_begin, server_child }, asks = { client_begin, client_child };

static void sockets_setup(void)
{
	share();
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	grow(&serves);
	grow(&asks);
	check_eq(close(pair[0]), 0);
	check_eq(close(pair[1]), 0);
}

static void all_verify(int cycle) { all(cycle); }

/* ---- many generations, and threads in them ---- */

static atomic_int ticks;

static void *tick(void *unused)
{
	for (;;) {
		ticks++;
		usleep(1000);
	}
	return unused;
}

static void deep_begin(void);
static void deep_child(int cycle)
{
	int before = ticks;

	(void)cycle;
	await(&ticks, before + 2);
}

static const struct child deep = { deep_begin, deep_child };

static void deep_begin(void)
{
	pthread_t t;

	if (self < 5)
		grow(&deep);
	check_eq(pthread_create(&t, NULL, tick, NULL), 0);
}

static void deep_verify(int cycle)
{
	all(cycle);
	for (int i = 0; i < control->count; i++)
		check_eq(control->of[i].ppid, i ? control->of[i - 1].pid : getpid());
}

static void deep_setup(void)
{
	share();
	grow(&deep);
	check_eq(control->count, 6);
}

/* ---- many children ---- */

static void many_setup(void)
{
	share();
	for (int i = 0; i < MOST; i++)
		grow(&plain);
}

/* ---- a watch in a child, a timer, signals on their way ---- */

static int watch, timer[2], mine;

static void watch_begin(void)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = 42 };
	sigset_t set;

	watch = epoll_create1(EPOLL_CLOEXEC);
	check(watch >= 0);
	check_eq(pipe(timer), 0);
	check_eq(epoll_ctl(watch, EPOLL_CTL_ADD, timer[0], &e), 0);
	e.data.u32 = 43;
	check_eq(epoll_ctl(watch, EPOLL_CTL_ADD, chain[0][0], &e), 0);
	mine = syscall(SYS_memfd_create, "mine", 0);
	check(mine >= 0);
	check_eq(write(mine, "memory", 6), 6);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	check_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	check_eq(kill(getpid(), SIGUSR1), 0);
}

static void watch_child(int cycle)
{
	struct epoll_event e;
	sigset_t set;
	char c;

	check_eq(epoll_wait(watch, &e, 1, 10000), 1);
	check_eq(e.data.u32, 43);
	check_eq(read(chain[0][0], &c, 1), 1);
	check_eq(c, 'a' + cycle);
	check_eq(epoll_wait(watch, &e, 1, 0), 0);
	check_eq(write(timer[1], "x", 1), 1);
	check_eq(epoll_wait(watch, &e, 1, 0), 1);
	check_eq(e.data.u32, 42);
	check_eq(read(timer[0], &c, 1), 1);
	check_eq(pread(mine, &c, 1, 3), 1);
	check_eq(c, 'o');
	check_eq(sigpending(&set), 0);
	check_eq(sigismember(&set, SIGUSR1), 1);
}

static const struct child watches = { watch_begin, watch_child };

static void watch_setup(void)
{
	share();
	check_eq(pipe(chain[0]), 0);
	grow(&watches);
	check_eq(close(chain[0][0]), 0);
	check_eq(write(chain[0][1], "b", 1), 1);
}

static void watch_verify(int cycle)
{
	char c = 'a' + cycle + 1;

	all(cycle);
	check_eq(write(chain[0][1], &c, 1), 1);
}

SCENARIOS(
	{ .name = "pipes", .flags = EXTERNAL, .setup = pipes_setup, .verify = pipes_verify },
	{ .name = "groups", .flags = EXTERNAL, .setup = groups_setup, .verify = groups_verify },
	{ .name = "zombies", .flags = EXTERNAL, .setup = zombies_setup, .verify = zombies_verify },
	{ .name = "memory", .flags = EXTERNAL, .setup = memory_setup, .verify = memory_verify },
	{ .name = "huge", .flags = EXTERNAL, .setup = huge_setup, .verify = huge_verify },
	{ .name = "files", .flags = EXTERNAL, .setup = files_setup, .verify = files_verify },
	{ .name = "sockets", .flags = EXTERNAL, .setup = sockets_setup, .verify = all_verify },
	{ .name = "deep", .flags = EXTERNAL, .setup = deep_setup, .verify = deep_verify },
	{ .name = "many", .flags = EXTERNAL, .setup = many_setup, .verify = all_verify },
	{ .name = "watch", .flags = EXTERNAL, .setup = watch_setup, .verify = watch_verify },
)
