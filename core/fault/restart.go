package fault

import "golang.org/x/sys/unix"

// 2100: files; 2200: process ids; 2300: identity; 2400: the caller;
// 2500: the commit; 2600: the stage.
const (
	FileOpen          Code = 2101
	FileTypeChanged   Code = 2102
	ExeFile           Code = 2103
	Directory         Code = 2104
	FileTooShort      Code = 2105
	DescriptorLimit   Code = 2106
	FileState         Code = 2107
	NoTerminal        Code = 2108
	WatchFailed       Code = 2109
	ExternalFile      Code = 2125
	NotInImage        Code = 2126
	NoSuchDescriptor  Code = 2127
	FifoInUse         Code = 2128
	WatchLost         Code = 2129
	NothingToHangUp   Code = 2131
	PIDTaken          Code = 2201
	PIDNotPermitted   Code = 2202
	PIDRange          Code = 2203
	ThreadLimit       Code = 2204
	GroupFailed       Code = 2205
	Identity          Code = 2301
	IdentityUnmapped  Code = 2302
	LimitNotPermitted Code = 2303
	TimerState        Code = 2304
	SchedulingRefused Code = 2305
	NoSuchCPU         Code = 2306
	OOMScoreRefused   Code = 2307
	SignalQueue       Code = 2308
	FilterRefused     Code = 2309
	AttributeRefused  Code = 2310
	CallerThreads     Code = 2401
	CallerGone        Code = 2403
	CallerFilter      Code = 2405
	CallerAltStack    Code = 2406
	CallerTimers      Code = 2407
	CommitFailed      Code = 2501
	StageMemory       Code = 2601
	StageRoom         Code = 2602
	StageFailed       Code = 2603
	SegmentInUse      Code = 2604
	SegmentFailed     Code = 2605
	ProtectionKeys    Code = 2606
	CallerSealed      Code = 2607
	MemoryPolicy      Code = 2608
	CallerMemory      Code = 2609
	PoolEmpty         Code = 2610
	ControlFailed     Code = 2611
)

