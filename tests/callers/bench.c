/*
 * bench.c - the programs that are measured. Times are printed or appended to
 * a file as "WHAT NANOSECONDS", one line each.
 *
 *	bench getppid none|allow COUNT          one ordinary call
 *	bench save MIB DIR OUT ROUNDS           own write() against checkpoint()
 *	bench back DIR OUT ROUNDS               own read() against restart()
 *	bench hold MIB                          keep random memory, sleep
 *	bench maps|fds|threads COUNT            keep that many, sleep
 *	bench processes COUNT                   that many, which share 256 KiB and have 100 each
 *	bench pipe MIB ROUNDS OUT               own write() to standard output
 *	bench call PID OUT                      checkpoint(PID) to standard output
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_checkpoint 1000
#define NR_restart 1001

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void report(const char *out, const char *what, int64_t ns)
{
	char line[100];
	int n = snprintf(line, sizeof(line), "%s %lld\n", what, (long long)ns);
	int fd = open(out, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (fd < 0 || write(fd, line, n) != n || close(fd))
		die(out);
}

/* noise is memory that neither compresses nor merges, all of it present. */
static char *noise(size_t len)
{
	uint64_t x = 88172645463325252u, *p;

	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < len / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
	return (char *)p;
}

static void whole_write(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n <= 0)
			die("write");
		p += n;
		len -= n;
	}
}

static int fresh(const char *dir, const char *name)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

static int getppid_main(const char *filter, long count)
{
	struct { uint16_t code; uint8_t jt, jf; uint32_t k; } allow = { 6, 0, 0, 0x7fff0000 };
	struct { uint16_t len; void *filter; } program = { 1, &allow };
	int64_t start;

	if (!strcmp(filter, "allow") &&
	    (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, 1, 0, &program)))
		die("seccomp");
	for (long i = 0; i < count / 10; i++)
		syscall(SYS_getppid);
	start = now();
	for (long i = 0; i < count; i++)
		syscall(SYS_getppid);
	printf("getppid %.2f\n", (double)(now() - start) / count);
	return 0;
}

/* restored is what a process does that came out of an image. */
static int restored(const char *dir, const char *out)
{
	char path[4096], text[32] = "";
	int64_t end = now();
	int fd;

	snprintf(path, sizeof(path), "%s/t0", dir);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die(path);
	report(out, "restart", end - atoll(text));
	return 0;
}

static int save_main(size_t len, const char *dir, const char *out, int rounds)
{
	char *p = noise(len);
	long crid;

	for (int i = 0; i < 2 * rounds; i++) {
		/* Each round both, in alternating order. */
		if ((i ^ i >> 1) & 1) {
			int fd = fresh(dir, "own");
			int64_t start = now();

			whole_write(fd, p, len);
			report(out, "write", now() - start);
			close(fd);
		} else {
			int fd = fresh(dir, "img");
			int64_t start = now();

			crid = syscall(NR_checkpoint, getpid(), fd, 0L);
			if (crid < 0)
				die("checkpoint");
			if (crid == 0)
				return restored(dir, out);
			report(out, "checkpoint", now() - start);
			close(fd);
		}
	}
	return 0;
}

static int back_main(const char *dir, const char *out, int rounds)
{
	char path[4096], t0[32];
	struct stat st;
	int status;

	for (int i = 0; i < 2 * rounds; i++) {
		if ((i ^ i >> 1) & 1) {
			int64_t start;
			char *p;
			int fd;

			snprintf(path, sizeof(path), "%s/own", dir);
			fd = open(path, O_RDONLY);
			if (fd < 0 || fstat(fd, &st))
				die(path);
			start = now();
			p = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (p == MAP_FAILED)
				die("mmap");
			for (off_t at = 0; at < st.st_size; ) {
				ssize_t n = read(fd, p + at, st.st_size - at);

				if (n <= 0)
					die("read");
				at += n;
			}
			report(out, "read", now() - start);
			munmap(p, st.st_size);
			close(fd);
			continue;
		}
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid) {
			int fd, n;

			snprintf(path, sizeof(path), "%s/img", dir);
			fd = open(path, O_RDONLY);
			if (fd < 0)
				die(path);
			int out_fd = fresh(dir, "t0");

			n = snprintf(t0, sizeof(t0), "%lld", (long long)now());
			if (write(out_fd, t0, n) != n)
				die("t0");
			close(out_fd);
			syscall(NR_restart, 0, fd, 0L);
			die("restart");
		}
		if (waitpid(pid, &status, 0) != pid || status)
			return 1;
	}
	return 0;
}

