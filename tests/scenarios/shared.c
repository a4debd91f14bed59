/*
 * shared.c - mappings of files that nobody else has: of memfd_create(2), of
 * shm_open(3), and deleted ones.
 */
#include "scenario.h"

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1
#define MFD_ALLOW_SEALING 2
#endif
#ifndef F_SEAL_SEAL
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#define F_SEAL_WRITE 8
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 16
#endif

#define RW (PROT_READ | PROT_WRITE)

static int fd = -1;
static char *region, *other, *third;
static size_t page;

static int create(const char *name, unsigned flags, size_t pages)
{
	int n = (int)syscall(SYS_memfd_create, name, flags);

	if (n < 0 && errno == ENOSYS)
		needs("memfd_create");
	check(n >= 0);
	page = sysconf(_SC_PAGESIZE);
	check_eq(ftruncate(n, pages * page), 0);
	return n;
}

static char *map(int n, size_t pages, int prot, int flags, size_t offset)
{
	char *p = mmap(NULL, pages * page, prot, flags, n, offset * page);

	if (p == MAP_FAILED)
		fail("mmap of fd %d: errno %d", n, errno);
	return p;
}

static int open_link(int n, int flags)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", n);
	n = open(link, flags);
	check(n >= 0);
	return n;
}

/* Open and mapped, twice, at different offsets: one file. */
static void open_setup(void)
{
	fd = create("open", MFD_CLOEXEC, 8);
	region = map(fd, 6, RW, MAP_SHARED, 0);
	other = map(fd, 4, PROT_READ, MAP_SHARED, 4);
	fill(region, 6 * page, 1);
}

static void open_verify(int cycle)
{
	struct stat st;
	char c = (char)(100 + cycle), back;

	check_eq(fstat(fd, &st), 0);
	check_eq(st.st_size, 8 * page);
	filled(region, 6 * page, cycle);
	check_eq(memcmp(region + 4 * page, other, 2 * page), 0);
	check_eq(other[3 * page], cycle == 1 ? 0 : c - 1);
	check_eq(pwrite(fd, &c, 1, 7 * page), 1);
	check_eq(other[3 * page], c);
	region[5 * page + 1] = c;
	check_eq(pread(fd, &back, 1, 5 * page + 1), 1);
	check_eq(back, c);
	fill(region, 6 * page, cycle + 1);
}

/* Nobody has it open any more, and it reaches beyond what is mapped of it. */
static void closed_setup(void)
{
	fd = create("closed", 0, 8);
	region = map(fd, 8, RW, MAP_SHARED, 0);
	fill(region, 8 * page, 1);
	check_eq(munmap(region, 2 * page), 0);
	check_eq(munmap(region + 6 * page, 2 * page), 0);
	region += 2 * page;
	other = map(fd, 1, RW, MAP_SHARED, 3);
	check_eq(close(fd), 0);
}

static void closed_verify(int cycle)
{
	char *whole;

	for (size_t i = 2 * page; i < 4 * page; i++)
		check_eq((unsigned char)region[i], pattern(2 * page + i, 1));
	check_eq((unsigned char)other[0], (unsigned char)(pattern(3 * page, 1) + cycle - 1));
	other[0]++;
	check_eq(region[page], other[0]);
	/* The whole file by way of a mapping of a part. */
	whole = mremap(region, 0, 6 * page, MREMAP_MAYMOVE);
	check(whole != MAP_FAILED);
	for (size_t i = 4 * page; i < 6 * page; i++)
		check_eq((unsigned char)whole[i], pattern(2 * page + i, 1));
	check_eq(munmap(whole, 6 * page), 0);
	whole = mremap(region, 0, 7 * page, MREMAP_MAYMOVE);
	check(whole != MAP_FAILED);
	check_eq(faults(whole + 6 * page, 0), SIGBUS);
	check_eq(munmap(whole, 7 * page), 0);
}

