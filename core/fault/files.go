package fault

import "golang.org/x/sys/unix"

// 2120: files of the image, and what is attached to them.
const (
	FileContents Code = 2120
	LockTaken    Code = 2121
	CallerLocks  Code = 2122
)

var files = []Entry{
	{FileContents, 0, "cannot make {a file} of the image with its contents",
		"A file that had been deleted is made anew, in its directory, or else in /var/tmp, /tmp or /dev/shm; none of them took it, or there is no room.",
		"Free disk space, or make its directory writable to the user who restarts."},
	{LockTaken, 0, "cannot lock {a file} of the image again",
		"The program held a lock or a lease of the file, and now somebody else does, or has the file open: another process, or the caller of restart itself.",
		"See /proc/locks for who has it, and wait for its end."},
	{CallerLocks, unix.EBUSY, "cannot restart in {the caller}: it holds a lock of a file of the image",
		"A POSIX lock of fcntl is lost when any descriptor of its file is closed, as it would be if the restart were to fail.",
		"Release it before restart, or use the crshim restart command."},
}
