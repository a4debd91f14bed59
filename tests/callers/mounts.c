/*
 * mounts.c - mounts things in a container with a root of its own, fills them, has files open there, and looks again and
 * again whether all of it is as it was.
 *
 *	mounts      adds a line to /mnt/out each time that it is; ends with 7 when /mnt/stop is there
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static void fail(int line, const char *what)
{
	FILE *f = fopen("/mnt/wrong", "w");

	if (f)
		fprintf(f, "line %d: not so: %s (errno %d)\n", line, what, errno);
	_exit(1);
}

#define must(cond) do { if (!(cond)) fail(__LINE__, #cond); } while (0)

static char text[64 << 10];
static size_t used;

static void say(const char *form, ...)
{
	va_list args;

	va_start(args, form);
	used += vsnprintf(text + used, sizeof text - used, form, args);
	va_end(args);
	must(used < sizeof text);
}

/* look describes a file and, of a directory, all that is in it. */
static void look(const char *path)
{
	char buf[4096];
	struct stat st;
	struct dirent **list;
	ssize_t n;
	int fd;

	must(!lstat(path, &st));
	if (!strcmp(path, "/tmp") || !strcmp(path, "/tmp/socket"))
		st.st_mtim = (struct timespec){ 0, 0 }; /* a socket that is open is bound anew */
	say("%s %o %d:%d %d %lld %lld %lld.%09ld", path, st.st_mode, st.st_uid, st.st_gid, (int)st.st_nlink, (long long)st.st_size,
	    (long long)st.st_blocks, (long long)st.st_mtime, st.st_mtim.tv_nsec);
	n = lgetxattr(path, "user.mark", buf, sizeof buf);
	say(" %.*s", n > 0 ? (int)n : 0, buf);
	if (S_ISLNK(st.st_mode))
		must((n = readlink(path, buf, sizeof buf)) > 0 && n < 4096);
	if (S_ISLNK(st.st_mode))
		say(" -> %.*s", (int)n, buf);
	if (S_ISREG(st.st_mode) && st.st_size > 0) {
		must((fd = open(path, O_RDONLY)) >= 0);
		must((n = pread(fd, buf, 20, st.st_size > 20 ? st.st_size - 20 : 0)) > 0 && !close(fd));
		say(" = %.*s", (int)n, buf);
	}
	say("\n");
	if (!S_ISDIR(st.st_mode))
		return;
	must((n = scandir(path, &list, 0, alphasort)) >= 0);
	for (int i = 0; i < n; i++) {
		char below[300];

		snprintf(below, sizeof below, "%s/%s", path, list[i]->d_name);
		/* Of terminals and queues it is a matter of others. */
		if (strcmp(list[i]->d_name, ".") && strcmp(list[i]->d_name, "..") && strcmp(below, "/dev/pts") && strcmp(below, "/dev/mqueue"))
			look(below);
		free(list[i]);
	}
	free(list);
}

/* mounts describes what is mounted, but for numbers that the kernel gives. */
static void mounts(void)
{
	char line[4096], place[1000], options[1000];
	FILE *f = fopen("/proc/self/mountinfo", "r");

	must(f);
	while (fgets(line, sizeof line, f)) {
		must(sscanf(line, "%*s %*s %*s %*s %999s %999s", place, options) == 2);
		say("%s %s %s", place, options, strstr(line, " - "));
	}
	fclose(f);
}

static void state(void)
{
	used = 0;
	mounts();
	look("/dev");
	look("/tmp");
}

static void fill(const char *path, const char *what)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0640);

	must(fd >= 0 && write(fd, what, strlen(what)) == (ssize_t)strlen(what) && !close(fd));
}

/* differ tells of the first line that is another one. */
static void differ(const char *was, const char *is)
{
	size_t i = 0, begin = 0;
	FILE *f = fopen("/mnt/wrong", "w");

	must(f);
	for (; was[i] && was[i] == is[i]; i++)
		if (was[i] == '\n')
			begin = i + 1;
	fprintf(f, "was: %.*s\nis:  %.*s\n", (int)strcspn(was + begin, "\n"), was + begin, (int)strcspn(is + begin, "\n"), is + begin);
	fclose(f);
	_exit(1);
}