/* Some pages copied on write; the others follow the file. */
static void private_setup(void)
{
	fd = create("private", 0, 4);
	region = map(fd, 4, RW, MAP_PRIVATE, 0);
	other = map(fd, 4, RW, MAP_SHARED, 0);
	fill(other, 4 * page, 1);
	region[0] = 'a';
	region[2 * page] = 'b';
}

static void private_verify(int cycle)
{
	check_eq(region[0], 'a');
	check_eq(region[2 * page], 'b' + cycle - 1);
	check_eq((unsigned char)other[0], pattern(0, 1));
	check_eq((unsigned char)other[2 * page], pattern(2 * page, 1));
	region[2 * page]++;
	other[page] = (char)cycle;
	check_eq(region[page], cycle);
	check_eq(memcmp(region + 3 * page, other + 3 * page, page), 0);
}

/* Opened for reading, a shared mapping can never become writable. */
static void readonly_setup(void)
{
	int n;

	fd = create("readonly", 0, 2);
	fill(region = map(fd, 2, RW, MAP_SHARED, 0), 2 * page, 1);
	n = open_link(fd, O_RDONLY);
	other = map(n, 2, PROT_READ, MAP_SHARED, 0);
	check_eq(close(n), 0);
}

static void readonly_verify(int cycle)
{
	filled(other, 2 * page, cycle);
	fill(region, 2 * page, cycle + 1);
	filled(other, 2 * page, cycle + 1);
	check_eq(mprotect(other, page, RW), -1);
	check_eq(errno, EACCES);
}

/* Sealed against writing: what is mapped then may only be read. */
static void sealed_setup(void)
{
	fd = create("sealed", MFD_ALLOW_SEALING, 2);
	fill(region = map(fd, 2, RW, MAP_SHARED, 0), 2 * page, 1);
	check_eq(munmap(region, 2 * page), 0);
	check_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK), 0);
	region = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, fd, 0);
	if (region == MAP_FAILED)
		needs("shared mappings of sealed files (Linux 6.7)");
	other = map(fd, 2, RW, MAP_PRIVATE, 0);
	other[0] = 'x';
}

static void sealed_verify(int cycle)
{
	(void)cycle;
	filled(region, 2 * page, 1);
	check_eq(mprotect(region, page, RW), -1);
	check_eq(other[0], 'x');
	check_eq(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK);
	check(mmap(NULL, page, RW, MAP_SHARED, fd, 0) == MAP_FAILED);
	check_eq(errno, EPERM);
	check_eq(pwrite(fd, "x", 1, 0), -1);
}

/* Sealed against new writers: mappings from before the seal go on writing. */
static void future_setup(void)
{
	fd = create("future", MFD_ALLOW_SEALING, 2);
	region = map(fd, 2, RW, MAP_SHARED, 0);
	third = map(fd, 2, PROT_READ, MAP_SHARED, 0);
	fill(region, 2 * page, 1);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE))
		needs("F_SEAL_FUTURE_WRITE (Linux 5.1)");
	/* Below and above those from before. */
	other = mmap(region + 64 * page, 2 * page, PROT_READ, MAP_SHARED, fd, 0);
	check(other != MAP_FAILED);
}

static void future_verify(int cycle)
{
	filled(other, 2 * page, cycle);
	fill(region, 2 * page, cycle + 1);
	filled(third, 2 * page, cycle + 1);
	filled(other, 2 * page, cycle + 1);
	check_eq(mprotect(third, 2 * page, RW), 0);
	check_eq(mprotect(third, 2 * page, PROT_READ), 0);
	check_eq(mprotect(other, 2 * page, RW), -1);
	check_eq(pwrite(fd, "x", 1, 0), -1);
}

/* The same, and only the mappings are left. Its size is not that of any. */
static void mapped_setup(void)
{
	future_setup();
	check_eq(ftruncate(fd, 21 * page), 0);
	check_eq(pwrite(fd, "x", 1, 20 * page), -1);	/* sealed: a hole */
	check_eq(close(fd), 0);
}

