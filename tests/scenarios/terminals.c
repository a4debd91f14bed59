/*
 * terminals.c - a terminal whose master the first process has, and that
 * controls a session below it, as with tmux, script or expect.
 */
#include "tree.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static int master = -1, slave = -1;
static char *name;

/* What each child has heard, by its place. */
static struct {
	atomic_int interrupts, resizes;
} *heard;

static void on_signal(int sig)
{
	atomic_fetch_add(sig == SIGINT ? &heard[self].interrupts : &heard[self].resizes, 1);
}

static void listen_to_keys(void)
{
	struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	check_eq(sigaction(SIGINT, &a, NULL), 0);
	check_eq(sigaction(SIGWINCH, &a, NULL), 0);
}

/* ---- who is in the session ---- */

enum { LEADER, JOB, BACKGROUND, WITHOUT };

static void foreground(int fd)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGTTOU);
	check_eq(sigprocmask(SIG_BLOCK, &set, &old), 0);
	check_eq(tcsetpgrp(fd, getpgrp()), 0);
	check_eq(sigprocmask(SIG_SETMASK, &old, NULL), 0);
}

static void job_setup(void)
{
	listen_to_keys();
	check_eq(setpgid(0, 0), 0);
	foreground(slave);
}

static void job_verify(int cycle)
{
	char line[64];

	(void)cycle;
	check_eq(tcgetpgrp(slave), getpgrp());
	check_eq(read(slave, line, sizeof(line)), 3);
	check_eq(memcmp(line, "go\n", 3), 0);
	check_eq(write(slave, "done\n", 5), 5);
}

/* It knows the terminal as /dev/tty alone. */
static int tty = -1;

static void background_setup(void)
{
	listen_to_keys();
	check_eq(close(slave), 0);
	tty = open("/dev/tty", O_RDWR);
	check(tty >= 0);
}

static void background_verify(int cycle)
{
	int fd = open("/dev/tty", O_RDWR);

	(void)cycle;
	check(fd >= 0);
	check_eq(tcgetpgrp(fd), control->of[JOB].pgrp);
	check_eq(tcgetpgrp(tty), control->of[JOB].pgrp);
	check_eq(close(fd), 0);
	check_eq(getpgrp(), control->of[LEADER].pid);
}

/* It has given up the terminal, and nobody else did. */
static void without_setup(void)
{
	check_eq(ioctl(slave, TIOCNOTTY, 0), 0);
	check_eq(close(slave), 0);
}

static void without_verify(int cycle)
{
	(void)cycle;
	check_eq(open("/dev/tty", O_RDWR), -1);
	check_eq(errno, ENXIO);
	check_eq(getsid(0), control->of[LEADER].pid);
}

static const struct child job = { job_setup, job_verify }, background = { background_setup, background_verify },
			  without = { without_setup, without_verify };

static void leader_setup(void)
{
	check_eq(close(master), 0);
	check(setsid() > 0);
	slave = open(name, O_RDWR);
	check(slave >= 0);
	listen_to_keys();
	check_eq(grow(&job), JOB);
	check_eq(grow(&background), BACKGROUND);
	check_eq(grow(&without), WITHOUT);
}

static void leader_verify(int cycle)
{
	pid_t session;

	(void)cycle;
	check_eq(getsid(0), getpid());
	check_eq(ioctl(slave, TIOCGSID, &session), 0);
	check_eq(session, getpid());
	check_eq(tcgetpgrp(slave), control->of[JOB].pgrp);
}

static const struct child leader = { leader_setup, leader_verify };

static void session_setup(void)
{
	share();
	heard = (void *)(control->page + sizeof(control->page) / 2);
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0)
		needs("pseudo terminals");
	check_eq(grantpt(master), 0);
	check_eq(unlockpt(master), 0);
	name = ptsname(master);
	grow(&leader);
}

/* hears waits until the job has heard, and looks that nobody else has. */
static void hears(int interrupts, int resizes)
{
	await(&heard[JOB].interrupts, interrupts);
	await(&heard[JOB].resizes, resizes);
	for (int i = 0; i < control->count; i++)
		if (i != JOB && (heard[i].interrupts || heard[i].resizes))
			fail("child %d got a signal of the terminal", i);
	check_eq(heard[JOB].interrupts, interrupts);
	check_eq(heard[JOB].resizes, resizes);
}

/* printed expects this on the master. */
static void printed(const char *text)
{
	char buf[256];
	size_t have = 0;

	while (have < strlen(text)) {
		struct pollfd p = { .fd = master, .events = POLLIN };
		ssize_t n;

		check_eq(poll(&p, 1, 5000), 1);
		n = read(master, buf + have, sizeof(buf) - have);
		check(n > 0);
		have += n;
	}
	if (have != strlen(text) || memcmp(buf, text, have))
		fail("the terminal has <%.*s>, not <%s>", (int)have, buf, text);
}

static void session_verify(int cycle)
{
	struct winsize size = { 20 + cycle, 70, 0, 0 };

	check_eq(write(master, "go\n", 3), 3);
	all(cycle);
	printed("go\r\ndone\r\n");
	check_eq(write(master, "\003", 1), 1);
	check_eq(ioctl(master, TIOCSWINSZ, &size), 0);
	hears(cycle, cycle);
	printed("^C");
}

/* ---- that of the first process itself cannot come back ---- */

static void own_setup(void)
{
	if (setsid() < 0)
		needs("to be no leader of a process group");
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0)
		needs("pseudo terminals");
	check_eq(grantpt(master), 0);
	check_eq(unlockpt(master), 0);
	check(open(ptsname(master), O_RDWR) >= 0);
}

SCENARIOS(
	{ .name = "terminals", .flags = EXTERNAL, .setup = session_setup, .verify = session_verify },
	{ .name = "own", .flags = EXTERNAL | REFUSED, .setup = own_setup, .refused = EBADF },
)
