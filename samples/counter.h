/*
 * counter.h - what test.c and self.c have in common: a program that writes a
 * line to a file at every tick, with a number that only comes out right if
 * memory, the file's offset and the floating point registers all survive.
 *
 *	PROGRAM [FILE [MILLISECONDS [COUNT]]]
 *
 * Without arguments it does as in 2009: /tmp/cr-test.out, one line a second,
 * a thousand lines.
 */
#ifndef COUNTER_H
#define COUNTER_H

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct counter {
	FILE *out;
	long tick;		/* milliseconds between two lines */
	int last;		/* number of lines */
	float a;
};

static void counter_open(struct counter *c, int argc, char *argv[])
{
	const char *name = argc > 1 ? argv[1] : "/tmp/cr-test.out";

	c->tick = argc > 2 ? atol(argv[2]) : 1000;
	c->last = argc > 3 ? atoi(argv[3]) : 1000;

	/* A new file: the one of an earlier run may be somebody's record. */
	unlink(name);
	c->out = fopen(name, "w+");
	if (!c->out) {
		perror(name);
		exit(1);
	}
	/* The pid makes each run's numbers its own. */
	c->a = sqrtf(2.53f * (float)getpid() / 1.21f);
	fprintf(c->out, "hello, world (%.2f)!\n", c->a);
	fflush(c->out);
}

static void counter_step(struct counter *c, int i)
{
	struct timespec left = {
		.tv_sec = c->tick / 1000,
		.tv_nsec = c->tick % 1000 * 1000000,
	};

	/* Sleep the whole tick, whatever interrupts it. */
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	/* (a + i/10) squared and its root: work for the FPU. */
	c->a = sqrtf(c->a * c->a + 2 * c->a * ((float)i / 10) + (float)(i * i) / 100);
	fprintf(c->out, "count %d (%.2f)!\n", i, c->a);
	fflush(c->out);
}

static void counter_close(struct counter *c)
{
	fprintf(c->out, "world, hello (%.2f)!\n", c->a);
	fclose(c->out);
}

#endif
