/*
 * memory.c - anonymous memory of every sort, stack, heap, locks and advice.
 */
#include "scenario.h"

#include <sys/wait.h>

#define MiB (1ul << 20)

static char *region;
static size_t page;

static char *map(void *at, size_t len, int prot, int flags)
{
	char *p = mmap(at, len, prot, flags, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap %p, %zu bytes: errno %d", at, len, errno);
	return p;
}

static char *anonymous(size_t len)
{
	return map(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

/* resident says whether the page at p is in memory. */
static int resident(char *p)
{
	unsigned char vec;

	check_eq(mincore(p, page, &vec), 0);
	return vec & 1;
}

/* child runs fn in a forked child and returns its exit status or -signal. */
static int child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid)
		_exit(fn());
	check_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- private ---- */

static void private_setup(void)
{
	region = anonymous(9 * MiB);
	fill(region, 8 * MiB, 1);
	check_eq(region[8 * MiB], 0);	/* read only: the zero page */
}

static void private_verify(int cycle)
{
	filled(region, 8 * MiB, cycle);
	check_eq(region[8 * MiB], 0);
	check_eq(region[9 * MiB - 1], 0);
	fill(region, 8 * MiB, cycle + 1);
}

/* Each protection in one mapping; writable ones go on being writable. */
static void protections_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(8 * page);
	fill(region, 8 * page, 1);
	for (int prot = 0; prot < 8; prot++)
		check_eq(mprotect(region + prot * page, page, prot), 0);
}

static void protections_verify(int cycle)
{
	static const int readable[8] = { 0, 1, 1, 1, 0, 1, 1, 1 };	/* x86: write implies read */

	(void)cycle;
	for (int prot = 0; prot < 8; prot++) {
		char *p = region + prot * page;

		/* Execute only can be read where there are no protection keys. */
		if (prot != PROT_EXEC)
			check_eq(faults(p, 0), readable[prot] ? 0 : SIGSEGV);
		check_eq(faults(p, 1), prot & PROT_WRITE ? 0 : SIGSEGV);
		check_eq(mprotect(p, page, PROT_READ), 0);
		for (size_t i = 0; i < page; i++)
			check_eq((unsigned char)p[i], pattern(prot * page + i, 1));
		check_eq(mprotect(p, page, prot), 0);
	}
}

/* Code that was made at run time, writable and not, and still runs. */
static int (*jit_rwx)(void), (*jit_x)(void);

static void jit_setup(void)
{
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };	/* mov $42, %eax; ret */

	page = sysconf(_SC_PAGESIZE);
	region = map(NULL, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS);
	memcpy(region, code, sizeof(code));
	memcpy(region + page, code, sizeof(code));
	check_eq(mprotect(region + page, page, PROT_EXEC), 0);
	jit_rwx = (int (*)(void))(uintptr_t)region;
	jit_x = (int (*)(void))(uintptr_t)(region + page);
}

static void jit_verify(int cycle)
{
	check_eq(jit_rwx(), 41 + cycle);
	check_eq(jit_x(), 42);
	region[1]++;
}

/* ---- holes ---- */

#define TiB (1ul << 40)

static void sparse_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = map(NULL, TiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	for (size_t at = 0; at < TiB; at += TiB / 8) {
		check_eq(mprotect(region + at, 2 * page, PROT_READ | PROT_WRITE), 0);
		fill(region + at, page, at >> 36);
	}
}

static void sparse_verify(int cycle)
{
	(void)cycle;
	for (size_t at = 0; at < TiB; at += TiB / 8) {
		filled(region + at, page, at >> 36);
		check_eq(region[at + page], 0);
		check_eq(faults(region + at + 2 * page, 0), SIGSEGV);
	}
}

/* One huge writable mapping, hardly touched. */
static void reserve_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = map(NULL, TiB / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	for (size_t at = 0; at < TiB / 4; at += TiB / 32)
		fill(region + at + 3 * page, page, at >> 33);
}

