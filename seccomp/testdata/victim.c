/*
 * The process that a filter is tried on. Each word of the command line is done in turn; "int80" and "x32" before a number
 * choose the system call interface. One line is printed for each call: the result, or -errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X32_BIT 0x40000000L

static volatile sig_atomic_t handled;

static void on_usr1(int sig)
{
	(void)sig;
	handled++;
}

static long by_int80(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory"
#ifdef __x86_64__
			 , "r8", "r9", "r10", "r11"
#endif
	);
	return ret;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_usr1, .sa_flags = SA_RESTART };
	int int80 = 0, x32 = 0;

	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 1; i < argc; i++) {
		long ret;

		if (!strcmp(argv[i], "int80")) {
			int80 = 1;
			continue;
		}
		if (!strcmp(argv[i], "x32")) {
			x32 = 1;
			continue;
		}
		if (!strcmp(argv[i], "handled")) {
			printf("%d\n", (int)handled);
			continue;
		}
		ret = atol(argv[i]) | (x32 ? X32_BIT : 0);
		if (int80) {
			ret = by_int80(ret, 7, -2, 3);
		} else {
			ret = syscall(ret, 7L, -2L, 3L);
			if (ret == -1)
				ret = -errno;
		}
		printf("%ld\n", ret);
		fflush(stdout);
		int80 = x32 = 0;
	}
	return 0;
}
