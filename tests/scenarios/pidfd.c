/*
 * pidfd.c - descriptors of processes: of the program itself, and of those that
 * have ended.
 */
#include "scenario.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#define THREAD O_EXCL	/* PIDFD_THREAD, Linux 6.9 */

static int fds[3] = { -1, -1, -1 };

static int of(pid_t pid, int flags)
{
	int fd = syscall(SYS_pidfd_open, pid, flags);

	if (fd < 0 && (errno == ENOSYS || errno == EINVAL))
		needs("pidfd_open with flags %#o", flags);
	check(fd >= 0);
	return fd;
}

/* said is a line of fdinfo as a number. */
static int said(int fd, const char *what)
{
	char name[64], text[1024], *p;
	ssize_t n;
	int in;

	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	in = open(name, O_RDONLY);
	n = read(in, text, sizeof(text) - 1);
	check(n > 0);
	check_eq(close(in), 0);
	text[n] = 0;
	p = strstr(text, what);
	check(p);
	return atoi(p + strlen(what));
}

static int events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	check(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* ---- of the program itself ---- */

static int signals;

static void handler(int sig)
{
	(void)sig;
	signals++;
}

static void own_setup(void)
{
	check(signal(SIGUSR2, handler) != SIG_ERR);
	fds[0] = of(getpid(), 0);
	fds[1] = of(getpid(), O_NONBLOCK);
	fds[2] = of(getpid(), THREAD);
}

static void own_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < 3; i++) {
		int before = signals;

		check_eq(said(fds[i], "\nPid:"), getpid());
		check_eq(events(fds[i]), 0);
		check_eq(syscall(SYS_pidfd_send_signal, fds[i], SIGUSR2, NULL, 0), 0);
		check_eq(signals, before + 1);
		check_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
	check_eq(fcntl(fds[1], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	check_eq(fcntl(fds[2], F_GETFL) & THREAD, THREAD);
}

/* ---- of those that have ended ---- */

struct info {
	uint64_t mask, cgroup;
	uint32_t ids[11];
	int32_t exit_code;
	uint32_t coredump, padding;
};

/* ended checks a pidfd; status is -1 where it is not told. */
static void ended(int fd, int status, int events_)
{
	struct info info = { .mask = 8 /* PIDFD_INFO_EXIT, Linux 6.15 */ };
	long err = syscall(SYS_ioctl, fd, (unsigned long)_IOC(3, 0xff, 11, sizeof(info)), &info);

	check_eq(said(fd, "\nPid:"), -1);
	check_eq(events(fd), events_);
	check_eq(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), -1);
	check_eq(errno, ESRCH);
	if (!err && (info.mask & 8))
		check_eq(info.exit_code, status);
}

static pid_t child(int code, int sig)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid)
		return pid;
	if (sig)
		raise(sig);
	_exit(code);
}

static int gone_events;

static void gone_setup(void)
{
	pid_t pids[2] = { child(3, 0), child(0, SIGTERM) };

	fds[0] = of(pids[0], O_NONBLOCK);
	fds[1] = of(pids[1], 0);
	fds[2] = dup(fds[1]);
	for (int i = 0; i < 2; i++)
		check_eq(waitpid(pids[i], NULL, 0), pids[i]);
	gone_events = events(fds[0]);	/* POLLHUP since Linux 6.9 */
}

static void gone_verify(int cycle)
{
	(void)cycle;
	ended(fds[0], 3 << 8, gone_events);
	ended(fds[1], SIGTERM, gone_events);
	check_eq(fcntl(fds[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	check_eq(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[1], fds[2]), 0);
}

/* A zombie is somebody's child; after a restart it is nobody's. */
static void zombie_setup(void)
{
	siginfo_t info;
	pid_t pid = child(9, 0);

	fds[0] = of(pid, 0);
	check_eq(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
}

static void zombie_verify(int cycle)
{
	(void)cycle;
	check(events(fds[0]) & POLLIN);
	if (waitpid(-1, NULL, WNOHANG) <= 0)
		ended(fds[0], 9 << 8, events(fds[0]));
}

/* Watched: what has ended is ready for ever. */
static void watched_setup(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	gone_setup();
	check_eq(close(fds[2]), 0);
	fds[2] = epoll_create1(0);
	check_eq(epoll_ctl(fds[2], EPOLL_CTL_ADD, fds[0], &event), 0);
}

static void watched_verify(int cycle)
{
	struct epoll_event event;

	(void)cycle;
	check_eq(epoll_wait(fds[2], &event, 1, 0), 1);
	check(event.events & EPOLLIN);
}

SCENARIOS(
	{ "own", BOTH, own_setup, own_verify, NULL, 0 },
	{ "gone", BOTH, gone_setup, gone_verify, NULL, 0 },
	{ "zombie", SELF, zombie_setup, zombie_verify, NULL, 0 },
	{ "watched", BOTH, watched_setup, watched_verify, NULL, 0 },
)
