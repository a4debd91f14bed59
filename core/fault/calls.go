package fault

import "golang.org/x/sys/unix"

// 3000: a call was made wrongly.
const (
	CallFlags       Code = 3001
	CallDescriptor  Code = 3002
	CallProcess     Code = 3003
	CallPermission  Code = 3004
	CallCRID        Code = 3005
	CallCRIDUnknown Code = 3006
	CallCoordinator Code = 3007
	CallInterrupted Code = 3008
	CallUnknown     Code = 3009
	CallArch        Code = 3010
	CallNotReadable Code = 3011
)

var calls = []Entry{
	{CallFlags, unix.EINVAL, "cannot make {the call}: flags must be 0",
		"The 2009 interface reserves the flags argument, and no bit of it has a meaning.",
		"Pass 0 as the third argument."},
	{CallDescriptor, unix.EBADF, "cannot make {the call}: the descriptor is not open",
		"The second argument is not an open descriptor of the caller.",
		"Open the image first and pass its descriptor."},
	{CallProcess, unix.ESRCH, "cannot make {the call}: no such process",
		"The number names no process in the pid namespace of the caller. Zero does not stand for the caller.",
		"Pass getpid() to save the caller itself."},
	{CallPermission, unix.EPERM, "cannot make {the call}: the caller may not trace that process",
		"The kernel decides by the caller's own rights, not by those of crshim.",
		"Make the call as the user that owns the process, or as root."},
	{CallCRID, unix.EINVAL, "cannot make {the call}: the first argument is not a valid crid",
		"With a descriptor the first argument of restart is 0, the caller's own process id, or that of the first task of a tree that restarts together.",
		"Pass 0 as the first argument."},
	{CallCRIDUnknown, unix.EINVAL, "cannot make {the call}: no image of that crid is kept in memory",
		"With descriptor -1 restart takes an image that an earlier checkpoint kept in memory, by its crid.",
		"Pass the crid that checkpoint returned, under the same crshim run."},
	{CallCoordinator, unix.EINVAL, "cannot make {the call}: that process is not restarting a tree",
		"The first argument names another process, as a member of its restart. The caller must descend from that one, and both must be under crshim run.",
		"Pass the process id of the first task of the tree, or 0 to restart alone."},
	{CallInterrupted, unix.EINTR, "cannot finish {the call}: interrupted",
		"The caller was signalled or went away while it waited.",
		"Make the call again."},
	{CallUnknown, unix.ENOSYS, "cannot make {the call}: no such emulated call",
		"The number is reserved for calls to come.",
		"See the table of calls in the documentation."},
	{CallArch, unix.ENOSYS, "cannot make {the call}: not available to programs of this architecture",
		"The call was made through another system call interface than x86-64.",
		"Use an x86-64 build of the program."},
	{CallNotReadable, unix.EBADF, "cannot make {the call}: the descriptor is not open for reading",
		"The second argument of restart was opened write-only, or with O_PATH.",
		"Open the image for reading."},
}
