/*
 * self.c - a program that checkpoints itself to its standard output after
 * three lines, and goes on.
 *
 *	$ ./self [FILE [MILLISECONDS [COUNT]]] > self.image
 *
 * checkpoint() returns twice, like fork(): a positive crid here and now, and
 * 0 in the process that a restart() brings back.
 */
#include <string.h>
#include <crshim.h>

#include "counter.h"

int main(int argc, char *argv[])
{
	struct counter c;
	int i, crid;

	close(0);
	close(2);
	counter_open(&c, argc, argv);
	if (dup2(fileno(c.out), 2) < 0)
		return 1;

	for (i = 0; i < c.last; i++) {
		counter_step(&c, i);
		if (i != 2)
			continue;

		crid = checkpoint(getpid(), STDOUT_FILENO, 0);
		if (crid < 0) {
			fprintf(c.out, "checkpoint: %s\n", strerror(errno));
			return 2;
		}
		fprintf(c.out, "checkpoint ret: %d\n", crid);
		fflush(c.out);
	}
	counter_close(&c);
	return 0;
}
