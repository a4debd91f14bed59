/*
 * rooted.c - looks around in the root directory of a container, saves itself
 * there and comes back.
 *
 *	rooted save     judges, writes itself to /mnt/img, and what checkpoint() returned to /mnt/said
 *	rooted restart  becomes what is in /mnt/img
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define must(cond) do { \
	if (!(cond)) { \
		dprintf(2, "rooted: line %d: not so: %s (errno %d)\n", __LINE__, #cond, errno); \
		_exit(1); \
	} \
} while (0)

/* names lists a directory in order. */
static const char *names(const char *dir)
{
	static char all[4096];
	struct dirent **list;
	int n = scandir(dir, &list, 0, alphasort);

	must(n >= 0);
	all[0] = 0;
	for (int i = 0; i < n; i++)
		if (list[i]->d_name[0] != '.')
			strcat(strcat(all, list[i]->d_name), " ");
	return all;
}

static void holds(const char *path, const char *want)
{
	char buf[100];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	must(fd >= 0);
	n = read(fd, buf, sizeof buf);
	must(n == (ssize_t)strlen(want) && !memcmp(buf, want, n));
	close(fd);
}

static void look(void)
{
	struct stat st;
	char cwd[100];
	int fd, n;

	must(!strcmp(getcwd(cwd, sizeof cwd), "/"));
	must(!strcmp(names("/"), "bin dev etc link mnt proc ro "));
	must(!strcmp(names("/.."), "bin dev etc link mnt proc ro "));
	must(!strcmp(names("/dev"), "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "));
	must(!strcmp(names("/dev/shm"), ""));
	must(!stat("/dev/null", &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
	must((fd = open("/dev/null", O_WRONLY)) >= 0 && write(fd, "x", 1) == 1 && !close(fd));
	must((fd = open("/dev/full", O_WRONLY)) >= 0 && write(fd, "x", 1) == -1 && errno == ENOSPC && !close(fd));
	must((fd = open("/dev/shm/x", O_CREAT | O_RDWR, 0600)) >= 0 && !close(fd) && !unlink("/dev/shm/x"));
	/* The first terminal of its own. */
	must((fd = open("/dev/ptmx", O_RDWR | O_NOCTTY)) >= 0 && !ioctl(fd, TIOCGPTN, &n) && n == 0 && !close(fd));
	/* /proc is that of the container. */
	must(getpid() == 2 && !access("/proc/1/comm", F_OK) && access("/proc/3", F_OK));
	holds("/proc/1/comm", "init\n");
	/* What was bound, and where. The link is one of the container. */
	holds("/mnt/file", "of the host\n");
	holds("/ro/file", "of the host\n");
	holds("/etc/here", "of the host\n");
	must(open("/ro/new", O_CREAT | O_WRONLY, 0600) == -1 && errno == EROFS);
	must(open("/ro/file", O_WRONLY) == -1 && errno == EROFS);
}

int main(int argc, char **argv)
{
	char said[20];
	int fd, crid;

	must(argc == 2);
	if (!strcmp(argv[1], "restart")) {
		must((fd = open("/mnt/img", O_RDONLY)) >= 0);
		syscall(1001, 0, fd, 0);
		must(!"it returned");
	}
	look();
	/* Standard output and error lead to a file that no name leads to from here. */
	must((fd = open("/mnt/log", O_CREAT | O_RDWR | O_APPEND, 0600)) >= 0);
	must(dup2(fd, 1) == 1 && dup2(fd, 2) == 2 && !close(fd));
	must((fd = open("/mnt/img", O_CREAT | O_TRUNC | O_RDWR, 0600)) >= 0);
	crid = syscall(1000, getpid(), fd, 0);
	must(crid >= 0);
	look();
	must((fd = open("/mnt/said", O_CREAT | O_TRUNC | O_WRONLY, 0600)) >= 0);
	snprintf(said, sizeof said, "%d\n", crid);
	must(write(fd, said, strlen(said)) == (ssize_t)strlen(said));
	return 0;
}
