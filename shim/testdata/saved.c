/*
 * saved MODE: is saved and restarted by the tests of `crshim restart`.
 *
 *   tick          prints 0, 1, 2, ... every few milliseconds, and the errno of a crgetid() at SIGUSR2; ends with 7 at SIGUSR1
 *   echo          prints "ready", and each line that it reads; at the end of its input it ends with 5
 *   self DIR      saves itself to DIR/0 and ends with 10; when it comes back, to DIR/1 with 11, and so forth
 *   become FILE   restart() of FILE; prints the errno if that returns
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <crshim.h>

static volatile sig_atomic_t ask;

static void on_end(int sig)
{
	(void)sig;
	_exit(7);
}

static void on_ask(int sig)
{
	(void)sig;
	ask = 1;
}

static void tick(void)
{
	for (long n = 0;; n++) {
		struct timespec t = { 0, 2000000 };

		printf("%ld\n", n);
		nanosleep(&t, 0);
		if (ask) {
			ask = 0;
			printf("errno %d\n", crgetid() < 0 ? errno : 0);
		}
	}
}

static int echo(void)
{
	char line[100];

	printf("ready\n");
	for (;;) {
		/* A read that comes back with EINTR is made again: a checkpoint from outside may do that. */
		ssize_t n = read(0, line, sizeof line - 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 5;
		line[n] = 0;
		printf("got %s", line);
	}
}

static int self(const char *dir)
{
	for (int n = 0;; n++) {
		char name[200];
		int fd, crid;

		snprintf(name, sizeof name, "%s/%d", dir, n);
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (fd < 0)
			return 1;
		crid = checkpoint(getpid(), fd, 0);
		if (crid < 0)
			return 2;
		close(fd);
		printf("%d %s\n", n, crid ? "saved" : "back");
		if (crid > 0)
			return 10 + n;
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	setvbuf(stdout, 0, _IOLBF, 0);
	signal(SIGUSR1, on_end);
	signal(SIGUSR2, on_ask);
	if (!strcmp(mode, "tick"))
		tick();
	if (!strcmp(mode, "echo"))
		return echo();
	if (!strcmp(mode, "self") && argc > 2)
		return self(argv[2]);
	if (!strcmp(mode, "become") && argc > 2) {
		int fd = open(argv[2], O_RDONLY);

		restart(0, fd, 0);
		printf("errno %d\n", errno);
		return 3;
	}
	return 99;
}
