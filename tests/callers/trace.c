/*
 * trace.c - a debugger of the simplest kind: attaches to PID, makes the file
 * OUT, and lets go when it ends.
 *
 *	trace OUT PID
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
	if (argc != 3 || ptrace(PTRACE_SEIZE, atoi(argv[2]), 0, 0))
		return 1;
	if (open(argv[1], O_WRONLY | O_CREAT, 0600) < 0)
		return 1;
	for (;;)
		pause();
}
