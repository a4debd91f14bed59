/*
 * dropped.c - memory that the children of one share who has it no more: nothing
 * leads to it but their mappings.
 */
#include "tree.h"

#include <sys/shm.h>
#include <sys/wait.h>

enum { PAGE = 4096, KINDS = 3 };

/* Anonymous, of a deleted file, of a memfd: three pages each. */
static char *memory[KINDS];
static char *read_only[KINDS];

static void make(void)
{
	int fd = open(path("deleted", -1), O_RDWR | O_CREAT | O_TRUNC, 0600);

	for (int i = 0; i < KINDS; i++) {
		if (i == 2) {
			fd = (int)syscall(SYS_memfd_create, "dropped", 1U);
			check(fd >= 0);
		}
		if (i)
			check_eq(ftruncate(fd, 3 * PAGE), 0);
		memory[i] = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, i ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS, i ? fd : -1, 0);
		check(memory[i] != MAP_FAILED);
		fill(memory[i], 3 * PAGE, i);
		*(atomic_int *)memory[i] = 0;
		if (!i)
			continue;
		read_only[i] = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE);
		check(read_only[i] != MAP_FAILED);
		check_eq(close(fd), 0);
	}
	check_eq(unlink(path("deleted", -1)), 0);
}

/* The first child has the first page of each, its brother the last, and a grandchild all. */
static void first_begin(void)
{
	for (int i = 0; i < KINDS; i++)
		check_eq(munmap(memory[i] + PAGE, 2 * PAGE), 0);
}

static void second_begin(void)
{
	for (int i = 0; i < KINDS; i++)
		check_eq(munmap(memory[i], 2 * PAGE), 0);
}

static void seen(int first, int n)
{
	for (int i = 0; i < KINDS; i++)
		for (int k = 0; k < n * PAGE; k++)
			if ((first + k) >= 4 && memory[i][first + k] != (char)pattern(first + k, i))
				fail("byte %d of memory %d differs", first + k, i);
	for (int i = 1; i < KINDS; i++)
		check(!memcmp(read_only[i], (char[]){ (char)pattern(PAGE, i), (char)pattern(PAGE + 1, i) }, 2));
}

/* Each turn one writes, and the other one sees it. */
static void first_verify(int cycle)
{
	seen(0, 1);
	for (int i = 0; i < KINDS; i++) {
		char *whole;

		check_eq(atomic_fetch_add((atomic_int *)memory[i], 1), 2 * (cycle - 1));
		await((atomic_int *)memory[i], 2 * cycle);
		/* What no mapping of its own shows is there. */
		whole = mremap(memory[i], 0, 3 * PAGE, MREMAP_MAYMOVE);
		check(whole != MAP_FAILED);
		for (int k = PAGE; k < 3 * PAGE; k++)
			check_eq(whole[k], (char)pattern(k, i));
		check_eq(munmap(whole, 3 * PAGE), 0);
	}
}

static void second_verify(int cycle)
{
	(void)cycle;
	seen(2 * PAGE, 1);
}

static void third_verify(int cycle)
{
	seen(0, 3);
	for (int i = 0; i < KINDS; i++) {
		await((atomic_int *)memory[i], 2 * cycle - 1);
		check_eq(atomic_fetch_add((atomic_int *)memory[i], 1), 2 * cycle - 1);
	}
}

static const struct child first = { first_begin, first_verify }, second = { second_begin, second_verify },
	third = { NULL, third_verify };

static void dropped_setup(void)
{
	share();
	make();
	grow(&first);
	grow(&second);
	grow(&third);
	for (int i = 0; i < KINDS; i++) {
		check_eq(munmap(memory[i], 3 * PAGE), 0);
		if (i)
			check_eq(munmap(read_only[i], PAGE), 0);
	}
}

static void dropped_verify(int cycle)
{
	all(cycle);
	for (int i = 0; i < KINDS; i++)
		check_eq(faults(memory[i], 0), SIGSEGV);
}

/* ---- System V shared memory, one segment that has been removed and one that has a key ---- */

enum { SEGMENTS = 2 };

static atomic_int *segment[SEGMENTS];

static void ping_verify(int cycle)
{
	for (int i = 0; i < SEGMENTS; i++) {
		check_eq(atomic_fetch_add(segment[i], 1), 2 * (cycle - 1));
		await(segment[i], 2 * cycle);
		check_eq(segment[i][PAGE / 4 + 1], 5 + i);
	}
}

static void pong_verify(int cycle)
{
	for (int i = 0; i < SEGMENTS; i++) {
		await(segment[i], 2 * cycle - 1);
		check_eq(atomic_fetch_add(segment[i], 1), 2 * cycle - 1);
	}
}

static const struct child ping = { NULL, ping_verify }, pong = { NULL, pong_verify };

static key_t key;

static void segments_setup(void)
{
	share();
	key = getpid() << 8 | 0x5d;
	for (int i = 0; i < SEGMENTS; i++) {
		int id = shmget(i ? key : IPC_PRIVATE, 2 * PAGE, IPC_CREAT | IPC_EXCL | 0600);

		check(id >= 0);
		segment[i] = shmat(id, NULL, 0);
		check(segment[i] != (void *)-1);
		segment[i][PAGE / 4 + 1] = 5 + i;
		if (!i)
			check_eq(shmctl(id, IPC_RMID, NULL), 0);
	}
	grow(&ping);
	grow(&pong);
	for (int i = 0; i < SEGMENTS; i++)
		check_eq(shmdt(segment[i]), 0);
}

static void segments_verify(int cycle)
{
	all(cycle);
	for (int i = 0; i < SEGMENTS; i++)
		check_eq(faults((char *)segment[i], 0), SIGSEGV);
	if (cycle == 3)
		check_eq(shmctl(shmget(key, 0, 0), IPC_RMID, NULL), 0);
}

SCENARIOS(
	{ .name = "dropped", .flags = EXTERNAL, .setup = dropped_setup, .verify = dropped_verify },
	{ .name = "segments", .flags = EXTERNAL, .setup = segments_setup, .verify = segments_verify },
)
