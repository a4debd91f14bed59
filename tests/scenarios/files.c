/*
 * files.c - descriptors: regular files, directories, the memory devices.
 */
#include "scenario.h"

#include <dirent.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/resource.h>

static int fd, fd2, fd3;

static int open_file(const char *name, int flags)
{
	int n = open(path(name, -1), flags | O_CREAT, 0600);

	if (n < 0)
		fail("open %s: errno %d", name, errno);
	return n;
}

/* A writer: offset and contents grow at each cycle. */
static void offset_setup(void)
{
	fd = open_file("data", O_RDWR | O_TRUNC);
	check_eq(write(fd, "0123456789", 10), 10);
	check_eq(lseek(fd, 4, SEEK_SET), 4);
}

static void offset_verify(int cycle)
{
	char c;

	check_eq(lseek(fd, 0, SEEK_CUR), 4 + (cycle - 1) * 2);
	check_eq(read(fd, &c, 1), 1);
	check_eq(c, '4' + (cycle - 1) * 2);
	check_eq(write(fd, "x", 1), 1);
}

static void append_setup(void)
{
	fd = open_file("data", O_WRONLY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC);
	check_eq(write(fd, "abc", 3), 3);
	check_eq(lseek(fd, 1, SEEK_SET), 1);
}

static void append_verify(int cycle)
{
	check_eq(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC),
		 O_WRONLY | O_APPEND | O_NONBLOCK | O_SYNC);
	check_eq(write(fd, "de", 2), 2);
	check_eq(lseek(fd, 0, SEEK_CUR), 3 + 2 * cycle);
	check_eq(lseek(fd, 1, SEEK_SET), 1);
}

/* Offsets beyond the end, beyond 4 GiB, and a file that has got a new name. */
static void renamed_setup(void)
{
	char *from = path("data", -1);

	fd = open_file("data", O_RDWR | O_TRUNC);
	check_eq(rename(from, path("new name \n with\ttrouble", -1)), 0);
	check_eq(lseek(fd, 5ll << 32, SEEK_SET), 5ll << 32);
}

static void renamed_verify(int cycle)
{
	(void)cycle;
	check_eq(lseek(fd, 0, SEEK_CUR), 5ll << 32);
	check_eq(access(path("data", -1), F_OK), -1);
}

/* dup: one open file under three numbers, one of them close-on-exec. */
static void dup_setup(void)
{
	fd = open_file("data", O_RDWR | O_TRUNC);
	fd2 = dup(fd);
	fd3 = fcntl(fd, F_DUPFD_CLOEXEC, 77);
	check(fd2 >= 0);
	check_eq(fd3, 77);
}

static void dup_verify(int cycle)
{
	check_eq(write(fd, "a", 1), 1);
	check_eq(lseek(fd2, 0, SEEK_CUR), 3 * cycle - 2);
	check_eq(write(fd2, "b", 1), 1);
	check_eq(write(fd3, "c", 1), 1);
	check_eq(lseek(fd, 0, SEEK_CUR), 3 * cycle);
	check_eq(fcntl(fd, F_GETFD), 0);
	check_eq(fcntl(fd2, F_GETFD), 0);
	check_eq(fcntl(fd3, F_GETFD), FD_CLOEXEC);
	/* Status flags belong to the open file, too. */
	check_eq(fcntl(fd3, F_SETFL, cycle & 1 ? O_APPEND : 0), 0);
	check_eq(fcntl(fd, F_GETFL) & O_APPEND, cycle & 1 ? O_APPEND : 0);
}

/* Opened twice: two offsets, though the file is the same. */
static void twice_setup(void)
{
	fd = open_file("data", O_RDWR | O_TRUNC);
	check_eq(write(fd, "0123456789", 10), 10);
	fd2 = open_file("data", O_RDONLY);
	check_eq(lseek(fd2, 3, SEEK_SET), 3);
}

static void twice_verify(int cycle)
{
	char c;

	check_eq(read(fd2, &c, 1), 1);
	check_eq(c, '2' + cycle);
	check_eq(lseek(fd, 0, SEEK_CUR), 10);
	check_eq(fcntl(fd2, F_GETFL) & O_ACCMODE, O_RDONLY);
}

/* ---- directories ---- */

#define NAMES 300

static char seen[NAMES];

