/*
 * checkpoint() and restart() for programs under `crshim run`.
 *
 * Without crshim, and on any other kernel, both fail with ENOSYS. On failure they return -1 and set errno; the reason in
 * words is in the log of `crshim run`.
 */
#ifndef CRSHIM_H
#define CRSHIM_H

#pragma GCC system_header

#include <crshim/unistd.h>
#include <sys/types.h>

#ifdef __cplusplus
#include <unistd.h>
extern "C" {
#else
extern long syscall(long number, ...); /* <unistd.h> hides it in strict C */
#endif

/*
 * checkpoint - save the process pid to the descriptor fd
 *
 * pid is a number in the caller's pid namespace; getpid() saves the caller itself. fd may be a file, a pipe or a socket.
 * flags must be 0.
 *
 * Like fork(), it returns twice: a positive checkpoint id (crid) now, and 0 in the process that restart() makes of the
 * image.
 *
 *     int crid = checkpoint(getpid(), fd, 0);
 *     if (crid < 0)
 *             perror("checkpoint");
 *     else if (crid == 0)
 *             puts("back from the image");
 *
 * EBADF   fd is not open for writing, or the process has a descriptor open that cannot be saved
 * EBUSY   somebody else traces the process
 * EINVAL  flags is not 0
 * EPERM   the caller may not trace the process
 * ESRCH   there is no such process; 0 and negative numbers name none
 * ENOSYS, EOPNOTSUPP  the process has something that cannot be saved
 * and the errors of write(2).
 */
static __inline__ int checkpoint(pid_t pid, int fd, unsigned long flags)
{
	return (int)syscall(__NR_checkpoint, pid, fd, flags);
}

/*
 * restart - become the process whose image is read from the descriptor fd
 *
 * crid is 0 or the caller's own pid; flags must be 0. The image is read once, from front to back.
 *
 * Like execve(), it returns only if it fails, and then with the caller as it was.
 *
 * EBADF   fd is not open for reading
 * EINVAL  flags is not 0, crid is another number, or fd does not hold a valid image
 * ENOEXEC the image is valid, but not for this machine
 * EPIPE   the image ends early
 * and the errors of open(2) for the files that the image names, and of mmap(2).
 */
static __inline__ int restart(int crid, int fd, unsigned long flags)
{
	return (int)syscall(__NR_restart, crid, fd, flags);
}

/* crgetid - return the last crid that the calling process was given, 0 if none */
static __inline__ int crgetid(void)
{
	return (int)syscall(__NR_crgetid);
}

#ifdef __cplusplus
}
#endif

#endif
