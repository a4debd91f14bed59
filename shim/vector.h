/* The path and the arguments of something to execute, as Go hands them to C: freed together, and ended by a null pointer. */
#include <stdlib.h>

static char **new_vector(int n) { return calloc(n + 1, sizeof(char *)); }

static void set_vector(char **v, int i, char *s) { v[i] = s; }

static char **behind_first(char **v) { return v + 1; }

static void free_vector(char **v)
{
	for (int i = 0; v[i]; i++)
		free(v[i]);
	free(v);
}