static void directory_setup(void)
{
	check_eq(mkdir(path("dir", -1), 0700), 0);
	for (int i = 0; i < NAMES; i++)
		check_eq(close(open_file((snprintf(seen, sizeof(seen), "dir/%d", i), seen), O_WRONLY)), 0);
	memset(seen, 0, sizeof(seen));
	fd = open(path("dir", -1), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(fd >= 0);
}

/* directory_read notes some entries, by one getdents64. */
static int directory_read(void)
{
	struct { uint64_t ino; int64_t off; uint16_t len; uint8_t type; char name[]; } *e;
	char buf[2000];
	long n = syscall(SYS_getdents64, fd, buf, sizeof(buf));

	check(n >= 0);
	for (long at = 0; at < n; at += e->len) {
		e = (void *)(buf + at);
		if (e->name[0] == '.')
			continue;
		if (seen[atoi(e->name)]++)
			fail("name %s was read twice", e->name);
	}
	return n > 0;
}

static void directory_verify(int cycle)
{
	check(directory_read());
	if (cycle < 2)
		return;
	/* To the end: each name exactly once, over all restarts. */
	while (directory_read())
		;
	for (int i = 0; i < NAMES; i++)
		check_eq(seen[i], 1);
	memset(seen, 0, sizeof(seen));
	check_eq(lseek(fd, 0, SEEK_SET), 0);
	check_eq(openat(fd, "no such", O_RDONLY), -1);
	check_eq(errno, ENOENT);
}

/* ---- devices ---- */

static const char *const devices[] = { "null", "zero", "full", "random", "urandom" };

static void devices_setup(void)
{
	char name[32];

	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "/dev/%s", devices[i]);
		fd = open(name, O_RDWR);
		if (fd < 0)
			needs("%s", name);
		check_eq(dup2(fd, 20 + i), 20 + i);
		check_eq(close(fd), 0);
	}
}

static void devices_verify(int cycle)
{
	char buf[64];

	(void)cycle;
	check_eq(write(20, "abc", 3), 3);
	check_eq(read(20, buf, 3), 0);
	memset(buf, 1, sizeof(buf));
	check_eq(read(21, buf, sizeof(buf)), sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		check_eq(buf[i], 0);
	check_eq(read(22, buf, 8), 8);
	check_eq(write(22, buf, 8), -1);
	check_eq(errno, ENOSPC);
	for (int i = 23; i < 25; i++) {
		memset(buf, 0, sizeof(buf));
		check_eq(read(i, buf, sizeof(buf)), sizeof(buf));
		check(memcmp(buf, buf + 32, 32));
	}
}

/* ---- numbers ---- */

/* The highest number that the limit allows, and holes in between. */
static int highest;

static void high_setup(void)
{
	struct rlimit limit;

	check_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	highest = (int)limit.rlim_cur - 1;
	fd = open_file("data", O_RDWR | O_TRUNC);
	check_eq(dup2(fd, highest), highest);
	check_eq(dup2(fd, highest / 2), highest / 2);
	check_eq(close(fd), 0);
}

static void high_verify(int cycle)
{
	check_eq(write(highest, "x", 1), 1);
	check_eq(lseek(highest / 2, 0, SEEK_CUR), cycle);
	check_eq(fcntl(fd, F_GETFD), -1);
}

#define MANY 2000

static int numbers[MANY];

static void many_setup(void)
{
	struct rlimit limit;

	check_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur < MANY + 100)
		needs("%d descriptors", MANY + 100);
	fd = open_file("data", O_RDWR | O_TRUNC);
	for (int i = 0; i < MANY; i++) {
		numbers[i] = i % 3 ? open_file("data", O_RDONLY) : dup(fd);
		check(numbers[i] >= 0);
		if (i % 3)
			check_eq(lseek(numbers[i], i, SEEK_SET), i);
	}
}

static void many_verify(int cycle)
{
	check_eq(write(fd, "x", 1), 1);
	for (int i = 0; i < MANY; i++)
		check_eq(lseek(numbers[i], 0, SEEK_CUR), i % 3 ? i : cycle);
}

/* No standard input, output or error at all. */
static void closed_setup(void)
{
	for (int i = 0; i < 3; i++)
		close(i);
}

static void closed_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < 3; i++)
		check_eq(fcntl(i, F_GETFD), -1);
}

/* A stdio stream with unwritten text in its buffer. */
static FILE *stream;

static void stream_setup(void)
{
	stream = fopen(path("data", -1), "w+e");
	check(stream != NULL);
}

static void stream_verify(int cycle)
{
	char line[64];
	int n = 0;

	fprintf(stream, "line %d\n", cycle);
	if (cycle < 2)
		return;
	check_eq(fflush(stream), 0);
	rewind(stream);
	while (fgets(line, sizeof(line), stream)) {
		n++;
		check_eq(atoi(line + 5), n);
	}
	check_eq(n, cycle);
	check_eq(fseek(stream, 0, SEEK_END), 0);
}

