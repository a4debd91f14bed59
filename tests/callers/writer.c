/*
 * writer.c - writes to a file when it is told to.
 *
 *	writer DIR
 *
 * It opens DIR/data for writing and DIR/other for reading, writes DIR/ready,
 * and for N = 1, 2, 3 waits for DIR/go.N, then writes "line N\n" where it stands
 * in data, X at 5000, and DIR/done.N.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *dir;

static const char *path(const char *name, int n)
{
	static char buf[4096];

	snprintf(buf, sizeof(buf), n ? "%s/%s.%d" : "%s/%s", dir, name, n);
	return buf;
}

static void must(int ok)
{
	if (!ok)
		_exit(3);
}

static void say(const char *name, int n)
{
	int fd = open(path(name, n), O_WRONLY | O_CREAT, 0600);

	must(fd >= 0 && dprintf(fd, "%d\n", (int)getpid()) > 0 && close(fd) == 0);
}

int main(int argc, char *argv[])
{
	struct timespec ms = { .tv_nsec = 1000000 };
	char line[16];
	int fd;

	must(argc == 2);
	dir = argv[1];
	fd = open(path("data", 0), O_RDWR);
	must(fd >= 0 && open(path("other", 0), O_RDONLY) >= 0);
	say("ready", 0);
	for (int n = 1; n <= 3; n++) {
		while (access(path("go", n), F_OK))
			nanosleep(&ms, NULL);
		snprintf(line, sizeof(line), "line %d\n", n);
		must(write(fd, line, 7) == 7 && pwrite(fd, "X", 1, 5000) == 1);
		say("done", n);
	}
	return 0;
}
