/*
 * deleted.c - files without a name: deleted while open, or made by O_TMPFILE.
 */
#include "scenario.h"

static int fd, fd2, fd3, fd4;
static char buf[1 << 16];

static int must(int n)
{
	if (n < 0)
		fail("errno %d", errno);
	return n;
}

/* gone returns a descriptor of a new file that has lost its name. */
static int gone(int flags)
{
	int n = must(open(path("gone", -1), flags | O_CREAT | O_EXCL, 0600));

	check_eq(unlink(path("gone", -1)), 0);
	return n;
}

static struct stat stat_of(int n)
{
	struct stat st;

	check_eq(fstat(n, &st), 0);
	return st;
}

/* Contents, offset, and what is written from one point to the next. */
static void contents_setup(void)
{
	fd = gone(O_RDWR);
	fill(buf, sizeof(buf), 1);
	for (int i = 0; i < 5; i++)
		check_eq(write(fd, buf, sizeof(buf) - 3), sizeof(buf) - 3);
	check_eq(lseek(fd, 1, SEEK_SET), 1);
}

static void contents_verify(int cycle)
{
	static char got[sizeof(buf)];

	check_eq(lseek(fd, 0, SEEK_CUR), 1);
	fill(buf, sizeof(buf), 1);
	memset(buf, cycle, cycle - 1);
	for (int i = 0; i < 5; i++) {
		check_eq(pread(fd, got, sizeof(buf) - 3, i * (sizeof(buf) - 3)), sizeof(buf) - 3);
		check_eq(memcmp(got, buf, sizeof(buf) - 3), 0);
	}
	memset(buf, cycle + 1, cycle);
	for (int i = 0; i < 5; i++)
		check_eq(pwrite(fd, buf, cycle, i * (sizeof(buf) - 3)), cycle);
	check_eq(stat_of(fd).st_size, 5 * (sizeof(buf) - 3));
	check_eq(stat_of(fd).st_nlink, 0);
	check_eq(access(path("gone", -1), F_OK), -1);
	/* It has no name, and can get none. */
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
	check_eq(linkat(AT_FDCWD, buf, AT_FDCWD, path("new", -1), AT_SYMLINK_FOLLOW), -1);
}

/* 5 GiB with three pages in it, and one that is a hole again. */
static void sparse_setup(void)
{
	fd = gone(O_RDWR);
	check_eq(pwrite(fd, "a", 1, 0), 1);
	check_eq(pwrite(fd, "b", 1, 5ll << 30), 1);
	check_eq(pwrite(fd, "c", 1, 1 << 20), 1);
	check_eq(ftruncate(fd, (5ll << 30) + 12345), 0);
}

static void sparse_verify(int cycle)
{
	struct stat st = stat_of(fd);

	check_eq(st.st_size, (5ll << 30) + 12345);
	check(st.st_blocks <= 3 * 128 + 8 * cycle);
	check_eq(pread(fd, buf, 2, 0), 2);
	check_eq(buf[0] << 8 | buf[1], 'a' << 8);
	check_eq(pread(fd, buf, 2, 5ll << 30), 2);
	check_eq(buf[0] << 8 | buf[1], 'b' << 8);
	check_eq(pread(fd, buf, 2, 1 << 20), 2);
	check_eq(buf[0] << 8 | buf[1], 'c' << 8);
	for (int i = 1; i < cycle; i++) {
		check_eq(pread(fd, buf, 1, (2ll << 30) + i * 4096), 1);
		check_eq(buf[0], i);
	}
	buf[0] = cycle;
	check_eq(pwrite(fd, buf, 1, (2ll << 30) + cycle * 4096), 1);
}

/* One file, opened four times: what one writes the others read. */
static void shared_setup(void)
{
	char name[64];

	fd = gone(O_WRONLY | O_APPEND | O_SYNC);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	fd2 = must(open(name, O_RDONLY | O_CLOEXEC));
	fd3 = must(open(name, O_RDWR | O_NONBLOCK));
	fd4 = must(dup(fd3));
	check_eq(write(fd, "0123456789", 10), 10);
	check_eq(lseek(fd2, 2, SEEK_SET), 2);
	check_eq(lseek(fd4, 5, SEEK_SET), 5);
}

