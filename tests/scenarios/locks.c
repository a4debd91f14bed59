/*
 * locks.c - what is attached to an open file: locks of every kind, leases, and
 * who gets signals about it.
 */
#include "scenario.h"

#include <sys/file.h>
#include <sys/wait.h>

static int fd, fd2, fd3;

static int locked_file(int size)
{
	int n = open(path("locked", -1), O_RDWR | O_CREAT, 0600);

	check(n >= 0);
	if (size)
		check_eq(ftruncate(n, size), 0);
	return n;
}

/* other runs a function in a child and returns what that returns, 0 to 255. */
static int other(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	check(pid >= 0);
	if (pid == 0)
		_exit(fn());
	check_eq(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* ---- flock ---- */

static void flock_setup(void)
{
	fd = locked_file(0);
	fd2 = dup(fd);
	check_eq(flock(fd, LOCK_EX), 0);
	/* A shared one, by an open file of its own, that has lost its name. */
	fd3 = open(path("gone", -1), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(fd3 >= 0);
	check_eq(flock(fd3, LOCK_SH), 0);
	check_eq(unlink(path("gone", -1)), 0);
}

/* try_flock returns the errno of locking a file opened anew. */
static int try_flock(const char *name, int how)
{
	int n = open(name, O_RDWR), error;

	check(n >= 0);
	error = flock(n, how | LOCK_NB) ? errno : 0;
	check_eq(close(n), 0);
	return error;
}

static void flock_verify(int cycle)
{
	char name[64];

	check_eq(try_flock(path("locked", -1), LOCK_SH), EWOULDBLOCK);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd3);
	check_eq(try_flock(name, LOCK_SH), 0);
	check_eq(try_flock(name, LOCK_EX), EWOULDBLOCK);
	if (cycle < 3)
		return;
	/* It is one lock of one open file, and goes with that. */
	check_eq(flock(fd2, LOCK_UN), 0);
	check_eq(try_flock(path("locked", -1), LOCK_EX), 0);
	check_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	check_eq(close(fd), 0);
	check_eq(try_flock(path("locked", -1), LOCK_SH), EWOULDBLOCK);
	check_eq(close(fd2), 0);
	check_eq(try_flock(path("locked", -1), LOCK_EX), 0);
}

/* ---- of the process ---- */

static void lock(int n, int cmd, int type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_start = start, .l_len = len };

	check_eq(fcntl(n, cmd, &l), 0);
}

static void posix_setup(void)
{
	/* By two open files, one of them under a number that a restarter has, too. */
	fd = locked_file(0);
	fd2 = locked_file(0);
	check_eq(dup2(fd, 0), 0);
	check_eq(close(fd), 0);
	fd = 0;
	lock(fd, F_SETLK, F_WRLCK, 10, 10);
	lock(fd2, F_SETLK, F_RDLCK, 5ll << 32, 0);
	lock(fd2, F_SETLK, F_WRLCK, 30, 1);
}

static int held_posix(void)
{
	struct flock want[] = {
		{ F_WRLCK, SEEK_SET, 10, 10, getppid() },
		{ F_WRLCK, SEEK_SET, 30, 1, getppid() },
		{ F_RDLCK, SEEK_SET, 5ll << 32, 0, getppid() },
	};

	for (int i = 0; i < 3; i++) {
		struct flock l = { .l_type = F_WRLCK, .l_start = want[i].l_start };

		if (fcntl(fd, F_GETLK, &l) || l.l_type != want[i].l_type || l.l_start != want[i].l_start ||
		    l.l_len != want[i].l_len || l.l_pid != want[i].l_pid)
			return 10 + i;
		l = (struct flock){ .l_type = F_RDLCK, .l_start = want[i].l_start + (i == 1), .l_len = 1 };
		if (fcntl(fd, F_SETLK, &l) != (i == 0 ? -1 : 0))
			return 20 + i;
	}
	return 0;
}

static void posix_verify(int cycle)
{
	(void)cycle;
	check_eq(other(held_posix), 0);
}

/* ---- of the open file ---- */

static void ofd_setup(void)
{
	fd = locked_file(0);
	fd2 = locked_file(0);
	lock(fd, F_OFD_SETLK, F_WRLCK, 0, 100);
	lock(fd2, F_OFD_SETLK, F_WRLCK, 100, 100);
	lock(fd2, F_OFD_SETLK, F_RDLCK, 150, 0);
}

static void ofd_verify(int cycle)
{
	struct flock l = { .l_type = F_WRLCK };

	(void)cycle;
	check_eq(fcntl(fd, F_OFD_GETLK, &l), 0);	/* its own does not count */
	check_eq(l.l_type, F_WRLCK);
	check_eq(l.l_start, 100);
	check_eq(l.l_len, 50);
	check_eq(l.l_pid, -1);
	l = (struct flock){ .l_type = F_WRLCK, .l_start = 200 };
	check_eq(fcntl(fd, F_OFD_GETLK, &l), 0);
	check_eq(l.l_type, F_RDLCK);
	check_eq(l.l_start, 150);
	check_eq(l.l_len, 0);
	l = (struct flock){ .l_type = F_WRLCK, .l_len = 100 };
	check_eq(fcntl(fd2, F_OFD_GETLK, &l), 0);
	check_eq(l.l_type, F_WRLCK);
	check_eq(l.l_len, 100);
}

/* ---- leases ---- */

static volatile sig_atomic_t signals, signal_fd;

static void note_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	signals++;
	signal_fd = info->si_fd;
}