static void reserve_verify(int cycle)
{
	(void)cycle;
	for (size_t at = 0; at < TiB / 4; at += TiB / 32) {
		check_eq(resident(region + at + 4 * page), 0);
		filled(region + at + 3 * page, page, at >> 33);
	}
	check_eq(region[TiB / 4 - 1], 0);
	check_eq(madvise(region + TiB / 4 - page, page, MADV_DONTNEED), 0);
}

/* Mappings at both ends of the 128 TiB that a program may use. */
static char *low, *high;

static void edges_setup(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

	page = sysconf(_SC_PAGESIZE);
	low = map((void *)0x10000, page, PROT_READ | PROT_WRITE, flags);
	high = mmap((void *)0x7fffffffe000, page, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (high == MAP_FAILED && errno == EEXIST)	/* the stack is there */
		high = (char *)&flags;
	else
		check(high == (char *)0x7fffffffe000);
	fill(low, page, 1);
	*high = 2;
}

static void edges_verify(int cycle)
{
	filled(low, page, cycle);
	fill(low, page, cycle + 1);
	if (high == (char *)0x7fffffffe000)
		check_eq(*high, 2);
}

/* ---- shared ---- */

static char *shared_other;

/* A forked child sees what the parent writes: it is still shared memory. */
static int shared_child(void)
{
	region[5] = 77;
	return 0;
}

static void shared_setup(void)
{
	region = map(NULL, 2 * MiB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	fill(region, MiB, 1);
}

static void shared_verify(int cycle)
{
	filled(region, MiB, cycle);
	check_eq(region[2 * MiB - 1], 0);
	fill(region, MiB, cycle + 1);
	check_eq(child(shared_child), 0);
	check_eq(region[5], 77);
	region[5] = (char)pattern(5, cycle + 1);
}

/*
 * Two mappings of one object: mremap of length 0 makes the second, which
 * begins in the middle of the first.
 */
static void twice_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = map(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	shared_other = mremap(region + 4 * page, 0, 4 * page, MREMAP_MAYMOVE);
	check(shared_other != MAP_FAILED);
	check_eq(mprotect(shared_other, 4 * page, PROT_READ), 0);
	fill(region, 8 * page, 1);
}

static void twice_verify(int cycle)
{
	filled(region, 8 * page, cycle);
	fill(region, 8 * page, cycle + 1);
	check_eq(memcmp(shared_other, region + 4 * page, 4 * page), 0);
}

/* ---- stack and heap ---- */

__attribute__((noinline)) static unsigned deep(unsigned levels)
{
	volatile char frame[64 << 10];

	frame[0] = (char)levels;
	frame[sizeof(frame) - 1] = 1;
	return levels ? deep(levels - 1) + frame[sizeof(frame) - 1] : (unsigned)frame[0];
}

static void stack_verify(int cycle)
{
	/* Deeper than before, within the usual 8 MiB. */
	check_eq(deep(20 * cycle), 20 * cycle);
}

static char *growing;	/* top of a MAP_GROWSDOWN mapping */

static void growsdown_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	/* Find 64 MiB of free space, and put two pages at its upper end. */
	region = map(NULL, 64 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
	check_eq(munmap(region, 64 * MiB), 0);
	growing = map(region + 32 * MiB, 2 * page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE);
	growing[0] = 1;
}

static void growsdown_verify(int cycle)
{
	(void)cycle;
	check_eq(growing[0], 1);
	for (int i = 0; i < 4; i++) {
		growing -= page;
		check_eq(faults(growing, 1), 0);
		*growing = 1;
	}
}

static char *heap_start;

/* The break by the system call itself: musl's sbrk() does not move it. */
static char *brk_to(char *to)
{
	return (char *)syscall(SYS_brk, to);
}

static void heap_setup(void)
{
	heap_start = brk_to(NULL);
	check(brk_to(heap_start + 3 * MiB + 100) == heap_start + 3 * MiB + 100);
	fill(heap_start, 3 * MiB + 100, 1);
}

/* Grow and shrink by turns; the rest keeps its contents. */
static void heap_verify(int cycle)
{
	char *top = brk_to(NULL);

	filled(heap_start, 3 * MiB + 100, 1);
	if (cycle & 1) {
		check(top == heap_start + 3 * MiB + 100);
		check(brk_to(top + 2 * MiB) == top + 2 * MiB);
		check_eq(top[0], 0);
		check_eq(top[2 * MiB - 1], 0);
	} else {
		check(top == heap_start + 5 * MiB + 100);
		check(brk_to(top - 2 * MiB) == top - 2 * MiB);
		check_eq(faults(top - 1, 0), SIGSEGV);
	}
}

/* ---- locks ---- */

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

static void locked_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(64 * page);
	if (mlock(region, 32 * page))
		needs("32 pages of RLIMIT_MEMLOCK");
	if (syscall(SYS_mlock2, region + 32 * page, 32 * page, MLOCK_ONFAULT))
		needs("64 pages of RLIMIT_MEMLOCK");
	fill(region, page, 1);
	region[40 * page] = 1;
}

static void locked_verify(int cycle)
{
	(void)cycle;
	filled(region, page, 1);
	for (int i = 0; i < 32; i++)
		check_eq(resident(region + i * page), 1);
	/* Locked on fault: only what was touched. */
	for (int i = 32; i < 64; i++)
		check_eq(resident(region + i * page), i == 40);
	check_eq(region[40 * page], 1);
}

static void mlockall_setup(void)
{
	region = anonymous(MiB);
	fill(region, MiB, 1);
	if (mlockall(MCL_CURRENT))
		needs("RLIMIT_MEMLOCK for the whole program");
}

static void mlockall_verify(int cycle)
{
	(void)cycle;
	filled(region, MiB, 1);
}

/* ---- advice ---- */

static void advice_setup(void)
{
	static const int advice[] = {
		MADV_NORMAL, MADV_DONTFORK, MADV_WIPEONFORK, MADV_DONTDUMP,
		MADV_SEQUENTIAL, MADV_RANDOM,
	};

	page = sysconf(_SC_PAGESIZE);
	region = anonymous(6 * page);
	fill(region, 6 * page, 1);
	for (int i = 0; i < 6; i++)
		check_eq(madvise(region + i * page, page, advice[i]), 0);
}

static int wiped(void)
{
	for (size_t i = 0; i < page; i++)
		if (region[2 * page + i])
			return 1;
	return 0;
}

static int touch_not_forked(void)
{
	return region[page];
}

static void advice_verify(int cycle)
{
	(void)cycle;
	filled(region, 6 * page, 1);
	check_eq(child(wiped), 0);
	check_eq(child(touch_not_forked), -SIGSEGV);
}

static void huge_setup(void)
{
	region = anonymous(12 * MiB);
	region = (char *)(((uintptr_t)region + 2 * MiB - 1) & -(2 * MiB));
	if (madvise(region, 4 * MiB, MADV_HUGEPAGE))
		needs("transparent huge pages");
	check_eq(madvise(region + 4 * MiB, 2 * MiB, MADV_NOHUGEPAGE), 0);
	fill(region, 8 * MiB, 1);
}

static void huge_verify(int cycle)
{
	filled(region, 8 * MiB, cycle);
	fill(region, 8 * MiB, cycle + 1);
}

static void mergeable_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(8 * page);
	if (madvise(region, 8 * page, MADV_MERGEABLE))
		needs("CONFIG_KSM");
	memset(region, 7, 8 * page);
}

