/*
 * places.c - holds descriptors of many kinds until the file DIR/go is there,
 * and then writes to DIR/report what stands behind each number.
 *
 *	places DIR
 *
 *	10 DIR/data, at 5, and 11 the same open file	12 DIR/data, at 7, appending
 *	13 a pipe to read from, 14 its other end, with "piped" in it
 *	15 an eventfd that holds 3	16 a memfd with "memory", at 2
 *	17 an epoll set that watches 13, 15 and whatever was inherited as 7
 *	18 /dev/null	19 DIR itself	23, 24 two connected sockets, with "sent" in them
 *	25 a terminal's master, 26 its other side, with a line that was typed
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define must(cond) do { \
	if (!(cond)) { \
		dprintf(2, "places: line %d: not so: %s (errno %d)\n", __LINE__, #cond, errno); \
		_exit(1); \
	} \
} while (0)

static const char *dir;

static const char *path(const char *name)
{
	static char buf[4096];

	snprintf(buf, sizeof(buf), "%s/%s", dir, name);
	return buf;
}

/* at moves a descriptor to the number that it is to have. */
static void at(int fd, int want)
{
	must(fd >= 0 && dup2(fd, want) == want);
	must(close(fd) == 0);
}

static void watch(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	must(epoll_ctl(17, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void setup(void)
{
	int p[2];

	at(open(path("data"), O_RDWR), 10);
	must(lseek(10, 5, SEEK_SET) == 5 && dup2(10, 11) == 11);
	at(open(path("data"), O_RDWR | O_APPEND), 12);
	must(lseek(12, 7, SEEK_SET) == 7);
	must(pipe(p) == 0 && write(p[1], "piped", 5) == 5);
	at(p[0], 13);
	at(p[1], 14);
	at(eventfd(3, 0), 15);
	at(memfd_create("places", 0), 16);
	must(write(16, "memory", 6) == 6 && lseek(16, 2, SEEK_SET) == 2);
	at(epoll_create1(0), 17);
	watch(13);
	watch(15);
	if (fcntl(7, F_GETFD) >= 0)
		watch(7);
	at(open("/dev/null", O_WRONLY), 18);
	at(open(dir, O_RDONLY | O_DIRECTORY), 19);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0 && write(p[1], "sent", 4) == 4);
	at(p[0], 23);
	at(p[1], 24);
	at(posix_openpt(O_RDWR | O_NOCTTY), 25);
	must(unlockpt(25) == 0 && write(25, "line\n", 5) == 5);
	at(open(ptsname(25), O_RDWR | O_NOCTTY), 26);
}

/* copy adds the interesting lines of a file of fdinfo. */
static void copy(FILE *to, int fd)
{
	char name[64], line[256];
	FILE *from;

	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	must((from = fopen(name, "re")));
	while (fgets(line, sizeof(line), from)) {
		char *data = strstr(line, " data:");

		if (data)
			*data = 0;
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "pos:", 4) || !strncmp(line, "flags:", 6) || !strncmp(line, "tfd:", 4) ||
		    !strncmp(line, "eventfd-count:", 14)) {
			fputc(' ', to);
			for (char *p = line; *p; p++)
				if (*p != ' ' && *p != '\t')
					fputc(*p, to);
		}
	}
	fclose(from);
}

static void report(void)
{
	char tmp[4096], name[64], target[4096];
	FILE *to;
	ssize_t n;

	snprintf(tmp, sizeof(tmp), "%s", path("report.new"));
	must((to = fopen(tmp, "we")));
	for (int fd = 0; fd < 32; fd++) {
		if (fd == fileno(to))
			continue;
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		n = readlink(name, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		fprintf(to, "%d %s", fd, target);
		copy(to, fd);
		if (fd > 7 && !syscall(SYS_kcmp, getpid(), getpid(), 0, fd - 1, fd))
			fputs(" shared", to);
		fputc('\n', to);
	}
	must(fclose(to) == 0 && rename(tmp, path("report")) == 0);
}

int main(int argc, char *argv[])
{
	struct timespec ms = { .tv_nsec = 2000000 };
	FILE *f;

	if (argc != 2)
		return 2;
	dir = argv[1];
	setup();
	must((f = fopen(path("pid"), "we")));
	fprintf(f, "%d\n", getpid());
	must(fclose(f) == 0);
	while (access(path("go"), F_OK))
		nanosleep(&ms, NULL);
	report();
	return 0;
}
