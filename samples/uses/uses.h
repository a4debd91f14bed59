/*
 * uses.h - what the programs of the seven uses have in common. None of them
 * knows anything of checkpoints.
 */
#ifndef USES_H
#define USES_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Some terminals and build systems leave descriptors open to whatever they
 * start. A pipe among them leads to somebody else and could not be saved.
 */
static inline void drop_inherited(void)
{
	if (close_range(3, ~0U, 0) < 0) {
		perror("close_range");
		exit(1);
	}
}

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

#endif