var restarts = []Entry{
	{FileOpen, 0, "cannot open {a file} of the image",
		"The caller of restart opens every file itself, by name, with its own rights, and this one could not be opened.",
		"See the cause at the end of the line; the file must be there, under the same name and permitted."},
	{FileTypeChanged, unix.EINVAL, "cannot open {a file} of the image: it is now of another type",
		"A directory stands where a file was, or the other way round.",
		"Put back what was there when the image was saved."},
	{ExeFile, 0, "cannot open {the program file} of the image",
		"The file of the program is mapped again at restart and must be there, readable and executable.",
		"Install the same build of the program under the same name."},
	{Directory, 0, "cannot enter {a directory} of the image",
		"The working or root directory of the program must exist and be open to the caller.",
		"Make the directory, or restart as a user that may enter it."},
	{FileTooShort, unix.EINVAL, "cannot map {a file} of the image: it has become shorter",
		"Pages of the file that the program had in memory are no longer there.",
		"Put back the file as it was when the image was saved."},
	{DescriptorLimit, unix.EMFILE, "cannot place {a descriptor}: the limit on open files is too low",
		"The image holds a descriptor number above what the caller may have.",
		"Raise it with ulimit -n before restart."},
	{FileState, 0, "cannot put back the state of {a descriptor}",
		"The file was opened, but its offset, flags or close-on-exec could not be set.",
		"See the cause at the end of the line."},
	{NoTerminal, unix.ENOTTY, "cannot give {a descriptor} a terminal: the caller has none",
		"The image expects a terminal on a standard descriptor and takes that of the caller.",
		"Restart it in a terminal, or redirect that descriptor."},
	{WatchFailed, 0, "cannot have epoll watch {a descriptor} again",
		"The program watched it, and what stands there now cannot be watched: a regular file or /dev/null in the place of a pipe or terminal has no events.",
		"Restart it with standard descriptors of the kind that it had, such as | cat, or see the cause at the end of the line."},
	{ExternalFile, unix.EBADF, "cannot restore {a descriptor}: it led to another process or a device",
		"That end is not in the image, and only whoever restarts the program can say what takes its place.",
		"Restart with --fd N=inherit, --fd N=null, --fd N=hangup, --fd N=close or --fd N=PATH for this descriptor."},
	{NotInImage, unix.EINVAL, "cannot replace {a descriptor}: the image has no such descriptor",
		"What --fd names is put in the place of what the program had under that number, and it had nothing there.",
		"See the descriptors of the image by crshim inspect."},
	{NoSuchDescriptor, unix.EBADF, "cannot inherit {a descriptor}: the restarter has none of that number, or it is the image",
		"By --fd N=inherit the program gets what crshim itself was started with as descriptor N.",
		"Open it in the shell, as in crshim restart --fd 7=inherit img 7<>FILE, or give the name with --fd N=PATH."},
	{FifoInUse, unix.EBUSY, "cannot open {a named pipe} of the image: it is in use",
		"What was in the pipe is put in again, and another process that has it open would mix it up with its own.",
		"End that process first, which may be the one that was saved; or put something else there with --fd."},
	{WatchLost, 0, "cannot have inotify watch {a file} again",
		"The caller watches it by name, with its own rights and within its own limits (fs.inotify.max_user_watches).",
		"See the cause at the end of the line; the file must be there, and the caller may read it."},
	{NothingToHangUp, unix.EINVAL, "cannot hang up {a descriptor}: it was no stream with another end",
		"Only a pipe, a socket or a terminal can be given to the program as one whose other end is gone.",
		"Restart with --fd N=null, --fd N=close or --fd N=PATH for this descriptor."},
	{PIDTaken, unix.EEXIST, "cannot take {the process id}: it is in use",
		"A process, process group or session of that number exists.",
		"Restart with --pids new, or inside a new pid namespace with crshim run --container."},
	{PIDNotPermitted, unix.EPERM, "cannot take {the process id}: not permitted",
		"Choosing the number of a new process needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the pid namespace.",
		"Restart with --pids new, or as root, or inside crshim run --container."},
	{PIDRange, unix.EINVAL, "cannot take {the process id}: out of range",
		"The number is not below pid_max of this host.",
		"Raise kernel.pid_max, or restart with --pids new."},
	{GroupFailed, unix.EPERM, "cannot restart {the process}: its process group cannot be made again",
		"A process joins a group of its own session only, and this one was in a group that is now in another.",
		"Restart the tree from its first process, as it was saved."},
	{Identity, unix.EPERM, "cannot take {an identity} of the image: not permitted",
		"The process ran as another user, with other groups or with other capabilities, and the caller may not become that by calls of its own.",
		"Restart it as that user, or as root; or with --ids caller, which leaves it the identity of whoever restarts it."},
	{IdentityUnmapped, unix.EINVAL, "cannot take {an identity} of the image: unknown in this user namespace",
		"The user or group number is not mapped in the caller's user namespace.",
		"Restart it in a user namespace that maps the number, or with --ids caller."},
	{LimitNotPermitted, unix.EPERM, "cannot set {a resource limit} of the image: not permitted",
		"The limit is above the hard limit of the caller, and raising that needs CAP_SYS_RESOURCE.",
		"Raise the hard limit before restart, or restart with CAP_SYS_RESOURCE; or with --limits caller, which leaves the process the limits of whoever restarts it."},
	{TimerState, 0, "cannot make {a timer} of the image",
		"The kernel refuses the caller this timer: RLIMIT_SIGPENDING bounds how many there are, alarm clocks take CAP_WAKE_ALARM, and timers get their numbers again since Linux 6.15.",
		"See the cause at the end of the line."},
	{SchedulingRefused, unix.EPERM, "cannot give {a scheduling policy} of the image: not permitted",
		"A better nice value, a real-time policy or a class of I/O priority above the restarter's takes CAP_SYS_NICE, or RLIMIT_NICE and RLIMIT_RTPRIO; a deadline must fit beside those of others.",
		"Restart it with that right, or with --limits caller, which leaves the process the scheduling of whoever restarts it."},
	{NoSuchCPU, unix.EINVAL, "cannot bind {the process} to its processors: the restarter has none of them",
		"The machine or the cpuset of the control group has none of the processors that the process was bound to.",
		"Restart it in a cpuset that has one of them, or with --limits caller."},
	{OOMScoreRefused, unix.EACCES, "cannot set {an OOM score} of the image: not permitted",
		"Taking a process further out of the reach of the OOM killer than the restarter is takes CAP_SYS_RESOURCE.",
		"Restart it with that right, or with --limits caller."},
	{SignalQueue, unix.EAGAIN, "cannot queue {the signals} of the image",
		"Signals were pending, and RLIMIT_SIGPENDING bounds how many the user of the restarter may have.",
		"Raise the limit (ulimit -i)."},
	{FilterRefused, unix.EPERM, "cannot load {the seccomp filters} of the image: not permitted",
		"The process had seccomp filters of its own. They apply to the calls that rebuild it unless crshim has CAP_SYS_ADMIN and is under no filter itself.",
		"Restart it as root, outside of a container that has a filter."},
	{AttributeRefused, 0, "cannot set {an attribute} of the image",
		"The kernel refuses the restarter a setting of prctl(2) that the process had.",
		"See the cause at the end of the line."},
	{ThreadLimit, unix.EAGAIN, "cannot make the threads of the image in {the caller}",
		"RLIMIT_NPROC, the pids controller of the control group, or the kernel's own limit bounds how many threads there are.",
		"Raise the limit; see ulimit -u and pids.max."},
	{CallerThreads, unix.EBUSY, "cannot restart in {the caller}: it has more than one thread",
		"The caller's memory is replaced, and its other threads would run on in memory that is not theirs.",
		"Call restart before starting threads, or use the crshim restart command."},
	{CallerGone, unix.ESRCH, "cannot restart in {the caller}: it ended while it was being restarted",
		"The process was killed from outside before the restart was complete.",
		"Look for who sent it a signal."},
	{CallerFilter, unix.EOPNOTSUPP, "cannot restart in {the caller}: its own seccomp filter is in the way",
		"The process rebuilds itself by calls that it makes, and its filter refuses one of them.",
		"Call restart before loading the filter, or run crshim as root so that it can suspend filters."},
	{CallerAltStack, unix.EBUSY, "cannot restart in {the caller}: it runs on its alternate signal stack",
		"The kernel does not let a program change the stack that it is running on.",
		"Call restart outside of the signal handler."},
	{CallerTimers, unix.EBUSY, "cannot restart in {the caller}: it has a POSIX timer of a number that the image needs",
		"The timers of the image are made before those of the caller are deleted, under the numbers that the program knows them by.",
		"Delete the timer before restart, or use the crshim restart command."},
	{CommitFailed, unix.EIO, "cannot complete the restart of {the process}: it was killed",
		"The old process had already been taken down when a step failed, so that there was nothing to return to.",
		"Report the cause at the end of the line; everything that is known to fail is checked before this point."},
	{StageMemory, unix.ENOMEM, "cannot stage {the image}: not enough memory",
		"The whole image is built beside the caller before the caller is replaced, so that both need memory for a moment.",
		"Free memory, or raise the limit of the cgroup or RLIMIT_AS."},
	{StageRoom, unix.ENOMEM, "cannot stage {the image}: no free address range",
		"There is no range that is free both in the caller and in the image and large enough.",
		"Restart from a small program, as the crshim restart command does."},
	{StageFailed, 0, "cannot stage {the image}",
		"A call that the caller made to rebuild the process failed. Nothing was replaced.",
		"See the cause at the end of the line."},
	{SegmentInUse, unix.EBUSY, "cannot attach {System V shared memory}: other processes use it",
		"The segment of the image is still there, and somebody has attached it: it would get its old contents under their hands.",
		"End those processes first; ipcs -mp names the last one."},
	{SegmentFailed, 0, "cannot make or attach {System V shared memory}",
		"The segment of the image is gone, and the caller could not make it anew; or it is there and the caller may not attach it.",
		"See the cause at the end of the line. If another segment has its key, remove that with ipcrm."},
	{PoolEmpty, unix.ENOMEM, "cannot stage {the image}: the huge page pool has not enough pages",
		"The process had memory of MAP_HUGETLB or MFD_HUGETLB, and the pool of this machine, or the share of it that the control group allows, has fewer free pages of that size.",
		"Raise vm.nr_hugepages; see HugePages_Free in /proc/meminfo."},
	{ControlFailed, 0, "cannot make {a terminal} the controlling terminal of its session",
		"The leader of the session takes the terminal, and puts the process group of the image into its foreground; a call for that has failed.",
		"See the cause at the end of the line; the image may be damaged."},
	{CallerMemory, unix.EBUSY, "cannot restart in {the caller}: it has asked for what the image does not have",
		"Once asked for, it holds for all memory of the process until its end, and cannot be taken back without a trace.",
		"Call restart from a process that was started freshly, or use crshim restart, which makes one."},
	{MemoryPolicy, unix.ENOEXEC, "cannot set the memory policy of {a thread or mapping}",
		"The program has said from which NUMA nodes its memory is to come, and this machine or the cpuset of the caller lacks them.",
		"Restart where /sys/devices/system/node and Mems_allowed in /proc/PID/status have the same nodes."},
	{CallerSealed, unix.EBUSY, "cannot restart in {the caller}: it has sealed memory",
		"What mseal has sealed cannot be unmapped as long as the process lives, so it cannot become another one.",
		"Call restart from another process, or use crshim restart, which makes one."},
	{ProtectionKeys, unix.ENOEXEC, "cannot have the protection keys of the image in {the caller}",
		"The program knows its keys by their numbers, and the caller could not allocate them: this processor has none, or the caller's own execute-only memory has taken one of them.",
		"Restart on a machine whose /proc/cpuinfo shows pku, from a process that was started freshly."},
}
