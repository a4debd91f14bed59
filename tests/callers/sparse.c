/*
 * sparse.c - a large mapping of which hardly anything is touched.
 *
 *	sparse private|none|shared|memfd|closed|file MiB DIR
 *
 * It writes its pid to DIR/ready, and after SIGUSR1 to DIR/right, if all that
 * it has touched is as it was, and ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIECES 64

static void put(const char *dir, const char *name)
{
	char path[4096], new[4200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(new, sizeof(new), "%s.new", path);
	f = fopen(new, "w");
	if (!f || fprintf(f, "%d\n", getpid()) < 0 || fclose(f) || rename(new, path))
		exit(3);
}

int main(int argc, char *argv[])
{
	const char *kind = argv[1], *dir = argv[3];
	size_t len = strtoull(argv[2], NULL, 10) << 20, step = len / PIECES;
	int flags = MAP_NORESERVE, prot = PROT_READ | PROT_WRITE, fd = -1, sig;
	char path[4096], *p;
	sigset_t set;

	if (argc != 4)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (!strcmp(kind, "private") || !strcmp(kind, "none")) {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	} else if (!strcmp(kind, "shared")) {
		flags |= MAP_SHARED | MAP_ANONYMOUS;
	} else {
		flags |= MAP_SHARED;
		snprintf(path, sizeof(path), "%s/sparse", dir);
		fd = strcmp(kind, "file") ? (int)syscall(SYS_memfd_create, "sparse", 0)
					  : open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		if (fd < 0 || ftruncate(fd, len))
			return 4;
	}
	if (!strcmp(kind, "none"))
		prot = PROT_NONE;
	p = mmap(NULL, len, prot, flags, fd, 0);
	if (p == MAP_FAILED)
		return 5;
	if (strcmp(kind, "memfd"))
		close(fd);
	for (size_t i = 0; i < PIECES; i++) {
		if (prot == PROT_NONE && mprotect(p + i * step, 4096, PROT_READ | PROT_WRITE))
			return 6;
		memset(p + i * step, (int)i + 1, 4096);
	}
	put(dir, "ready");
	if (sigwait(&set, &sig))
		return 7;
	for (size_t i = 0; i < PIECES; i++)
		for (size_t j = 0; j < 4096; j++)
			if (p[i * step + j] != (char)(i + 1))
				return 8;
	put(dir, "right");
	return 0;
}
