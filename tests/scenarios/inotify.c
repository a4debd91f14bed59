/*
 * inotify.c - watched files.
 */
#include "scenario.h"

#include <poll.h>
#include <sys/inotify.h>

static int fd = -1;

static void touch(const char *name)
{
	int f = open(path(name, -1), O_WRONLY | O_CREAT | O_APPEND, 0600);

	check(f >= 0);
	check_eq(write(f, "x", 1), 1);
	check_eq(close(f), 0);
}

static int watch(const char *name, uint32_t mask)
{
	return inotify_add_watch(fd, name ? path(name, -1) : scenario_dir, mask);
}

/* event expects one, of this watch. */
static void event(int wd, uint32_t mask, const char *name)
{
	static char buf[8192] __attribute__((aligned(8)));
	static ssize_t have, at;
	struct inotify_event *e;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (at == have) {
		check_eq(poll(&p, 1, 5000), 1);
		have = read(fd, buf, sizeof(buf));
		at = 0;
		check(have > 0);
	}
	e = (void *)(buf + at);
	at += sizeof(*e) + e->len;
	check_eq(e->wd, wd);
	check_eq(e->mask, mask);
	if (strcmp(e->len ? e->name : "", name))
		fail("event of %s, not %s", e->len ? e->name : "", name);
}

static void quiet(void)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	check_eq(poll(&p, 1, 0), 0);
}

/* A file, a file that is watched once, a directory; by number. */
static void files_setup(void)
{
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	check(fd >= 0);
	check_eq(mkdir(path("sub", -1), 0700), 0);
	touch("watched");
	touch("once");
	check_eq(watch("watched", IN_MODIFY), 1);
	check_eq(watch("once", IN_MODIFY | IN_ONESHOT), 2);
	check_eq(watch("sub", IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_EXCL_UNLINK), 3);
}

static void files_verify(int cycle)
{
	check_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	check_eq(fcntl(fd, F_GETFL), O_NONBLOCK);
	quiet();
	touch("watched");
	event(1, IN_MODIFY, "");
	touch("once");
	if (cycle == 1) {
		event(2, IN_MODIFY, "");
		event(2, IN_IGNORED, "");
	}
	touch("sub/new");
	event(3, IN_CREATE, "new");
	check_eq(unlink(path("sub/new", -1)), 0);
	event(3, IN_DELETE, "new");
	quiet();
}

/* Numbers with gaps between them; the next one is new. */
static void numbers_setup(void)
{
	char buf[4096];

	fd = inotify_init1(IN_NONBLOCK);
	touch("a");
	touch("b");
	for (int wd = 1; wd < 5000; wd++) {
		check_eq(watch("a", IN_MODIFY), wd);
		if (wd != 7)
			check_eq(inotify_rm_watch(fd, wd), 0);
		else
			check_eq(watch("b", IN_MODIFY), ++wd);
		if (wd == 8) {
			/* b keeps 8; a goes on. */
			check_eq(inotify_rm_watch(fd, 7), 0);
		}
	}
	check_eq(watch("a", IN_MODIFY), 5000);
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	quiet();
}

static void numbers_verify(int cycle)
{
	int wd;

	(void)cycle;
	quiet();
	touch("b");
	event(8, IN_MODIFY, "");
	touch("a");
	event(5000, IN_MODIFY, "");
	wd = watch(NULL, IN_ATTRIB);
	check(wd > 5000);
	check_eq(inotify_rm_watch(fd, wd), 0);
	event(wd, IN_IGNORED, "");
	quiet();
}

/* A symbolic link itself, and something in the root of another mount. */
static void odd_setup(void)
{
	fd = inotify_init1(0);
	check_eq(symlink("nowhere", path("link", -1)), 0);
	check_eq(watch("link", IN_ATTRIB | IN_DONT_FOLLOW), 1);
	check_eq(inotify_add_watch(fd, "/", IN_ATTRIB), 2);
	check_eq(inotify_add_watch(fd, "/dev", IN_ATTRIB), 3);
	check_eq(inotify_add_watch(fd, "/etc/passwd", IN_MODIFY), 4);
}

static void odd_verify(int cycle)
{
	(void)cycle;
	check_eq(lchown(path("link", -1), -1, getegid()), 0);
	event(1, IN_ATTRIB, "");
	quiet();
}

/* None at all. */
static void empty_setup(void)
{
	fd = inotify_init1(IN_NONBLOCK);
}

static void empty_verify(int cycle)
{
	char buf[64];

	(void)cycle;
	check_eq(read(fd, buf, sizeof(buf)), -1);
	check_eq(errno, EAGAIN);
}

SCENARIOS(
	{ "files", BOTH, files_setup, files_verify, NULL, 0 },
	{ "numbers", BOTH, numbers_setup, numbers_verify, NULL, 0 },
	{ "odd", BOTH, odd_setup, odd_verify, NULL, 0 },
	{ "empty", BOTH, empty_setup, empty_verify, NULL, 0 },
)
