/*
 * test.c - a program to checkpoint: it counts, and knows nothing of
 * checkpoints.
 *
 *	$ ./test [FILE [MILLISECONDS [COUNT]]] &
 *	[1] 3493
 */
#include "counter.h"

int main(int argc, char *argv[])
{
	struct counter c;
	int i;

	/*
	 * In 2009 only regular files could be saved, so this program keeps no
	 * terminal. The counter's file becomes descriptor 0, and 2 a second
	 * name of the same open file: both share one offset.
	 */
	close(0);
	close(1);
	close(2);
	counter_open(&c, argc, argv);
	if (dup2(fileno(c.out), 2) < 0)
		return 1;

	for (i = 0; i < c.last; i++)
		counter_step(&c, i);
	counter_close(&c);
	return 0;
}