static void shared_verify(int cycle)
{
	struct stat st = stat_of(fd);
	char c = 'a' + cycle;

	check_eq(stat_of(fd2).st_ino, st.st_ino);
	check_eq(stat_of(fd3).st_ino, st.st_ino);
	check_eq(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_SYNC | O_NONBLOCK), O_WRONLY | O_APPEND | O_SYNC);
	check_eq(fcntl(fd2, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDONLY);
	check_eq(fcntl(fd2, F_GETFD), FD_CLOEXEC);
	check_eq(fcntl(fd3, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	check_eq(write(fd, &c, 1), 1);
	check_eq(stat_of(fd2).st_size, 10 + cycle);
	check_eq(pread(fd2, buf, 1, 9 + cycle), 1);
	check_eq(buf[0], c);
	check_eq(read(fd2, buf, 1), 1);
	check_eq(buf[0], '1' + cycle);
	check_eq(read(fd4, buf, 1), 1);
	check_eq(lseek(fd3, 0, SEEK_CUR), 5 + cycle);
	check_eq(write(fd2, "x", 1), -1);
	check_eq(errno, EBADF);
}

/* A log that was rotated away: nobody reads it here. */
static void log_setup(void)
{
	fd = gone(O_WRONLY);
	check_eq(write(fd, "one\n", 4), 4);
}

static void log_verify(int cycle)
{
	check_eq(lseek(fd, 0, SEEK_CUR), 4 * cycle);
	check_eq(stat_of(fd).st_size, 4 * cycle);
	check_eq(write(fd, "two\n", 4), 4);
}

/* O_TMPFILE: it can get a name at any time. */
static void tmpfile_setup(void)
{
	fd = open(scenario_dir, O_RDWR | O_TMPFILE, 0640);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
		needs("O_TMPFILE on this file system");
	must(fd);
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
	fd2 = must(open(buf, O_RDONLY));
	check_eq(write(fd, "abc", 3), 3);
}

static void tmpfile_verify(int cycle)
{
	char name[64];

	check_eq(fcntl(fd, F_GETFL) & (O_TMPFILE | O_ACCMODE), O_TMPFILE | O_RDWR);
	check_eq(fcntl(fd2, F_GETFL) & (O_TMPFILE | O_ACCMODE), O_RDONLY);
	check_eq(stat_of(fd).st_mode, S_IFREG | 0640);
	check_eq(lseek(fd, 0, SEEK_CUR), 2 + cycle);
	check_eq(pread(fd2, buf, 3, 0), 3);
	check_eq(memcmp(buf, "abc", 3), 0);
	check_eq(write(fd, "d", 1), 1);
	if (cycle < 3)
		return;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	unlink(path("named", -1));
	check_eq(linkat(AT_FDCWD, name, AT_FDCWD, path("named", -1), AT_SYMLINK_FOLLOW), 0);
	fd3 = must(open(path("named", -1), O_RDONLY));
	check_eq(read(fd3, buf, 16), 3 + cycle);
}

/* Mode and times, and rights that were checked when it was opened. */
static struct stat before;

static void mode_setup(void)
{
	struct timespec times[2] = { { 1234567890, 987654321 }, { 1000000000, 5 } };

	fd = gone(O_RDWR);
	fd2 = gone(O_WRONLY | O_DSYNC);
	check_eq(write(fd, "abc", 3), 3);
	check_eq(fchmod(fd, 0400), 0);
	fd3 = gone(O_RDWR);
	check_eq(fchmod(fd3, 0), 0);
	check_eq(fchmod(fd2, 06755), 0);
	check_eq(futimens(fd, times), 0);
	before = stat_of(fd);
}

static void mode_verify(int cycle)
{
	struct stat now = stat_of(fd);

	(void)cycle;
	check_eq(now.st_mode, before.st_mode);
	check_eq(now.st_uid, before.st_uid);
	check_eq(now.st_gid, before.st_gid);
	check_eq(now.st_size, before.st_size);
	check_eq(now.st_dev, before.st_dev);
	check_eq(now.st_atim.tv_sec, before.st_atim.tv_sec);
	check_eq(now.st_atim.tv_nsec, before.st_atim.tv_nsec);
	check_eq(now.st_mtim.tv_sec, before.st_mtim.tv_sec);
	check_eq(now.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	check_eq(stat_of(fd2).st_mode, S_IFREG | 06755);
	check_eq(stat_of(fd3).st_mode, S_IFREG);
	check_eq(fcntl(fd2, F_GETFL) & (O_ACCMODE | O_SYNC), O_WRONLY | O_DSYNC);
}

/* Another owner than the process. */
static void owner_setup(void)
{
	fd = gone(O_RDWR);
	check_eq(fchown(fd, 1234, 5678), 0);
	check_eq(fchmod(fd, 04755), 0);
}

static void owner_verify(int cycle)
{
	(void)cycle;
	check_eq(stat_of(fd).st_uid, 1234);
	check_eq(stat_of(fd).st_gid, 5678);
	check_eq(stat_of(fd).st_mode, S_IFREG | 04755);
}

/* The kernel says "(deleted)", and so may a name. */
static void named_setup(void)
{
	fd = must(open(path("file (deleted)", -1), O_RDWR | O_CREAT | O_TRUNC, 0600));
	check_eq(write(fd, "abc", 3), 3);
	fd2 = must(open(path("other (deleted)", -1), O_RDWR | O_CREAT | O_TRUNC, 0600));
	check_eq(unlink(path("other (deleted)", -1)), 0);
	check_eq(write(fd2, "def", 3), 3);
}

static void named_verify(int cycle)
{
	struct stat st;

	(void)cycle;
	check_eq(stat_of(fd).st_nlink, 1);
	check_eq(stat(path("file (deleted)", -1), &st), 0);
	check_eq(stat_of(fd).st_ino, st.st_ino);
	check_eq(stat_of(fd2).st_nlink, 0);
	check_eq(access(path("other (deleted)", -1), F_OK), -1);
	check_eq(pread(fd2, buf, 8, 0), 3);
	check_eq(memcmp(buf, "def", 3), 0);
}

/* O_PATH to it, beside one that reads. */
static void place_setup(void)
{
	fd = gone(O_RDWR);
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
	fd2 = must(open(buf, O_PATH));
	check_eq(write(fd, "abc", 3), 3);
}

static void place_verify(int cycle)
{
	char name[64];

	check_eq(fcntl(fd2, F_GETFL), O_PATH);
	check_eq(stat_of(fd2).st_ino, stat_of(fd).st_ino);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd2);
	fd3 = must(open(name, O_RDONLY));
	check_eq(read(fd3, buf, 16), 2 + cycle);
	check_eq(close(fd3), 0);
	check_eq(write(fd, "d", 1), 1);
}

/* On another file system. */
static void elsewhere_setup(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/dev/shm/crshim-%d", getpid());
	fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		needs("/dev/shm");
	check_eq(unlink(name), 0);
	check_eq(write(fd, "abc", 3), 3);
	check_eq(pwrite(fd, "def", 3, 1 << 20), 3);
	before = stat_of(fd);
}

static void elsewhere_verify(int cycle)
{
	struct stat now = stat_of(fd);

	(void)cycle;
	check_eq(now.st_dev, before.st_dev);
	check_eq(now.st_blocks, before.st_blocks);
	check_eq(pread(fd, buf, 8, 1 << 20), 3);
	check_eq(memcmp(buf, "def", 3), 0);
	check_eq(lseek(fd, 0, SEEK_CUR), 3);
}

/* A library that was upgraded: mapped, changed in memory, and deleted. */
static unsigned char *library;

static void library_setup(void)
{
	static unsigned char page[4096];
	int n = must(open(path("library", -1), O_RDWR | O_CREAT | O_EXCL, 0755));

	for (int i = 0; i < 4; i++) {
		fill(page, sizeof(page), i);
		page[0] = 0xc3;	/* ret */
		check_eq(write(n, page, sizeof(page)), sizeof(page));
	}
	check_eq(close(n), 0);
	n = must(open(path("library", -1), O_RDONLY));
	library = mmap(NULL, 4 * 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, n, 0);
	check(library != MAP_FAILED);
	check_eq(mprotect(library + 2 * 4096, 2 * 4096, PROT_READ | PROT_WRITE), 0);
	library[2 * 4096 + 7] = 'x';
	check_eq(mprotect(library + 3 * 4096, 4096, PROT_READ), 0);
	check_eq(close(n), 0);
	check_eq(unlink(path("library", -1)), 0);
}

static void library_verify(int cycle)
{
	static unsigned char page[4096];

	(void)cycle;
	((void (*)(void))library)();
	((void (*)(void))(library + 4096))();
	for (int i = 0; i < 4; i++) {
		fill(page, sizeof(page), i);
		page[0] = 0xc3;
		if (i == 2)
			page[7] = 'x';
		check_eq(memcmp(library + i * 4096, page, sizeof(page)), 0);
	}
}

/* The program itself was upgraded: it runs from a file without a name. */
static void program_setup(void)
{
	static unsigned char image[1 << 16];
	const char *const *argv = scenario_argv;
	int from, to;
	ssize_t n;

	if (getenv("COPIED")) {
		check_eq(unlink(path("program", -1)), 0);
		return;
	}
	from = must(open("/proc/self/exe", O_RDONLY));
	to = must(open(path("program", -1), O_WRONLY | O_CREAT | O_EXCL, 0755));
	while ((n = read(from, image, sizeof(image))) > 0)
		check_eq(write(to, image, n), n);
	check_eq(n, 0);
	check_eq(close(from), 0);
	check_eq(close(to), 0);
	check_eq(setenv("COPIED", "1", 1), 0);
	execv(path("program", -1), (char *const *)argv);
	fail("execute the copy: errno %d", errno);
}

static void program_verify(int cycle)
{
	static const char text[] = "still here";

	check_eq(access(path("program", -1), F_OK), -1);
	snprintf(buf, sizeof(buf), "%s %d", text, cycle);
	check_eq(memcmp(buf, text, sizeof(text) - 1), 0);
}

/* Its directory is gone, too: it comes back in another one. */
static void orphan_setup(void)
{
	check_eq(mkdir(path("dir", -1), 0700), 0);
	fd = must(open(path("dir/file", -1), O_RDWR | O_CREAT, 0600));
	check_eq(unlink(path("dir/file", -1)), 0);
	check_eq(rmdir(path("dir", -1)), 0);
	check_eq(write(fd, "abc", 3), 3);
}

static void orphan_verify(int cycle)
{
	(void)cycle;
	check_eq(pread(fd, buf, 16, 0), 3);
	check_eq(memcmp(buf, "abc", 3), 0);
	check_eq(stat_of(fd).st_nlink, 0);
}

/* Another file has taken its name. */
static void replaced_setup(void)
{
	int other;

	fd = must(open(path("one", -1), O_RDWR | O_CREAT | O_TRUNC, 0600));
	check_eq(write(fd, "old", 3), 3);
	other = must(open(path("two", -1), O_RDWR | O_CREAT | O_TRUNC, 0600));
	check_eq(write(other, "new", 3), 3);
	check_eq(close(other), 0);
	check_eq(rename(path("two", -1), path("one", -1)), 0);
}

static void replaced_verify(int cycle)
{
	char got[4] = "";

	(void)cycle;
	check_eq(pread(fd, got, 3, 0), 3);
	check_eq(strcmp(got, "old"), 0);
	fd2 = must(open(path("one", -1), O_RDONLY));
	check_eq(read(fd2, got, 3), 3);
	check_eq(strcmp(got, "new"), 0);
	check_eq(close(fd2), 0);
}

SCENARIOS(
	{ .name = "replaced", .flags = BOTH, .setup = replaced_setup, .verify = replaced_verify },
	{ "contents", BOTH, contents_setup, contents_verify, NULL, 0 },
	{ "sparse", BOTH, sparse_setup, sparse_verify, NULL, 0 },
	{ "shared", BOTH, shared_setup, shared_verify, NULL, 0 },
	{ "log", BOTH, log_setup, log_verify, NULL, 0 },
	{ "tmpfile", BOTH, tmpfile_setup, tmpfile_verify, NULL, 0 },
	{ "mode", BOTH, mode_setup, mode_verify, NULL, 0 },
	{ "owner", BOTH | ROOT, owner_setup, owner_verify, NULL, 0 },
	{ "named", BOTH, named_setup, named_verify, NULL, 0 },
	{ "place", BOTH, place_setup, place_verify, NULL, 0 },
	{ "elsewhere", BOTH, elsewhere_setup, elsewhere_verify, NULL, 0 },
	{ "library", BOTH, library_setup, library_verify, NULL, 0 },
	{ "program", BOTH, program_setup, program_verify, NULL, 0 },
	{ "orphan", SELF | BARE, orphan_setup, orphan_verify, NULL, 0 },
)