/* Rights were checked when the file was opened; its mode says nothing now. */
static void mode_setup(void)
{
	fd = open_file("data", O_RDWR | O_TRUNC);
	check_eq(fchmod(fd, 0200), 0);
	fd2 = open(path("data", -1), O_WRONLY);
	check(fd2 >= 0);
	check_eq(close(fd), 0);
}

static void mode_verify(int cycle)
{
	check_eq(write(fd2, "x", 1), 1);
	check_eq(lseek(fd2, 0, SEEK_CUR), cycle);
}

/* Every flag of open(2) that stays; the frame compares what fdinfo shows. */
static const int flags[] = {
	O_RDWR | O_DSYNC, O_RDWR | O_SYNC, O_WRONLY | O_ASYNC | O_NOFOLLOW, O_RDONLY | O_NOATIME | O_NONBLOCK,
	O_RDWR | O_APPEND | O_DIRECT | O_CLOEXEC,
};

#define FLAGS (int)(sizeof(flags) / sizeof(*flags))

static void flags_setup(void)
{
	int known = O_ACCMODE | O_DSYNC | O_SYNC | O_ASYNC | O_NOFOLLOW | O_NOATIME | O_NONBLOCK | O_APPEND | O_DIRECT;

	for (int i = 0; i < FLAGS; i++) {
		numbers[i] = open(path("data", -1), flags[i] | O_CREAT, 0600);
		if (numbers[i] < 0 && (flags[i] & O_DIRECT))
			needs("O_DIRECT on this file system");
		check(numbers[i] >= 0);
		check_eq(fcntl(numbers[i], F_GETFL) & known, flags[i] & known);
	}
}

static void flags_verify(int cycle)
{
	static char block[4096] __attribute__((aligned(4096)));

	flags_setup();
	for (int i = 0; i < FLAGS; i++)
		check_eq(close(numbers[i]), 0);	/* the new ones */
	check_eq(write(3 + FLAGS - 1, block, sizeof(block)), sizeof(block));
	check_eq(lseek(3 + FLAGS - 1, 0, SEEK_CUR), cycle * (int)sizeof(block));
}

/* O_PATH, to every type of file. */
static void place_setup(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int n = socket(AF_UNIX, SOCK_STREAM, 0), dir = open(scenario_dir, O_PATH | O_DIRECTORY);

	check_eq(dup2(dir, 30), 30);
	check_eq(close(open_file("data", O_RDWR)), 0);
	check_eq(symlinkat("data", 30, "link"), 0);
	check_eq(symlinkat("no such", 30, "dangling"), 0);
	check_eq(mkfifo(path("fifo", -1), 0600), 0);
	/* By a short name: the path may be longer than an address takes. */
	snprintf(name.sun_path, sizeof(name.sun_path), "/proc/self/fd/30/socket");
	check_eq(bind(n, (struct sockaddr *)&name, sizeof(name)), 0);
	check_eq(close(n), 0);
	check_eq(close(dir), 0);
	fd = open(path("data", -1), O_PATH);
	check_eq(dup2(openat(30, "link", O_PATH | O_NOFOLLOW), 31), 31);
	check_eq(dup2(openat(30, "dangling", O_PATH | O_NOFOLLOW | O_CLOEXEC), 32), 32);
	check_eq(dup2(openat(30, "fifo", O_PATH), 33), 33);
	check_eq(dup2(openat(30, "socket", O_PATH), 34), 34);
	check_eq(dup2(open("/dev/null", O_PATH), 35), 35);
	check_eq(dup2(open("/dev/tty", O_PATH), 36), 36);
}

static void place_verify(int cycle)
{
	static const mode_t types[] = { S_IFDIR, S_IFLNK, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFCHR };
	struct stat st;
	char buf[64];

	(void)cycle;
	for (int i = 0; i < 7; i++) {
		check_eq(fstat(30 + i, &st), 0);
		check_eq(st.st_mode & S_IFMT, types[i]);
		check(fcntl(30 + i, F_GETFL) & O_PATH);
	}
	check_eq(fcntl(fd, F_GETFL), O_PATH);
	check_eq(read(fd, buf, 1), -1);
	check_eq(readlinkat(31, "", buf, sizeof(buf)), 4);
	check_eq(readlinkat(32, "", buf, sizeof(buf)), 7);
	check_eq(fstatat(30, "data", &st, 0), 0);
}

/* Names that are hard to write down. */
static const char *const odd_names[] = {
	"new\nline", " ", "\t\\012 \\", "\xff\xfe not UTF-8", "\xc3\xa4\xe2\x82\xac", "%s%n", "deep (deleted) (deleted)", NULL,
};