static void maps_main(long count)
{
	char *p = mmap(NULL, count * 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	for (long i = 0; i < count; i++) {
		if (mprotect(p + i * 8192, 4096, PROT_READ | PROT_WRITE))
			die("mprotect");
		p[i * 8192] = (char)i;
	}
	for (;;)
		pause();
}

static void fds_main(long count)
{
	for (long i = 0; i < count; i++)
		if (open(i & 1 ? "/dev/null" : "/proc/self/exe", O_RDONLY) < 0)
			die("open");
	for (;;)
		pause();
}

static int pipe_main(size_t len, int rounds, const char *out)
{
	char *p = noise(len);

	for (int i = 0; i < rounds; i++) {
		int64_t start = now();

		whole_write(STDOUT_FILENO, p, len);
		report(out, "write", now() - start);
	}
	return 0;
}

static int call_main(long pid, const char *out)
{
	int64_t start = now();

	if (syscall(NR_checkpoint, pid, STDOUT_FILENO, 0L) <= 0)
		die("checkpoint");
	report(out, "checkpoint", now() - start);
	return 0;
}

static void *rest(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void threads_main(long n)
{
	pthread_attr_t attr;
	pthread_t t;

	if (pthread_attr_init(&attr) || pthread_attr_setstacksize(&attr, 64 << 10))
		die("attributes");
	for (long i = 1; i < n; i++)
		if (pthread_create(&t, &attr, rest, NULL))
			die("pthread_create");
	for (;;)
		pause();
}

static void processes_main(long n)
{
	const size_t own = 100 << 10;
	volatile char *shared = malloc(256 << 10), *p;

	if (!shared)
		die("malloc");
	for (size_t i = 0; i < 256 << 10; i += 64)
		shared[i] = (char)(i / 64);
	for (long i = 1; i < n; i++) {
		switch (fork()) {
		case -1:
			die("fork");
		case 0:
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			p = malloc(own);
			if (!p)
				die("malloc");
			for (size_t k = 0; k < own; k += 64)
				p[k] = (char)(i + k / 64);
			for (;;)
				pause();
		}
	}
	for (;;)
		pause();
}

int main(int argc, char *argv[])
{
	const size_t MiB = 1 << 20;

	if (argc == 4 && !strcmp(argv[1], "getppid"))
		return getppid_main(argv[2], atol(argv[3]));
	if (argc == 6 && !strcmp(argv[1], "save"))
		return save_main(atol(argv[2]) * MiB, argv[3], argv[4], atoi(argv[5]));
	if (argc == 5 && !strcmp(argv[1], "back"))
		return back_main(argv[2], argv[3], atoi(argv[4]));
	if (argc == 3 && !strcmp(argv[1], "hold")) {
		noise(atol(argv[2]) * MiB);
		for (;;)
			pause();
	}
	if (argc == 3 && !strcmp(argv[1], "maps"))
		maps_main(atol(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "fds"))
		fds_main(atol(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "threads"))
		threads_main(atol(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "processes"))
		processes_main(atol(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "pipe"))
		return pipe_main(atol(argv[2]) * MiB, atoi(argv[3]), argv[4]);
	if (argc == 4 && !strcmp(argv[1], "call"))
		return call_main(atol(argv[2]), argv[3]);
	fprintf(stderr, "usage: see the head of bench.c\n");
	return 2;
}
