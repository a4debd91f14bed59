/*
 * memfd.c - files in memory.
 */
#include "scenario.h"

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1
#define MFD_ALLOW_SEALING 2
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8
#endif
#ifndef F_SEAL_SEAL
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#define F_SEAL_WRITE 8
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 32
#endif

static int fd, fd2, fd3;
static char data[100000], back[sizeof(data)];

static int create(const char *name, unsigned flags)
{
	int n = (int)syscall(SYS_memfd_create, name, flags);

	if (n < 0 && (errno == ENOSYS || errno == EINVAL))
		needs("memfd_create with flags %#x", flags);
	check(n >= 0);
	return n;
}

/* again opens the file a second time. */
static int again(int n, int flags)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", n);
	n = open(link, flags);
	check(n >= 0);
	return n;
}

static void contents_setup(void)
{
	fd = create("a name (deleted)", MFD_CLOEXEC);
	fill(data, sizeof(data), 1);
	check_eq(write(fd, data, sizeof(data)), sizeof(data));
	check_eq(lseek(fd, 4, SEEK_SET), 4);
	fd2 = dup(fd);
}

static void contents_verify(int cycle)
{
	struct stat st;

	check_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	check_eq(lseek(fd2, 0, SEEK_CUR), 3 + cycle);
	check_eq(fstat(fd, &st), 0);
	check_eq(st.st_size, sizeof(data));
	check_eq(pread(fd, back, sizeof(back), 0), sizeof(back));
	check_eq(memcmp(data, back, sizeof(data)), 0);
	data[cycle] = 'x';
	check_eq(pwrite(fd, "x", 1, cycle), 1);
	check_eq(lseek(fd, 1, SEEK_CUR), 4 + cycle);
	check_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
}

/* Far beyond what memory could hold, with two pieces of data in it. */
static const off_t far = 1ll << 40;

static void holes_setup(void)
{
	fd = create("holes", 0);
	check_eq(ftruncate(fd, far + (1 << 30) + 17), 0);
	check_eq(pwrite(fd, "one", 3, 5000), 3);
	check_eq(pwrite(fd, "two", 3, far), 3);
}

static void holes_verify(int cycle)
{
	struct stat st;
	char c[4] = "";

	(void)cycle;
	check_eq(fstat(fd, &st), 0);
	check_eq(st.st_size, far + (1 << 30) + 17);
	check_eq(st.st_blocks, 2 * 4096 / 512);
	check_eq(pread(fd, c, 3, 5000), 3);
	check_eq(strcmp(c, "one"), 0);
	check_eq(pread(fd, c, 3, far), 3);
	check_eq(strcmp(c, "two"), 0);
	check_eq(pread(fd, c, 3, far - 1), 3);
	check_eq(c[0], 0);
}

/* Nothing in it, which is not even read from. */
static void empty_setup(void)
{
	fd = create("", 0);
	fd2 = create("", 0);
}

static void empty_verify(int cycle)
{
	char c;

	(void)cycle;
	check_eq(write(fd, "x", 1), 1);
	check_eq(read(fd2, &c, 1), 0);
	check_eq(ftruncate(fd, 0), 0);
	check_eq(lseek(fd, 0, SEEK_SET), 0);
}

static void sealed_setup(void)
{
	fd = create("sealed", MFD_ALLOW_SEALING);
	check_eq(write(fd, "abc", 3), 3);
	check_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	fd2 = create("read only", MFD_ALLOW_SEALING);
	check_eq(write(fd2, "def", 3), 3);
	check_eq(fcntl(fd2, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
}

static void sealed_verify(int cycle)
{
	char c[3];

	(void)cycle;
	check_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	check_eq(fcntl(fd2, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_SEAL);
	check_eq(pwrite(fd, "abc", 3, 0), 3);
	check_eq(ftruncate(fd, 4), -1);
	check_eq(errno, EPERM);
	check_eq(pwrite(fd2, "x", 1, 0), -1);
	check_eq(errno, EPERM);
	check_eq(pread(fd2, c, 3, 0), 3);
	check_eq(memcmp(c, "def", 3), 0);
}

static void noexec_setup(void)
{
	fd = create("noexec", MFD_NOEXEC_SEAL);
	check_eq(write(fd, "abc", 3), 3);
	fd2 = create("mode", MFD_ALLOW_SEALING);
	check_eq(fchmod(fd2, 0640), 0);
}

static void noexec_verify(int cycle)
{
	struct stat st;

	(void)cycle;
	check_eq(fcntl(fd, F_GET_SEALS), F_SEAL_EXEC);
	check_eq(fchmod(fd, 0700), -1);
	check_eq(fstat(fd, &st), 0);
	check_eq(st.st_mode & 0777, 0666);
	check_eq(fstat(fd2, &st), 0);
	check_eq(st.st_mode & 0777, 0640);
	check_eq(fcntl(fd2, F_GET_SEALS), 0);
}

/* Opened several times: offsets and rights of their own; the maker is closed. */
static void opened_setup(void)
{
	int first = create("opened", 0);

	check_eq(write(first, "0123456789", 10), 10);
	fd = again(first, O_RDONLY);
	fd2 = again(first, O_WRONLY | O_APPEND);
	fd3 = again(first, O_RDWR);
	check_eq(close(first), 0);
}

static void opened_verify(int cycle)
{
	char c;

	check_eq(read(fd, &c, 1), 1);
	check_eq(c, '0' + cycle - 1);
	check_eq(write(fd, &c, 1), -1);
	check_eq(read(fd2, &c, 1), -1);
	check_eq(write(fd2, "x", 1), 1);
	check_eq(lseek(fd2, 0, SEEK_CUR), 10 + cycle);
	check_eq(lseek(fd3, 0, SEEK_CUR), 0);
	check_eq(lseek(fd3, 0, SEEK_END), 10 + cycle);
	check_eq(lseek(fd3, 0, SEEK_SET), 0);
}

/* What mappings show behind the end, and no read: of a memfd and of a deleted file. */
static char *tails[2];

static void tail_setup(void)
{
	int f[2];

	f[0] = (int)syscall(SYS_memfd_create, "tail", 0);
	f[1] = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	for (int i = 0; i < 2; i++) {
		if (f[i] < 0)
			needs("memfd_create(2), /dev/shm");
		check_eq(ftruncate(f[i], 4096 + 100), 0);
		tails[i] = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f[i], 0);
		check(tails[i] != MAP_FAILED);
		fill(tails[i] + 4096, 100, 1);
		fill(tails[i] + 4096 + 100, 1000, 2);
	}
}

static void tail_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < 2; i++) {
		filled(tails[i] + 4096, 100, 1);
		filled(tails[i] + 4096 + 100, 1000, 2);
		check_eq(tails[i][4096 + 1100], 0);
	}
}

SCENARIOS(
	{ "contents", BOTH, contents_setup, contents_verify, NULL, 0 },
	{ "holes", BOTH, holes_setup, holes_verify, NULL, 0 },
	{ "empty", BOTH, empty_setup, empty_verify, NULL, 0 },
	{ "sealed", BOTH, sealed_setup, sealed_verify, NULL, 0 },
	{ "noexec", BOTH, noexec_setup, noexec_verify, NULL, 0 },
	{ "opened", BOTH, opened_setup, opened_verify, NULL, 0 },
	{ "tail", BOTH, tail_setup, tail_verify, NULL, 0 },
)
