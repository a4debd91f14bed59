/*
 * mapping.c - files in memory, and what the kernel itself maps.
 */
#include "scenario.h"

#include <sched.h>
#include <sys/auxv.h>

static char *region, *other;
static size_t page;

/* a_file makes DIR/NAME with pages of pattern and returns a descriptor. */
static int a_file(const char *name, size_t pages)
{
	int fd = open(path(name, -1), O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *buf = malloc(pages * page);

	check(fd >= 0 && buf);
	fill(buf, pages * page, 1);
	check_eq(write(fd, buf, pages * page), pages * page);
	free(buf);
	return fd;
}

static char *map(int fd, size_t pages, int prot, int flags, size_t offset)
{
	char *p = mmap(NULL, pages * page, prot, flags, fd, offset * page);

	if (p == MAP_FAILED)
		fail("mmap of a file: errno %d", errno);
	return p;
}

/* Some pages copied on write, then read-only as the linker's RELRO is. */
static void copied_setup(void)
{
	int fd;

	page = sysconf(_SC_PAGESIZE);
	fd = a_file("data", 8);
	region = map(fd, 6, PROT_READ | PROT_WRITE, MAP_PRIVATE, 2);
	region[1 * page] = 'a';
	region[3 * page + 7] = 'b';
	check_eq(mprotect(region, 2 * page, PROT_READ), 0);
	check_eq(close(fd), 0);
}

static void copied_verify(int cycle)
{
	for (size_t i = 0; i < 6 * page; i++) {
		unsigned char want = pattern(2 * page + i, 1);

		if (i == 1 * page)
			want = 'a';
		if (i == 3 * page + 7)
			want = 'b' + cycle - 1;
		check_eq((unsigned char)region[i], want);
	}
	region[3 * page + 7]++;
	check_eq(faults(region, 1), SIGSEGV);
}

/* Pages of a private mapping that were not copied follow the file. */
static void untouched_setup(void)
{
	int fd;

	page = sysconf(_SC_PAGESIZE);
	fd = a_file("data", 4);
	region = map(fd, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	region[2 * page] = 'x';
	check_eq(close(fd), 0);
}

static void untouched_verify(int cycle)
{
	int fd = open(path("data", -1), O_WRONLY | O_CLOEXEC);
	char c = (char)('A' + cycle);

	check(fd >= 0);
	check_eq(region[2 * page], 'x');
	check_eq(pwrite(fd, &c, 1, page), 1);
	check_eq(region[page], c);
	check_eq(pwrite(fd, &c, 1, 2 * page), 1);
	check_eq(region[2 * page], 'x');
	check_eq(close(fd), 0);
}

/* Two shared mappings of one file: stores reach the file and each other. */
static void shared_setup(void)
{
	int fd;

	page = sysconf(_SC_PAGESIZE);
	fd = a_file("data", 4);
	region = map(fd, 4, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	other = map(fd, 2, PROT_READ, MAP_SHARED, 1);
	fill(region + 2 * page, 2 * page, 1);
	check_eq(close(fd), 0);
}

static void shared_verify(int cycle)
{
	int fd = open(path("data", -1), O_RDONLY | O_CLOEXEC);
	char c;

	check(fd >= 0);
	filled(region + 2 * page, 2 * page, cycle);
	region[page + 1] = (char)cycle;
	check_eq(other[1], cycle);
	check_eq(pread(fd, &c, 1, page + 1), 1);
	check_eq(c, cycle);
	fill(region + 2 * page, 2 * page, cycle + 1);
	check_eq(close(fd), 0);
}

/* A shared mapping of a file opened read-only can never become writable. */
static void shared_readonly_setup(void)
{
	int fd;

	page = sysconf(_SC_PAGESIZE);
	check_eq(close(a_file("data", 2)), 0);
	fd = open(path("data", -1), O_RDONLY);
	check(fd >= 0);
	region = map(fd, 2, PROT_READ, MAP_SHARED, 0);
	check_eq(close(fd), 0);
}

static void shared_readonly_verify(int cycle)
{
	(void)cycle;
	filled(region, 2 * page, 1);
	check_eq(mprotect(region, page, PROT_READ | PROT_WRITE), -1);
	check_eq(errno, EACCES);
}

/* A mapping that reaches beyond the end of its file. */
static void beyond_setup(void)
{
	int fd;

	page = sysconf(_SC_PAGESIZE);
	fd = a_file("data", 2);
	region = map(fd, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	region[0] = 'x';
	check_eq(close(fd), 0);
}

static void beyond_verify(int cycle)
{
	(void)cycle;
	check_eq(region[0], 'x');
	check_eq(faults(region + 2 * page, 0), SIGBUS);
}

/* ---- vdso, vsyscall page of data, auxiliary vector ---- */

static unsigned long aux[64];
static unsigned char aux_random[16];

static void vdso_setup(void)
{
	for (unsigned long i = 0; i < 64; i++)
		aux[i] = getauxval(i);
	check(aux[AT_SYSINFO_EHDR] && aux[AT_RANDOM] && aux[AT_PHDR]);
	memcpy(aux_random, (void *)aux[AT_RANDOM], 16);
}

static void vdso_verify(int cycle)
{
	struct timespec a, b, c;
	unsigned cpu, node;

	(void)cycle;
	for (unsigned long i = 0; i < 64; i++)
		check_eq(getauxval(i), aux[i]);
	check_eq(memcmp(aux_random, (void *)aux[AT_RANDOM], 16), 0);
	check_eq(memcmp((void *)aux[AT_SYSINFO_EHDR], "\177ELF", 4), 0);

	/* libc asks the vdso; the answer must lie between two of the kernel. */
	for (int i = 0; i < 100; i++) {
		check_eq(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a), 0);
		check_eq(clock_gettime(CLOCK_MONOTONIC, &b), 0);
		check_eq(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &c), 0);
		check(a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec <= b.tv_nsec));
		check(b.tv_sec < c.tv_sec || (b.tv_sec == c.tv_sec && b.tv_nsec <= c.tv_nsec));
	}
	check(time(NULL) > 1000000000);
	check(sched_getcpu() >= 0);
	check_eq(syscall(SYS_getcpu, &cpu, &node, NULL), 0);
}

/* ---- /dev/zero, as memory was had before MAP_ANONYMOUS ---- */

static unsigned char *zero;

static void zero_setup(void)
{
	int f = open("/dev/zero", O_RDWR);

	check(f >= 0);
	zero = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0);
	check(zero != MAP_FAILED);
	check_eq(close(f), 0);
	fill(zero, 4096, 7);
	fill(zero + 2 * 4096, 4096, 8);
	check_eq(mprotect(zero + 2 * 4096, 4096, PROT_READ), 0);
}

static void zero_verify(int cycle)
{
	filled(zero, 4096, 7);
	filled(zero + 2 * 4096, 4096, 8);
	check_eq(faults((char *)zero + 2 * 4096, 1), SIGSEGV);
	check_eq(zero[3 * 4096], cycle - 1);
	zero[3 * 4096] = (unsigned char)cycle;
	check_eq(zero[4096], 0);
}

SCENARIOS(
	{ "copied", BOTH, copied_setup, copied_verify, NULL, 0 },
	{ "untouched", BOTH, untouched_setup, untouched_verify, NULL, 0 },
	{ "shared-file", BOTH, shared_setup, shared_verify, NULL, 0 },
	{ "shared-readonly", BOTH, shared_readonly_setup, shared_readonly_verify, NULL, 0 },
	{ "beyond", BOTH, beyond_setup, beyond_verify, NULL, 0 },
	{ "vdso", BOTH, vdso_setup, vdso_verify, NULL, 0 },
	{ "dev-zero", BOTH, zero_setup, zero_verify, NULL, 0 },
)
