/*
 * numa.c - memory policies: set_mempolicy(2), mbind(2).
 */
#include "scenario.h"

/* Of <linux/mempolicy.h>. */
enum { DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, PREFERRED_MANY };
enum { STATIC = 1 << 15, OF_ADDR = 2 };

static char *region;
static size_t page;

static void bind(int part, int mode, unsigned long nodes)
{
	check_eq(syscall(SYS_mbind, region + part * page, page, mode, nodes ? &nodes : NULL, nodes ? 64 : 0, 0), 0);
}

/* is fails if the policy of a page, or of the thread, is another one. */
static void is(char *p, int mode, unsigned long nodes)
{
	unsigned long got[16] = { 0 };
	int m = -1;

	check_eq(syscall(SYS_get_mempolicy, &m, got, 1024, p, p ? OF_ADDR : 0), 0);
	check_eq(m, mode);
	check_eq(got[0], nodes);
}

static void setup(void)
{
	unsigned long nodes = 1;

	page = sysconf(_SC_PAGESIZE);
	if (syscall(SYS_set_mempolicy, BIND | STATIC, &nodes, 64))
		needs("CONFIG_NUMA");
	region = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(region != MAP_FAILED);
	bind(1, PREFERRED, 1);
	bind(2, INTERLEAVE | STATIC, 1);
	bind(3, LOCAL, 0);
	bind(4, BIND, 1);
	fill(region, 8 * page, 1);
}

static void verify(int cycle)
{
	(void)cycle;
	is(NULL, BIND | STATIC, 1);
	is(region, DEFAULT, 0);
	is(region + page, PREFERRED, 1);
	is(region + 2 * page, INTERLEAVE | STATIC, 1);
	is(region + 3 * page, LOCAL, 0);
	is(region + 4 * page, BIND, 1);
	is(region + 5 * page, DEFAULT, 0);
	filled(region, 8 * page, 1);
}

static void shared_setup(void)
{
	setup();
	check(mmap(region, 8 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == region);
	bind(1, PREFERRED, 1);
	bind(2, INTERLEAVE | STATIC, 1);
	bind(3, LOCAL, 0);
	bind(4, BIND, 1);
	fill(region, 8 * page, 1);
}

SCENARIOS(
	{ "private", BOTH, setup, verify, NULL, 0 },
	{ "shared", BOTH, shared_setup, verify, NULL, 0 },
)
