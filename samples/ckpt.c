/*
 * ckpt.c - checkpoint another process to standard output.
 *
 *	$ ./ckpt PID > ckpt.image
 *
 * The line that it prints afterwards lands in the image too, behind its
 * end: restart() does not read that far.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <crshim.h>

int main(int argc, char *argv[])
{
	int crid;

	if (argc != 2 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "usage: ckpt PID > IMAGE\n");
		return 1;
	}

	crid = checkpoint(atoi(argv[1]), STDOUT_FILENO, 0);
	if (crid < 0) {
		perror("checkpoint");
		return 1;
	}
	printf("checkpoint id %d\n", crid);
	return 0;
}