static void catch_signal(int sig)
{
	struct sigaction sa = { .sa_sigaction = note_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

	check_eq(sigaction(sig, &sa, NULL), 0);
}

static void lease(int type)
{
	fd = locked_file(17 << 20);	/* too large for the harness to read */
	if (type == F_RDLCK) {
		fd2 = open(path("locked", -1), O_RDONLY);
		check(fd2 >= 0);
		check_eq(close(fd), 0);
		fd = fd2;
	}
	catch_signal(SIGRTMIN);
	if (fcntl(fd, F_SETLEASE, type))
		needs("file leases");
	check_eq(fcntl(fd, F_SETSIG, SIGRTMIN), 0);
}

static void read_lease_setup(void)
{
	lease(F_RDLCK);
}

static void write_lease_setup(void)
{
	lease(F_WRLCK);
}

static int break_lease(void)
{
	return open(path("locked", -1), O_WRONLY | O_NONBLOCK) < 0 ? errno : 0;
}

/* It is there, and breaking it is told. */
static void verify_lease(int type)
{
	check_eq(fcntl(fd, F_GETLEASE), type);
	check_eq(fcntl(fd, F_GETSIG), SIGRTMIN);
	signals = 0;
	check_eq(other(break_lease), EWOULDBLOCK);
	check_eq(signals, 1);
	check_eq(signal_fd, fd);
	check_eq(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
	check_eq(other(break_lease), 0);
	check_eq(fcntl(fd, F_SETLEASE, type), 0);
	check_eq(fcntl(fd, F_SETSIG, SIGRTMIN), 0);	/* went with the old one */
}

static void read_lease_verify(int cycle)
{
	(void)cycle;
	verify_lease(F_RDLCK);
}

static void write_lease_verify(int cycle)
{
	(void)cycle;
	verify_lease(F_WRLCK);
}

/* ---- signals ---- */

struct owner { int type, pid; };	/* struct f_owner_ex: musl names it otherwise */

static int pipes[3][2];

static void owner_setup(void)
{
	struct owner self = { 0 /* F_OWNER_TID */, getpid() }, group = { 2 /* F_OWNER_PGRP */, getpgrp() };

	for (int i = 0; i < 3; i++)
		check_eq(pipe(pipes[i]), 0);
	catch_signal(SIGIO);
	catch_signal(SIGRTMIN + 1);
	check_eq(fcntl(pipes[0][0], F_SETOWN, getpid()), 0);
	check_eq(fcntl(pipes[0][0], F_SETFL, O_ASYNC | O_NONBLOCK), 0);
	check_eq(fcntl(pipes[1][0], 15 /* F_SETOWN_EX */, &self), 0);
	check_eq(fcntl(pipes[1][0], F_SETSIG, SIGRTMIN + 1), 0);
	check_eq(fcntl(pipes[1][0], F_SETFL, O_ASYNC), 0);
	check_eq(fcntl(pipes[2][1], 15 /* F_SETOWN_EX */, &group), 0);
}

static void owner_verify(int cycle)
{
	struct owner o;
	char c = cycle;

	signals = 0;
	check_eq(fcntl(pipes[0][0], F_GETFL), O_ASYNC | O_NONBLOCK);
	check_eq(fcntl(pipes[0][0], F_GETOWN), getpid());
	check_eq(write(pipes[0][1], &c, 1), 1);
	check_eq(signals, 1);
	check_eq(read(pipes[0][0], &c, 1), 1);
	check_eq(signals, 1);
	check_eq(fcntl(pipes[1][0], 16 /* F_GETOWN_EX */, &o), 0);
	check_eq(o.type, 0);
	check_eq(o.pid, getpid());
	check_eq(write(pipes[1][1], &c, 1), 1);
	check_eq(signals, 2);
	check_eq(signal_fd, pipes[1][0]);
	check_eq(read(pipes[1][0], &c, 1), 1);
	check_eq(fcntl(pipes[2][1], 16 /* F_GETOWN_EX */, &o), 0);
	check_eq(o.type, 2);
	check_eq(o.pid, getpgrp());
	check_eq(fcntl(pipes[2][0], F_GETOWN), 0);
}

SCENARIOS(
	{ "flock", BOTH, flock_setup, flock_verify, NULL, 0 },
	{ "posix", BOTH, posix_setup, posix_verify, NULL, 0 },
	{ "ofd", BOTH, ofd_setup, ofd_verify, NULL, 0 },
	{ "read-lease", BOTH, read_lease_setup, read_lease_verify, NULL, 0 },
	{ "write-lease", BOTH, write_lease_setup, write_lease_verify, NULL, 0 },
	{ "owner", BOTH, owner_setup, owner_verify, NULL, 0 },
)
