/*
 * hugetlb.c - memory of the huge page pool: private, shared and as a memfd.
 */
#include "scenario.h"

#include <sys/wait.h>

enum { PAGE = 2 << 20 };

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4U
#endif

static char *region, *other;
static int fd;

static char *map(size_t pages, int prot, int flags, int file)
{
	char *p = mmap(NULL, pages * PAGE, prot, flags | (file < 0 ? MAP_ANONYMOUS | MAP_HUGETLB : 0), file, 0);

	if (p == MAP_FAILED)
		needs("huge pages (vm.nr_hugepages)");
	return p;
}

/* huge returns how much memory of the pool the process has, in KiB. */
static int huge(void)
{
	char text[8192], *at;
	int f = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	check(f >= 0);
	n = read(f, text, sizeof(text) - 1);
	check(n > 0);
	text[n] = 0;
	check_eq(close(f), 0);
	at = strstr(text, "HugetlbPages:");
	check(at);
	return atoi(at + 13);
}

/* ---- private, the second page never touched ---- */

static void private_setup(void)
{
	region = map(3, PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
	fill(region, PAGE, 1);
	fill(region + 2 * PAGE + 12345, 9999, 2);
	check_eq(madvise(region, 3 * PAGE, MADV_DONTFORK), 0);
}

static void private_verify(int cycle)
{
	check_eq(huge(), (cycle > 1 ? 3 : 2) * (PAGE >> 10));
	filled(region, PAGE, 1);
	filled(region + 2 * PAGE + 12345, 9999, 2);
	check_eq(region[PAGE + 77], cycle > 1 ? cycle - 1 : 0);
	region[PAGE + 77] = (char)cycle;
}

/* ---- in parts: of another protection, and one that lost its beginning ---- */

static void parts_setup(void)
{
	region = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
	for (unsigned i = 0; i < 4; i++)
		fill(region + i * PAGE, PAGE, 10 + i);
	check_eq(munmap(region, PAGE), 0);
	check_eq(mprotect(region + 2 * PAGE, PAGE, PROT_READ), 0);
	check_eq(mprotect(region + 3 * PAGE, PAGE, PROT_NONE), 0);
}

static void parts_verify(int cycle)
{
	(void)cycle;
	filled(region + PAGE, PAGE, 11);
	filled(region + 2 * PAGE, PAGE, 12);
	check_eq(faults(region, 0), SIGSEGV);
	check_eq(faults(region + PAGE, 1), 0);
	check_eq(faults(region + 2 * PAGE, 1), SIGSEGV);
	check_eq(faults(region + 3 * PAGE, 0), SIGSEGV);
	check_eq(mprotect(region + 3 * PAGE, PAGE, PROT_READ), 0);
	filled(region + 3 * PAGE, PAGE, 13);
	check_eq(mprotect(region + 3 * PAGE, PAGE, PROT_NONE), 0);
}

/* ---- shared; of one page only the memory knows, the process has let go of it ---- */

static void shared_setup(void)
{
	region = map(3, PROT_READ | PROT_WRITE, MAP_SHARED, -1);
	fill(region, PAGE, 3);
	fill(region + 2 * PAGE, PAGE, 4);
	if (madvise(region + 2 * PAGE, PAGE, MADV_DONTNEED))
		needs("MADV_DONTNEED of huge pages (Linux 5.18)");
	check_eq(mprotect(region, 3 * PAGE, PROT_READ), 0);
}

static void shared_verify(int cycle)
{
	int to[2];
	char c = 0;

	filled(region, PAGE, 3);
	filled(region + 2 * PAGE, PAGE, 4);
	check_eq(madvise(region + 2 * PAGE, PAGE, MADV_DONTNEED), 0);
	/* What a child writes is seen. */
	check_eq(mprotect(region, 3 * PAGE, PROT_READ | PROT_WRITE), 0);
	check_eq(pipe(to), 0);
	if (!fork()) {
		region[PAGE + 5] = (char)(cycle * 3);
		_exit(write(to[1], &c, 1) != 1);
	}
	check_eq(read(to[0], &c, 1), 1);
	check(waitpid(-1, NULL, 0) > 0);
	check_eq(close(to[0]) | close(to[1]), 0);
	check_eq(region[PAGE + 5], cycle * 3);
	check_eq(mprotect(region, 3 * PAGE, PROT_READ), 0);
}

/* ---- a memfd: mapped shared, mapped privately, with a hole and sealed ---- */

static void memfd_setup(void)
{
	fd = (int)syscall(SYS_memfd_create, "huge one", MFD_HUGETLB | 2 /* MFD_ALLOW_SEALING */);
	if (fd < 0)
		needs("huge pages (MFD_HUGETLB)");
	check_eq(ftruncate(fd, 4 * PAGE), 0);
	region = map(2, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	fill(region, PAGE, 5);
	other = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 2 * PAGE);
	if (other == MAP_FAILED)
		needs("huge pages (vm.nr_hugepages)");
	fill(other + PAGE, 5000, 6);
	check_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	check_eq(lseek(fd, 1234, SEEK_SET), 1234);
}

static void memfd_verify(int cycle)
{
	char buf[64];
	struct stat st;

	filled(region, PAGE, 5);
	filled(other + PAGE, 5000, 6);
	check_eq(pread(fd, buf, sizeof(buf), 3 * PAGE), (ssize_t)sizeof(buf));
	check_eq(buf[0], 0); /* a private page is not the file's */
	region[PAGE] = (char)cycle;
	check_eq(pread(fd, buf, 1, PAGE), 1);
	check_eq(buf[0], cycle);
	check_eq(lseek(fd, 0, SEEK_CUR), 1234);
	check_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
	check_eq(ftruncate(fd, PAGE), -1);
	check_eq(fstat(fd, &st), 0);
	check_eq(st.st_size, 4 * PAGE);
	check_eq(st.st_blksize, PAGE);
}

SCENARIOS(
	{ "huge-private", BOTH, private_setup, private_verify, NULL, 0 },
	{ "huge-parts", BOTH, parts_setup, parts_verify, NULL, 0 },
	{ "huge-shared", BOTH, shared_setup, shared_verify, NULL, 0 },
	{ "huge-memfd", BOTH, memfd_setup, memfd_verify, NULL, 0 },
)