/* mount_all mounts one of each kind. */
static void mount_all(void)
{
	struct timespec old[2] = { { 1000000000, 1 }, { 1100000000, 123456789 } };
	char page[4096];
	int fd;

	must(!mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=8m,mode=1777"));
	fill("/tmp/file", "content");
	must(!link("/tmp/file", "/tmp/other name") && !symlink("/nowhere/at all", "/tmp/symlink"));
	must(!chmod("/tmp/file", 04711) && !utimensat(AT_FDCWD, "/tmp/symlink", old, AT_SYMLINK_NOFOLLOW));
	if (setxattr("/tmp/file", "user.mark", "marked", 6, 0))
		must(errno == EOPNOTSUPP);
	must(!mkdir("/tmp/dir", 0700) && !mkdir("/tmp/dir/below", 0500) && !mkfifo("/tmp/dir/fifo", 0620));
	must(!mknod("/tmp/dir/stale", S_IFSOCK | 0600, 0));
	/* Holes, and more than one piece of an archive. */
	must((fd = open("/tmp/dir/holes", O_CREAT | O_RDWR, 0600)) >= 0);
	memset(page, 'x', sizeof page);
	for (int i = 0; i < 40; i++)
		must(pwrite(fd, page, sizeof page, 100000000 + i * 8192L) == sizeof page);
	must(!ftruncate(fd, 200000000) && !close(fd));
	/* A mount upon a directory that is not empty, and one that is only a part of it. */
	fill("/tmp/dir/below/hidden", "hidden");
	must(!mkdir("/tmp/part", 0755) && !mount("/tmp/dir", "/tmp/part", 0, MS_BIND, 0));
	must(!mount(0, "/tmp/part", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, 0));
	must(!mount("full", "/tmp/dir/below", "tmpfs", MS_NOEXEC, "nr_inodes=100"));
	fill("/tmp/dir/below/shows", "shows");
	must(!mount(0, "/tmp/dir/below", 0, MS_REMOUNT | MS_RDONLY | MS_NOEXEC, "nr_inodes=100"));
	must(!mkdir("/dev/mqueue", 0755) && !mount("mqueue", "/dev/mqueue", "mqueue", 0, 0));
	must(!mount("/mnt", "/etc", 0, MS_BIND, 0));
	must(!utimensat(AT_FDCWD, "/tmp/dir", old, 0));
	fill("/dev/shm/segment", "shared memory");
}

int main(void)
{
	static char first[sizeof text];
	struct sockaddr_un address = { AF_UNIX, "/tmp/socket" };
	int out, file, gone, terminal, slave, listener, client, n;
	char *shared, buf[20];

	mount_all();
	must((out = open("/mnt/out", O_CREAT | O_WRONLY | O_APPEND, 0644)) >= 0);
	must((file = open("/tmp/file", O_RDWR)) >= 0 && lseek(file, 3, SEEK_SET) == 3);
	must((gone = open("/tmp/gone", O_CREAT | O_RDWR, 0600)) >= 0 && write(gone, "gone", 4) == 4 && !unlink("/tmp/gone"));
	must((terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY)) >= 0);
	n = 0;
	must(!ioctl(terminal, TIOCSPTLCK, &n) && (slave = open("/dev/pts/0", O_RDWR | O_NOCTTY)) >= 0);
	must((n = open("/dev/shm/segment", O_RDWR)) >= 0);
	must((shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, n, 0)) != MAP_FAILED && !close(n));
	must((listener = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && !bind(listener, (void *)&address, sizeof address) && !listen(listener, 5));
	must(!chdir("/tmp/dir"));
	state();
	memcpy(first, text, sizeof first);
	while (access("/mnt/stop", F_OK)) {
		state();
		if (strcmp(first, text)) {
			differ(first, text);
		}
		must(pread(file, buf, 7, 0) == 7 && lseek(file, 0, SEEK_CUR) == 3);
		must(pread(gone, buf, 4, 0) == 4 && !memcmp(buf, "gone", 4));
		must(!ioctl(terminal, TIOCGPTN, &n) && n == 0 && isatty(slave));
		must(!memcmp(shared, "shared memory", 13));
		must((client = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && !connect(client, (void *)&address, sizeof address));
		must((n = accept(listener, 0, 0)) >= 0 && !close(n) && !close(client));
		must(getcwd(text, sizeof text) && !strcmp(text, "/tmp/dir"));
		must(write(out, "as it was\n", 10) == 10);
		usleep(10000);
	}
	return 7;
}