static void mergeable_verify(int cycle)
{
	(void)cycle;
	for (size_t i = 0; i < 8 * page; i++)
		check_eq(region[i], 7);
}

#define PR_SET_VMA_ 0x53564d41
#define PR_SET_VMA_ANON_NAME_ 0

static void named_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(2 * page);
	if (prctl(PR_SET_VMA_, PR_SET_VMA_ANON_NAME_, region, page, "half of it"))
		needs("CONFIG_ANON_VMA_NAME");
	fill(region, 2 * page, 1);
}

static void named_verify(int cycle)
{
	(void)cycle;
	filled(region, 2 * page, 1);
}

/* Guard ranges within one mapping (Linux 6.13). */
#define MADV_GUARD_INSTALL_ 102

static void guards_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(16 * page);
	fill(region, 16 * page, 1);
	if (madvise(region + 4 * page, 2 * page, MADV_GUARD_INSTALL_))
		needs("MADV_GUARD_INSTALL (Linux 6.13)");
}

static void guards_verify(int cycle)
{
	(void)cycle;
	filled(region, 4 * page, 1);
	for (int i = 0; i < 16; i++)
		check_eq(faults(region + i * page, 1), i == 4 || i == 5 ? SIGSEGV : 0);
}

/* Sealed (Linux 6.10): all of a mapping, and a part of one. */
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

