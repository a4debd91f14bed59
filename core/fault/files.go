package fault

import "golang.org/x/sys/unix"

// 2120: files of the image, and what is attached to them.
const (
	FileContents Code = 2120
	LockTaken    Code = 2121
	CallerLocks  Code = 2122
	FileChanged  Code = 2123
	FileRollback Code = 2124
)

// 1246: files cannot be saved.
const FileUnreadable Code = 1246

var files = []Entry{
	{FileUnreadable, unix.EACCES, "cannot save the contents of {a descriptor}: the program may not read them",
		"With --save-files the image holds the contents of files that are open for writing; of one that is open for writing alone the program itself must be allowed to read them.",
		"Save without --save-files, or make the file readable to the user of the program."},
	{FileContents, 0, "cannot make {a file} of the image with its contents",
		"A file that had been deleted is made anew, in its directory, or else in /var/tmp, /tmp or /dev/shm; none of them took it, or there is no room.",
		"Free disk space, or make its directory writable to the user who restarts."},
	{LockTaken, 0, "cannot lock {a file} of the image again",
		"The program held a lock or a lease of the file, and now somebody else does, or has the file open: another process, or the caller of restart itself.",
		"See /proc/locks for who has it, and wait for its end."},
	{CallerLocks, unix.EBUSY, "cannot restart in {the caller}: it holds a lock of a file of the image",
		"A POSIX lock of fcntl is lost when any descriptor of its file is closed, as it would be if the restart were to fail.",
		"Release it before restart, or use the crshim restart command."},
	{FileChanged, unix.EINVAL, "cannot go on with {a file} of the image: it has become shorter",
		"The program had the file open, and what it knows to be in it is no longer there.",
		"Put back the file as it was when the image was saved, or restart with --files ignore."},
	{FileRollback, 0, "cannot roll back {a file} of the image",
		"With --files rollback every file that was open for writing gets back the contents that it had, which checkpoint --save-files saves; with --files truncate it is cut. This is done last of all, when nothing else can fail.",
		"See the cause at the end of the line; files that were named before this one have been changed already."},
}
