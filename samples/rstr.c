/*
 * rstr.c - become the process whose image is on standard input.
 *
 *	$ ./rstr < ckpt.image
 *
 * Like execve(), restart() comes back only when it failed, and then this
 * process is as it was.
 */
#include <stdio.h>
#include <unistd.h>
#include <crshim.h>

int main(void)
{
	restart(getpid(), STDIN_FILENO, 0);
	perror("restart");
	return 1;
}