static void sealed_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(8 * page);
	fill(region, 8 * page, 1);
	check_eq(mprotect(region, 2 * page, PROT_READ), 0);
	if (syscall(SYS_mseal, region, 4 * page, 0))
		needs("mseal (Linux 6.10)");
}

static void sealed_verify(int cycle)
{
	(void)cycle;
	filled(region, 8 * page, 1);
	check_eq(mprotect(region, page, PROT_READ | PROT_WRITE), -1);
	check_eq(errno, EPERM);
	check_eq(munmap(region + 3 * page, page), -1);
	check_eq(errno, EPERM);
	region[2 * page] ^= 1;
	region[2 * page] ^= 1;
	check_eq(mprotect(region + 4 * page, page, PROT_READ), 0);
	check_eq(mprotect(region + 4 * page, page, PROT_READ | PROT_WRITE), 0);
}

/* What holds for all that is mapped later. */
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

static int lock_how;

static void future_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	if (mlockall(lock_how))
		needs("RLIMIT_MEMLOCK");
	region = anonymous(4 * page);
}

static void future_locked_setup(void)
{
	lock_how = MCL_FUTURE;
	future_setup();
}

static void future_on_fault_setup(void)
{
	lock_how = MCL_FUTURE | MCL_ONFAULT;
	future_setup();
}

static void future_verify(int cycle)
{
	char *more = anonymous(page);

	(void)cycle;
	check_eq(resident(region), lock_how == MCL_FUTURE);
	check_eq(resident(more), lock_how == MCL_FUTURE);
	check_eq(madvise(more, page, MADV_DONTNEED), -1);	/* not of what is locked */
	check_eq(errno, EINVAL);
	check_eq(munmap(more, page), 0);
}

/* No memory becomes executable that was not (Linux 6.3). */
static void mdwe_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = map(NULL, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS);	/* before */
	if (prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0))
		needs("PR_SET_MDWE (Linux 6.3)");
	region[0] = 1;
}

static void mdwe_verify(int cycle)
{
	char *p = anonymous(page);

	(void)cycle;
	check_eq(prctl(66 /* PR_GET_MDWE */, 0, 0, 0, 0), 1);
	check_eq(mprotect(p, page, PROT_READ | PROT_EXEC), -1);
	check_eq(errno, EACCES);
	check_eq(munmap(p, page), 0);
	check_eq(region[0], 1);
}

static void merge_any_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	if (prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0))
		needs("PR_SET_MEMORY_MERGE (Linux 6.4, CONFIG_KSM)");
	region = anonymous(4 * page);
	fill(region, 4 * page, 1);
}

static void merge_any_verify(int cycle)
{
	(void)cycle;
	check_eq(prctl(68 /* PR_GET_MEMORY_MERGE */, 0, 0, 0, 0), 1);
	filled(region, 4 * page, 1);
}

