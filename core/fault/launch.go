package fault

import "golang.org/x/sys/unix"

// 5000: a command cannot be started.
const (
	CommandNotFound  Code = 5001
	CommandNotExec   Code = 5002
	SupervisorLost   Code = 5003
	LaunchFailed     Code = 5004
	HeaderUnwritable Code = 5005
	CompilerNotFound Code = 5006
)

var launch = []Entry{
	{CommandNotFound, unix.ENOENT, "cannot run {the command}: not found",
		"No file of that name is in the directories of PATH, or at the path that was given.",
		"Check the spelling, or give the whole path. The exit status is 127."},
	{CommandNotExec, unix.EACCES, "cannot run {the command}: not executable",
		"The file is there but the kernel does not run it: no execute permission, a directory, or no known format.",
		"Set the permission with chmod +x, or name the interpreter. The exit status is 126."},
	{SupervisorLost, unix.ENOSYS, "cannot serve {the command}: the supervisor has ended",
		"The process that answers the calls was killed. The command runs on, and its calls now fail with ENOSYS.",
		"Start the command anew under crshim run."},
	{LaunchFailed, 0, "cannot start {the command}",
		"Setting up the process in which the command was to run failed.",
		"See the cause at the end of the line. The exit status is 125."},
	{HeaderUnwritable, 0, "cannot unpack {the header}",
		"The C header is unpacked into the cache directory of the user for the compiler to find.",
		"Set XDG_CACHE_HOME to a directory that can be written."},
	{CompilerNotFound, unix.ENOENT, "cannot run {the compiler}: not found",
		"crshim cc calls the C compiler of the system: the one that CC names, else cc.",
		"Install gcc or clang, or set CC."},
}
