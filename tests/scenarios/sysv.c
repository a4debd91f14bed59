/*
 * sysv.c - System V shared memory.
 */
#include "scenario.h"

#include <sys/ipc.h>
#include <sys/shm.h>

static int id = -1;
static char *region, *other;
static size_t page;

static char *attach(int flags)
{
	char *p = shmat(id, NULL, flags);

	if (p == (void *)-1)
		fail("shmat: errno %d", errno);
	return p;
}

static void make(key_t key, size_t pages)
{
	page = sysconf(_SC_PAGESIZE);
	id = shmget(key, pages * page, IPC_CREAT | IPC_EXCL | 0640);
	if (id < 0)
		needs("System V shared memory");
	region = attach(0);
}

static void attached(int n)
{
	struct shmid_ds ds;

	check_eq(shmctl(id, IPC_STAT, &ds), 0);
	check_eq(ds.shm_nattch, n);
	check_eq(ds.shm_perm.mode & 0777, 0640);
}

/* Removed as soon as it is attached, as most programs do; in two parts. */
static void removed_setup(void)
{
	make(IPC_PRIVATE, 8);
	check_eq(shmctl(id, IPC_RMID, NULL), 0);
	fill(region, 6 * page, 1);
	check_eq(munmap(region + 2 * page, page), 0);
	other = mremap(region + 4 * page, 0, 2 * page, MREMAP_MAYMOVE);
	check(other != MAP_FAILED);
}

static void removed_verify(int cycle)
{
	for (size_t i = 0; i < 2 * page; i++)
		check_eq((unsigned char)region[i], (unsigned char)(pattern(i, 1) + (i == 7 ? cycle - 1 : 0)));
	region[7]++;
	for (size_t i = 3 * page; i < 6 * page; i++)
		check_eq((unsigned char)region[i], pattern(i, 1));
	check_eq(memcmp(region + 4 * page, other, 2 * page), 0);
	check_eq(region[8 * page - 1], 0);
	other[0] ^= 1;
	check_eq(other[0], region[4 * page]);
	other[0] ^= 1;
	if (cycle == 3) {
		check_eq(shmdt(region), 0);	/* all that began with it, by address */
		check_eq(faults(region, 0), SIGSEGV);
		check_eq(faults(region + 7 * page, 0), SIGSEGV);
	}
}

/* original tells the process that made a self checkpoint from the restored one. */
static int original(int cycle)
{
	return !scenario_external && access(path("saved", cycle), F_OK) != 0;
}

/* One that stays: the original goes on writing before the image is restarted. */
static key_t key;

static void stays_setup(void)
{
	key = 0x43520000 + (int)syscall(SYS_getpid) % 65536;
	make(key, 8);
	fill(region, 4 * page, 1);
	other = attach(SHM_RDONLY);
}

static void stays_verify(int cycle)
{
	filled(region, 4 * page, cycle);
	filled(other, 4 * page, cycle);
	check_eq(region[6 * page], 0);
	region[6 * page] = 1;	/* in the image there is a hole */
	check_eq(other[6 * page], 1);
	check_eq(madvise(region + 6 * page, page, MADV_REMOVE), 0);
	region[7 * page] = (char)cycle;
	fill(region, 4 * page, cycle + 1);
	check_eq(mprotect(other, page, PROT_READ | PROT_WRITE), -1);
	check_eq(errno, EACCES);
	attached(2);
	if (cycle == 3 && !original(cycle))
		check_eq(shmctl(id, IPC_RMID, NULL), 0);
}

/*
 * One that is gone at the restart, as after a boot of the machine: it comes
 * back with its key, and, as root may choose that, with its id.
 */
static void gone_verify(int cycle)
{
	if (geteuid())
		id = shmget(key, 0, 0);
	stays_verify(cycle);
	if (original(cycle))
		check_eq(shmctl(id, IPC_RMID, NULL), 0);
}

SCENARIOS(
	{ "removed", BOTH, removed_setup, removed_verify, NULL, 0 },
	{ "stays", BOTH, stays_setup, stays_verify, NULL, 0 },
	{ "gone", SELF, stays_setup, gone_verify, NULL, 0 },
)