/* What a core dump would hold. */
static void core_filter_setup(void)
{
	int fd = open("/proc/self/coredump_filter", O_WRONLY);

	if (fd < 0)
		needs("/proc/PID/coredump_filter");
	check_eq(write(fd, "0x17", 4), 4);
	check_eq(close(fd), 0);
}

static void core_filter_verify(int cycle)
{
	int fd = open("/proc/self/coredump_filter", O_RDONLY);
	char text[16] = "";

	(void)cycle;
	check(fd >= 0);
	check(read(fd, text, sizeof(text) - 1) > 0);
	check_eq(strtoul(text, NULL, 16), 0x17);
	check_eq(close(fd), 0);
}

/* Neighbours that could be one mapping, and are not: each has come from elsewhere. */
static char *row;

static void row_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	row = mmap(NULL, 8 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(row != MAP_FAILED);
	for (int i = 0; i < 4; i++) {
		char *from = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check(from != MAP_FAILED);
		check_eq(mprotect(from + page, page, PROT_READ | PROT_WRITE), 0);
		fill(from + page, page, i);
		check(mremap(from + page, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, row + (2 + i) * page) == row + (2 + i) * page);
	}
}

static void row_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < 4; i++)
		filled(row + (2 + i) * page, page, i);
}

/* Many neighbours that cannot merge: every second page has other rights. */
#define MANY 4000

static void many_setup(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = anonymous(MANY * page);
	for (int i = 0; i < MANY; i++)
		region[i * page] = (char)i;
	for (int i = 0; i < MANY; i += 2)
		check_eq(mprotect(region + i * page, page, PROT_READ), 0);
}

static void many_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < MANY; i++)
		check_eq(region[i * page], (char)i);
}

SCENARIOS(
	{ "private", BOTH, private_setup, private_verify, NULL, 0 },
	{ "protections", BOTH, protections_setup, protections_verify, NULL, 0 },
	{ "jit", BOTH, jit_setup, jit_verify, NULL, 0 },
	{ "sparse", BOTH, sparse_setup, sparse_verify, NULL, 0 },
	{ "reserve", BOTH, reserve_setup, reserve_verify, NULL, 0 },
	{ "edges", BOTH, edges_setup, edges_verify, NULL, 0 },
	{ "shared", BOTH, shared_setup, shared_verify, NULL, 0 },
	{ "shared-twice", BOTH, twice_setup, twice_verify, NULL, 0 },
	{ "stack", BOTH, NULL, stack_verify, NULL, 0 },
	{ "growsdown", BOTH, growsdown_setup, growsdown_verify, NULL, 0 },
	{ "heap", BOTH, heap_setup, heap_verify, NULL, 0 },
	{ "locked", BOTH, locked_setup, locked_verify, NULL, 0 },
	{ "mlockall", BOTH | ROOT, mlockall_setup, mlockall_verify, NULL, 0 },
	{ "advice", BOTH, advice_setup, advice_verify, NULL, 0 },
	{ "huge", BOTH, huge_setup, huge_verify, NULL, 0 },
	{ "mergeable", BOTH, mergeable_setup, mergeable_verify, NULL, 0 },
	{ "named", BOTH, named_setup, named_verify, NULL, 0 },
	{ "guards", BOTH, guards_setup, guards_verify, NULL, 0 },
	{ "sealed", BOTH, sealed_setup, sealed_verify, NULL, 0 },
	{ "lock-future", BOTH, future_locked_setup, future_verify, NULL, 0 },
	{ "lock-on-fault", BOTH, future_on_fault_setup, future_verify, NULL, 0 },
	{ "mdwe", BOTH, mdwe_setup, mdwe_verify, NULL, 0 },
	{ "row", BOTH, row_setup, row_verify, NULL, 0 },
	{ "merge-any", BOTH, merge_any_setup, merge_any_verify, NULL, 0 },
	{ "core-filter", BOTH, core_filter_setup, core_filter_verify, NULL, 0 },
	{ "many", BOTH, many_setup, many_verify, NULL, 0 },
)