static void mapped_verify(int cycle)
{
	char *whole;

	filled(other, 2 * page, cycle);
	fill(region, 2 * page, cycle + 1);
	filled(third, 2 * page, cycle + 1);
	check_eq(mprotect(other, 2 * page, RW), -1);
	check_eq(errno, EACCES);
	whole = mremap(region, 0, 22 * page, MREMAP_MAYMOVE);
	check(whole != MAP_FAILED);
	check_eq(faults(whole + 21 * page, 0), SIGBUS);
	check_eq(faults(whole + 20 * page, 0), 0);
	check_eq(whole[20 * page], 0);
	check_eq(munmap(whole, 22 * page), 0);
}

/* Smaller than what is mapped of it: the rest faults. Then it grows. */
static void short_setup(void)
{
	fd = create("short", 0, 2);
	region = map(fd, 6, RW, MAP_SHARED, 0);
	fill(region, 2 * page, 1);
}

static void short_verify(int cycle)
{
	filled(region, 2 * page, 1);
	check_eq(faults(region + (1 + cycle) * page, 1), SIGBUS);
	check_eq(ftruncate(fd, (2 + cycle) * page), 0);
	check_eq(faults(region + (1 + cycle) * page, 1), 0);
}

/* Guards, a lock, advice and a name for a part of it. */
static void attributes_setup(void)
{
	fd = create("attributes", 0, 16);
	region = map(fd, 16, RW, MAP_SHARED, 0);
	fill(region, 16 * page, 1);
	check_eq(madvise(region, 2 * page, MADV_DONTFORK), 0);
	check_eq(madvise(region + 2 * page, 2 * page, MADV_RANDOM), 0);
	if (mlock(region + 8 * page, 2 * page))
		needs("2 pages of RLIMIT_MEMLOCK");
	if (madvise(region + 12 * page, page, 102 /* MADV_GUARD_INSTALL */))
		needs("guards in shared memory (Linux 6.15)");
}

static void attributes_verify(int cycle)
{
	char *p = malloc(page);

	(void)cycle;
	filled(region, 12 * page, 1);
	check_eq(faults(region + 12 * page, 0), SIGSEGV);
	/* What the guard hides is still there. */
	check_eq(pread(fd, p, page, 12 * page), page);
	for (size_t i = 0; i < page; i++)
		check_eq((unsigned char)p[i], pattern(12 * page + i, 1));
	free(p);
}

/*
 * Shared memory that no file is known of: in several mappings, and of a part
 * there is none. Growing a mapping brings it back.
 */
static void anonymous_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = map(-1, 16, RW, MAP_SHARED | MAP_ANONYMOUS, 0);
	fill(region, 16 * page, 1);
	other = mremap(region + 2 * page, 0, 6 * page, MREMAP_MAYMOVE);
	check(other != MAP_FAILED);
	check_eq(munmap(region, 3 * page), 0);
	check_eq(munmap(region + 5 * page, 11 * page), 0);
	check_eq(mprotect(region + 3 * page, page, PROT_READ), 0);
	check_eq(mprotect(other, 6 * page, PROT_NONE), 0);
}

static void anonymous_verify(int cycle)
{
	char *whole = mremap(region + 4 * page, 0, 13 * page, MREMAP_MAYMOVE);

	check(whole != MAP_FAILED);
	for (size_t i = 0; i < 12 * page; i++)
		check_eq((unsigned char)whole[i], (unsigned char)(pattern(4 * page + i, 1) + (i == 1 ? cycle - 1 : 0)));
	check_eq(faults(whole + 12 * page, 0), SIGBUS);
	check_eq(munmap(whole, 13 * page), 0);
	check_eq(mprotect(other, 6 * page, RW), 0);
	for (size_t i = 0; i < 2 * page; i++)
		check_eq((unsigned char)other[i], pattern(2 * page + i, 1));
	other[2 * page + 1]++;
	check_eq(other[2 * page + 1], region[4 * page + 1]);
	check_eq(mprotect(other, 6 * page, PROT_NONE), 0);
}

/* What lies behind a guard is still there. */
static void anonymous_guard_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = map(-1, 8, RW, MAP_SHARED | MAP_ANONYMOUS, 0);
	fill(region, 8 * page, 1);
	if (madvise(region + 4 * page, page, 102 /* MADV_GUARD_INSTALL */))
		needs("guards in shared memory (Linux 6.15)");
}

