/*
 * locked.c - restart in a process that holds locks.
 *
 *	locked FILE IMAGE  locks bytes 10 to 19 of FILE, calls restart with IMAGE,
 *	                   and prints the errno and whether it still holds them
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __NR_restart
#define __NR_restart 1001
#endif

int main(int argc, char *argv[])
{
	struct flock lock = { .l_type = F_WRLCK, .l_start = 10, .l_len = 10 };
	int file, image, error, status;
	pid_t pid;

	if (argc != 3)
		return 2;
	file = open(argv[1], O_RDWR);
	image = open(argv[2], O_RDONLY);
	if (file < 0 || image < 0 || fcntl(file, F_SETLK, &lock))
		return 3;
	syscall(__NR_restart, 0, image, 0UL);
	error = errno;
	pid = fork();
	if (pid == 0)
		_exit(fcntl(file, F_GETLK, &lock) || lock.l_type != F_WRLCK || lock.l_pid != getppid());
	if (waitpid(pid, &status, 0) != pid)
		return 4;
	printf("%d %s\n", error, status ? "lost" : "held");
	return 0;
}
