/*
 * job.c - a long computation: nothing but processor time and memory.
 *
 *	job ROUNDS >PROGRESS
 *
 * Every round works through a slice of a table, and writes its number and a
 * sum to standard output; the sum depends on everything that was computed so
 * far, in memory and in the floating point registers. The last line is the
 * result. It is the same whenever and wherever the job runs.
 */
#include "uses.h"

#include <math.h>

#define TABLE (1 << 20)		/* words: 8 MiB */
#define SLICE (TABLE / 64)	/* of which each round changes so many */
#define STEPS 1000000		/* per round: some 20 ms */

int main(int argc, char *argv[])
{
	uint64_t x = 88172645463325252ULL, sum = 0;
	uint64_t *table;
	double wave = 1;
	int i, round, rounds;

	drop_inherited();
	if (argc != 2) {
		fprintf(stderr, "usage: job ROUNDS >PROGRESS\n");
		return 2;
	}
	rounds = atoi(argv[1]);
	table = malloc(TABLE * sizeof(*table));
	if (!table)
		die("malloc");
	for (i = 0; i < TABLE; i++)
		table[i] = next_random(&x);

	for (round = 1; round <= rounds; round++) {
		uint64_t *slice = table + (round % 64) * SLICE;

		for (i = 0; i < STEPS; i++) {
			uint64_t r = next_random(&x);

			sum += slice[r % SLICE] ^ (uint64_t)(wave * 1e6);
			slice[r % SLICE] = sum;
			wave = sqrt(wave * wave + (double)(r % 16)) / 1.5;
		}
		printf("round %d %016llx\n", round, (unsigned long long)sum);
		fflush(stdout);
	}
	printf("result %016llx\n", (unsigned long long)sum);
	if (fclose(stdout))
		die("standard output");
	return 0;
}