static void anonymous_guard_verify(int cycle)
{
	(void)cycle;
	check_eq(faults(region + 4 * page, 0), SIGSEGV);
	check_eq(madvise(region + 4 * page, page, 103 /* MADV_GUARD_REMOVE */), 0);
	filled(region, 8 * page, 1);
	check_eq(madvise(region + 4 * page, page, 102), 0);
}

/* a_file makes one and opens it, or names what is missing. */
static int a_file(const char *name, size_t pages)
{
	int n = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

	if (n < 0)
		needs("a directory to write %s in", name);
	page = sysconf(_SC_PAGESIZE);
	check_eq(ftruncate(n, pages * page), 0);
	return n;
}

static const char *shm_name(void)
{
	static char name[64];

	snprintf(name, sizeof(name), "/dev/shm/crshim-test-%d", (int)syscall(SYS_getpid));
	return name;
}

/* As most programs use shm_open: removed as soon as it is mapped. */
static void shm_setup(void)
{
	fd = a_file(shm_name(), 8);
	region = map(fd, 8, RW, MAP_SHARED, 0);
	check_eq(unlink(shm_name()), 0);
	check_eq(close(fd), 0);
	fill(region, 4 * page, 1);
}

static void shm_verify(int cycle)
{
	filled(region, 4 * page, cycle);
	check_eq(region[7 * page], 0);
	fill(region, 4 * page, cycle + 1);
}

/* Still open, too. */
static void shm_open_setup(void)
{
	fd = a_file(shm_name(), 8);
	region = map(fd, 8, RW, MAP_SHARED, 0);
	other = map(fd, 2, RW, MAP_PRIVATE, 2);
	check_eq(unlink(shm_name()), 0);
	fill(region, 4 * page, 1);
	other[0] = 'a';
}

static void shm_open_verify(int cycle)
{
	struct stat st;
	char c;

	filled(region, 4 * page, cycle);
	fill(region, 4 * page, cycle + 1);
	check_eq(memcmp(other + page, region + 3 * page, page), 0);
	check_eq(other[0], 'a');
	check_eq(pread(fd, &c, 1, 3 * page + 1), 1);
	check_eq(c, region[3 * page + 1]);
	check_eq(fstat(fd, &st), 0);
	check_eq(st.st_nlink, 0);
	check_eq(st.st_mode & 0777, 0640);
}

/* The same on a disk. */
static void deleted_setup(void)
{
	fd = a_file(path("gone", -1), 8);
	region = map(fd, 8, RW, MAP_SHARED, 0);
	check_eq(unlink(path("gone", -1)), 0);
	fill(region, 4 * page, 1);
	check_eq(close(fd), 0);
}

SCENARIOS(
	{ "open", BOTH, open_setup, open_verify, NULL, 0 },
	{ "closed", BOTH, closed_setup, closed_verify, NULL, 0 },
	{ "private", BOTH, private_setup, private_verify, NULL, 0 },
	{ "readonly", BOTH, readonly_setup, readonly_verify, NULL, 0 },
	{ "sealed", BOTH, sealed_setup, sealed_verify, NULL, 0 },
	{ "future", BOTH, future_setup, future_verify, NULL, 0 },
	{ "mapped", BOTH, mapped_setup, mapped_verify, NULL, 0 },
	{ "short", BOTH, short_setup, short_verify, NULL, 0 },
	{ "anonymous", BOTH, anonymous_setup, anonymous_verify, NULL, 0 },
	{ "anonymous-guard", BOTH, anonymous_guard_setup, anonymous_guard_verify, NULL, 0 },
	{ "shm", BOTH, shm_setup, shm_verify, NULL, 0 },
	{ "shm-open", BOTH, shm_open_setup, shm_open_verify, NULL, 0 },
	{ "deleted", BOTH, deleted_setup, shm_verify, NULL, 0 },
	{ "attributes", BOTH, attributes_setup, attributes_verify, NULL, 0 },
)
