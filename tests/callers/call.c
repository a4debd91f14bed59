/*
 * call.c - makes one call and writes down what it gave.
 *
 *	call OUT checkpoint PID FD FLAGS [TIMES]
 *	call OUT restart CRID FD FLAGS
 *
 * PID and CRID may be "self". OUT gets "RESULT ERRNO" on a line; after a
 * restart from the program's own image that is "0 0", and it exits with 7.
 * TIMES children make the call side by side, each into an image of its own,
 * "OUT.img.I", and OUT gets a line of each. With THREADS=N in its environment
 * it has as many threads that wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int report(const char *out, long result)
{
	char line[64];
	int fd, n = snprintf(line, sizeof(line), "%ld %d\n", result, result < 0 ? errno : 0);

	fd = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, n) != n || close(fd))
		return 99;
	return result > 0 ? 0 : result < 0 ? 1 : 7;
}

static void *rest(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static int threads(const char *n)
{
	pthread_t t;

	for (int i = n ? atoi(n) : 0; i > 0; i--)
		if (pthread_create(&t, NULL, rest, NULL))
			return -1;
	return 0;
}

int main(int argc, char *argv[])
{
	long nr, first, times;
	int fd, status, failed = 0;

	if (argc < 6)
		return 2;
	if (threads(getenv("THREADS")))
		return 97;
	nr = !strcmp(argv[2], "checkpoint") ? 1000 : 1001;
	first = !strcmp(argv[3], "self") ? getpid() : strtol(argv[3], NULL, 0);
	fd = atoi(argv[4]);
	if (argc == 6)
		return report(argv[1], syscall(nr, first, fd, strtoul(argv[5], NULL, 0)));

	times = atol(argv[6]);
	for (long i = 0; i < times; i++) {
		char name[4096];
		pid_t pid = fork();

		if (pid < 0)
			return 98;
		if (pid)
			continue;
		snprintf(name, sizeof(name), "%s.img.%ld", argv[1], i);
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		_exit(report(argv[1], syscall(nr, getpid(), fd, strtoul(argv[5], NULL, 0))));
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed != 0;
}