static void names_setup(void)
{
	static char longest[256];

	memset(longest, 'x', 255);
	for (int i = 0; i < 8; i++) {
		const char *name = odd_names[i] ? odd_names[i] : longest;

		numbers[i] = open_file(name, O_RDWR);
		check_eq(write(numbers[i], &i, sizeof(i)), sizeof(i));
	}
}

static void names_verify(int cycle)
{
	int got;

	for (int i = 0; i < 8; i++) {
		check_eq(pread(numbers[i], &got, sizeof(got), 0), sizeof(got));
		check_eq(got, i);
		check_eq(write(numbers[i], &i, sizeof(i)), sizeof(i));
		check_eq(lseek(numbers[i], 0, SEEK_CUR), (cycle + 1) * sizeof(i));
	}
}

/* Files that the kernel writes, read in part. */
static char first_line[64];
static int secret = 4711;

static void kernel_setup(void)
{
	char buf[64];
	int n;

	fd = open("/proc/self/status", O_RDONLY);
	check(fd >= 0);
	check_eq(pread(fd, first_line, 12, 0), 12);
	check_eq(read(fd, buf, 3), 3);
	fd2 = open("/proc/self/mem", O_RDWR);
	check(fd2 >= 0);
	fd3 = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
	check(fd3 >= 0);
	check_eq(dup2(open("/proc/sys/kernel/ostype", O_RDONLY), 40), 40);
	check_eq(read(40, buf, 2), 2);
	n = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
	if (n >= 0) {
		check(read(n, buf, 4) == 4);
		check_eq(dup2(n, 41), 41);
		check_eq(close(n), 0);
	}
	check_eq(dup2(open("/proc/thread-self/comm", O_RDONLY), 42), 42);
	check_eq(dup2(open("/proc/meminfo", O_RDONLY), 43), 43);
	check_eq(read(43, buf, 8), 8);
	check_eq(dup2(open("/proc/self/maps", O_RDONLY), 44), 44);
}

static void kernel_verify(int cycle)
{
	char buf[64], name[16];
	struct stat st;

	check_eq(lseek(fd, 0, SEEK_CUR), 3);
	check_eq(pread(fd, buf, 9, 3), 9);
	check_eq(memcmp(buf, first_line + 3, 9), 0);
	/* The memory is that of this process. */
	check_eq(pread(fd2, &buf, sizeof(secret), (off_t)(uintptr_t)&secret), sizeof(secret));
	check_eq(memcmp(buf, &secret, sizeof(secret)), 0);
	secret += cycle;
	check_eq(pwrite(fd2, &cycle, sizeof(cycle), (off_t)(uintptr_t)&fd2 + 0 * cycle), sizeof(cycle));
	check_eq(fd2, cycle);
	fd2 = open("/proc/self/mem", O_RDWR);
	check(fd2 >= 0);
	snprintf(name, sizeof(name), "%d", getpid());
	check_eq(fstatat(fd3, name, &st, 0), 0);
	check_eq(read(40, buf, 3), 3);
	check_eq(memcmp(buf, "nux", 3), 0);
	check_eq(lseek(40, 2, SEEK_SET), 2);
	check_eq(pread(42, buf, 5, 0), 5);
	check_eq(memcmp(buf, "files", 5), 0);
	check_eq(pread(43, buf, 1, 8), 1);
	check_eq(buf[0], ':');
	check(pread(44, buf, 8, 0) > 0);
}

SCENARIOS(
	{ "offset", BOTH, offset_setup, offset_verify, NULL, 0 },
	{ "append", BOTH, append_setup, append_verify, NULL, 0 },
	{ "renamed", BOTH, renamed_setup, renamed_verify, NULL, 0 },
	{ "dup", BOTH, dup_setup, dup_verify, NULL, 0 },
	{ "twice", BOTH, twice_setup, twice_verify, NULL, 0 },
	{ "directory", BOTH, directory_setup, directory_verify, NULL, 0 },
	{ "devices", BOTH, devices_setup, devices_verify, NULL, 0 },
	{ "high", BOTH, high_setup, high_verify, NULL, 0 },
	{ "many", BOTH, many_setup, many_verify, NULL, 0 },
	{ "closed", BOTH, closed_setup, closed_verify, NULL, 0 },
	{ "stream", BOTH, stream_setup, stream_verify, NULL, 0 },
	{ "flags", BOTH, flags_setup, flags_verify, NULL, 0 },
	{ "place", BOTH, place_setup, place_verify, NULL, 0 },
	{ "names", BOTH, names_setup, names_verify, NULL, 0 },
	{ "kernel", BOTH, kernel_setup, kernel_verify, NULL, 0 },
	{ "mode", BOTH, mode_setup, mode_verify, NULL, 0 },
)
