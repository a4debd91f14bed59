/*
 * apart.c - trees with a process that no fork can make again.
 */
#include "tree.h"

#include <sched.h>

static void all_verify(int cycle) { all(cycle); }

/* Huge pages that two children share, and of which their parent has lost a part. */
static char *huge;

static void huge_child(int cycle)
{
	(void)cycle;
	filled(huge, 4096, 1);
}

static const struct child uses_huge = { NULL, huge_child };

static void huge_setup(void)
{
	share();
	huge = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge == MAP_FAILED)
		needs("huge pages (vm.nr_hugepages)");
	fill(huge, 4096, 1);
	grow(&uses_huge);
	grow(&uses_huge);
	check_eq(munmap(huge + (2 << 20), 2 << 20), 0);
}

/* One that has a network of its own. */
static void net_begin(void)
{
	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET))
		control->page[0] = 1;
}

static const struct child hermit = { net_begin, NULL };

static void net_setup(void)
{
	share();
	grow(&hermit);
	if (control->page[0])
		needs("network namespaces");
}

SCENARIOS(
	{ .name = "huge-partly", .flags = EXTERNAL | REFUSED, .setup = huge_setup, .verify = all_verify, .refused = EOPNOTSUPP },
	{ .name = "other-network", .flags = EXTERNAL | REFUSED, .setup = net_setup, .verify = all_verify, .refused = EPERM },
)
