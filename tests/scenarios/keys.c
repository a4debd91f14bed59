/*
 * keys.c - protection keys, pkeys(7).
 */
#include "scenario.h"

#define RW (PROT_READ | PROT_WRITE)

static char *region, *code;
static size_t page;
static int keys[15], n;

static unsigned pkru(void)
{
	unsigned eax, edx;

	__asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(eax), "=d"(edx) : "c"(0));
	return eax;
}

static void wrpkru(unsigned value)
{
	__asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static int alloc(void)
{
	return (int)syscall(SYS_pkey_alloc, 0, 0);
}

static void protect(char *p, size_t pages, int prot, int key)
{
	check_eq(syscall(SYS_pkey_mprotect, p, pages * page, prot, key), 0);
}

static void memory(void)
{
	page = sysconf(_SC_PAGESIZE);
	region = mmap(NULL, 16 * page, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(region != MAP_FAILED);
	fill(region, 16 * page, 1);
}

/* rights are the two bits of a key: 1 no access, 2 no writing. */
static void rights(int key, unsigned bits)
{
	wrpkru((pkru() & ~(3u << 2 * key)) | bits << 2 * key);
}

/* signal_of is faults(), with the rights put back: a handler runs with others. */
static int signal_of(char *p, int write)
{
	unsigned saved = pkru();
	int sig = faults(p, write);

	wrpkru(saved);
	return sig;
}

static void setup(void)
{
	memory();
	for (n = 0; n < 4; n++)
		if ((keys[n] = alloc()) < 0)
			needs("protection keys (pku in /proc/cpuinfo)");
	check_eq(syscall(SYS_pkey_free, keys[1]), 0);	/* a gap */
	protect(region + 2 * page, 2, RW, keys[0]);
	protect(region + 4 * page, 2, RW, keys[2]);
	protect(region + 6 * page, 2, PROT_READ, keys[3]);
	protect(region + 8 * page, 2, PROT_NONE, keys[3]);
	rights(keys[0], 1);
	rights(keys[2], 2);
}

static void verify(int cycle)
{
	unsigned saved = pkru();

	(void)cycle;
	check_eq(saved >> 2 * keys[0] & 3, 1);
	check_eq(saved >> 2 * keys[2] & 3, 2);
	check_eq(saved >> 2 * keys[3] & 3, 0);
	check_eq(signal_of(region + 2 * page, 0), SIGSEGV);
	check_eq(signal_of(region + 4 * page, 0), 0);
	check_eq(signal_of(region + 4 * page, 1), SIGSEGV);
	check_eq(signal_of(region + 6 * page, 1), SIGSEGV);
	rights(keys[0], 0);
	filled(region, 8 * page, 1);
	rights(keys[0], 1);
	check_eq(alloc(), keys[1]);	/* the lowest that is free */
	check_eq(syscall(SYS_pkey_free, keys[1]), 0);
	check_eq(syscall(SYS_pkey_free, keys[1]), -1);
	wrpkru(saved);
}

/* Execute-only memory has a key that the kernel chooses; here it is not the first. */
static void exec_setup(void)
{
	static const unsigned char text[] = { 0xb8, 42, 0, 0, 0, 0xc3 };	/* mov $42, %eax; ret */

	memory();
	if ((keys[0] = alloc()) < 0 || (keys[1] = alloc()) < 0)
		needs("protection keys (pku in /proc/cpuinfo)");
	code = region + 8 * page;
	memcpy(code, text, sizeof(text));
	check_eq(mprotect(code, page, PROT_EXEC), 0);
	keys[2] = alloc();
	check_eq(syscall(SYS_pkey_free, keys[0]), 0);
	protect(code + page, 1, PROT_EXEC, keys[2]);
}

static void exec_verify(int cycle)
{
	(void)cycle;
	check_eq(((int (*)(void))(uintptr_t)code)(), 42);
	check_eq(signal_of(code, 0), SIGSEGV);
	check_eq(signal_of(code + page, 0), 0);
	check_eq(alloc(), keys[0]);
	check_eq(syscall(SYS_pkey_free, keys[0]), 0);
}

/* All that there are. */
static void all_setup(void)
{
	memory();
	while (n < 15 && (keys[n] = alloc()) >= 0)
		n++;
	if (!n)
		needs("protection keys (pku in /proc/cpuinfo)");
	for (int i = 0; i < n; i++)
		protect(region + i * page, 1, RW, keys[i]);
}

static void all_verify(int cycle)
{
	(void)cycle;
	filled(region, 16 * page, 1);
	check_eq(alloc(), -1);
}

SCENARIOS(
	{ "keys", BOTH, setup, verify, NULL, 0 },
	{ "execute-only", BOTH, exec_setup, exec_verify, NULL, 0 },
	{ "all", BOTH, all_setup, all_verify, NULL, 0 },
)
