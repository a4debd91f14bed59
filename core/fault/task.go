package fault

import "golang.org/x/sys/unix"

// 1000: a process cannot be saved.
const (
	NoSuchProcess     Code = 1001
	NotPermitted      Code = 1002
	TracedByOther     Code = 1003
	DidNotStop        Code = 1004
	OtherArchitecture Code = 1005
	KernelThread      Code = 1006
	Zombie            Code = 1007
	OwnSeccompFilter  Code = 1008
	NestedNamespace   Code = 1009
	Vanished          Code = 1012
	ShadowStack       Code = 1013
	ProcUnreadable    Code = 1014
	TracesOthers      Code = 1015
	LeaderEnded       Code = 1016
	MemoryTasks       Code = 1017
	TreeFiles         Code = 1018
	SessionEnded      Code = 1019
	OtherNamespaces   Code = 1020
	TreeChanging      Code = 1021
	TooManyTasks      Code = 1022
	InVfork           Code = 1023
	ThreadNamespaces  Code = 1024
	ChildNamespaces   Code = 1025
	OwnTree           Code = 1027
	NestedPlace       Code = 1028
)

var tasks = []Entry{
	{NoSuchProcess, unix.ESRCH, "cannot save {the process}: no such process",
		"No process of that number exists in the pid namespace of the caller, or it has already ended. Zero and negative numbers name no process either.",
		"Look the number up with ps, in the same container as the caller."},
	{NotPermitted, unix.EPERM, "cannot save {the process}: not permitted",
		"Saving a process reads all of its memory, so the kernel must allow the caller to trace it: same user and dumpable, or CAP_SYS_PTRACE; the Yama security module may ask for more.",
		"Run as the user that owns the process or as root; see kernel.yama.ptrace_scope; a program that changed its user or cleared PR_SET_DUMPABLE is closed to its own user."},
	{TracedByOther, unix.EBUSY, "cannot save {the process}: another program traces it",
		"A process has one tracer at a time, and a debugger or strace is attached already.",
		"Detach the other tracer; its number is in TracerPid of /proc/PID/status."},
	{DidNotStop, unix.EBUSY, "cannot save {the process}: it did not stop in time",
		"A process stops only when it leaves an uninterruptible wait (state D), such as one on a dead network file system.",
		"Wait until it leaves that state and save it again; nothing was changed."},
	{OtherArchitecture, unix.EOPNOTSUPP, "cannot save {the process}: it runs code of another architecture",
		"Only x86-64 programs are saved. A 32-bit (i386) or x32 program has another register and memory layout.",
		"Use an x86-64 build of the program."},
	{KernelThread, unix.EOPNOTSUPP, "cannot save {the process}: it is a kernel thread",
		"A kernel thread has no memory and no program of its own.",
		"Name the number of a user process."},
	{Zombie, unix.EAGAIN, "cannot save {the process}: it has ended and waits to be reaped",
		"Of a process that has exited only the exit status is left, until its parent collects it.",
		"Let the parent wait for it, then save the tree again."},
	{OwnSeccompFilter, unix.EOPNOTSUPP, "cannot save {the process}: it has a seccomp filter of its own",
		"Filters can be read, and kept from hindering the calls that save the process, only by a crshim that has CAP_SYS_ADMIN over the machine and is under no filter itself. Without them the process would come back outside of its sandbox.",
		"Save it as root, outside of a container; or start the program without its sandbox."},
	{NestedNamespace, unix.EINVAL, "cannot save {the process}: it belongs to a nested pid namespace and is not its first process",
		"A container is saved whole, from its first process; a part of one has links to the rest that would be lost.",
		"Name the first process of that container."},
	{Vanished, unix.ESRCH, "cannot save {the process}: it ended while it was being saved",
		"The process exited or was killed after it had been found.",
		"Look in its own log for why it ended; the image is not complete."},
	{ShadowStack, unix.EOPNOTSUPP, "cannot save {the process}: it uses a shadow stack",
		"The shadow stack of user-mode CET can be written only by the kernel and is not saved yet.",
		"Start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off."},
	{ProcUnreadable, 0, "cannot save {the process}: its state cannot be read",
		"The kernel refused to show part of the process in /proc, or showed it in a form that is not known.",
		"See the cause at the end of the line; /proc must be mounted, without hidepid, for the pid namespace of the process."},
	{TracesOthers, unix.EOPNOTSUPP, "cannot save {the process}: it traces another process",
		"A task has one tracer at a time, so what a debugger holds can be saved only if that lets go; and nothing tells with which options it holds it, so that a restart could not make the same of it (docs/decisions/017).",
		"Detach (detach in gdb, Ctrl-C for strace -p), save, and attach again. Or save only the processes that are not debugged."},
	{LeaderEnded, unix.EOPNOTSUPP, "cannot save {the process}: its first thread has ended",
		"The other threads run on under the number of a thread that is no more (pthread_exit in main), and no new process can be brought into that state.",
		"Have the main thread wait for the others instead of ending."},
	{MemoryTasks, unix.EOPNOTSUPP, "cannot save {the process}: it has its memory together with another process",
		"Processes that share one address space without being threads (CLONE_VM) are saved if each has it together with its parent or a sibling, has one thread and no seccomp filter, and the first of them is in the tree.",
		"Name the process from which all of them descend; it must have the memory as well."},
	{TreeFiles, unix.EMFILE, "cannot save {the process}: it has no room for the open files of the tree",
		"For the time of a checkpoint the first process of a tree holds what the others share, and its limit on open files (RLIMIT_NOFILE) is too low for that.",
		"Raise the limit of the first process, with prlimit --nofile."},
	{SessionEnded, unix.EOPNOTSUPP, "cannot save {the process}: its session cannot be made again",
		"A process inherits its session or leads it. That of this process is led by somebody outside of the tree; or its leader, who has to make it again, has another parent than the process has.",
		"Save the tree from a process further up, or let such daemons lead sessions of their own."},
	{OtherNamespaces, unix.EPERM, "cannot save {the process}: it lives in other namespaces than the rest of the tree",
		"A process has its namespaces of its parent, but for pid, mount, UTS and IPC namespaces that it has opened. Those come back unless there are IPC objects in them, or files that others share who cannot name them; nobody can be put into one from outside again (nsenter).",
		"Save a container on its own, from its first process; end what has entered it."},
	{TreeChanging, unix.EBUSY, "cannot save {the process}: its tree keeps changing",
		"Processes were started faster than they could be stopped.",
		"Freeze the tree by its cgroup first, or save it at a quieter time."},
	{TooManyTasks, unix.EOPNOTSUPP, "cannot save {the process}: its tree is too large",
		"The number of processes exceeds what one image holds.",
		"Save parts of the tree one by one."},
	{InVfork, unix.EBUSY, "cannot save {the process}: it waits in vfork",
		"A process that has called vfork, or posix_spawn, cannot be stopped before its child executes a program or ends. It is waited for, but this child does not come so far: it is stopped itself, or waits for something.",
		"Continue the child (kill -CONT), or end it, and save again; nothing was changed."},
	{ThreadNamespaces, unix.EOPNOTSUPP, "cannot save {a thread}: it is in other namespaces than its process",
		"A thread may leave a namespace by itself (unshare, setns). A restart makes all threads in the namespaces of the process.",
		"Have the thread go back, or end, before the process is saved; programs often enter another namespace for a moment only."},
	{ChildNamespaces, unix.EOPNOTSUPP, "cannot save {the process}: its children are to be in another namespace",
		"The process has called unshare or setns for a pid or time namespace, in which only its children will be. A restart cannot make that again.",
		"Save it before it does so; or from the first process of that namespace, as a container."},
	{OwnTree, unix.EDEADLK, "cannot save {the process}: crshim itself is among its processes",
		"All processes of a tree stand still while they are saved, and crshim, which saves them, descends from this one.",
		"Run crshim from another shell, or have a program below crshim run make the call: its supervisor is outside of the tree of its command."},
	{NestedPlace, unix.EOPNOTSUPP, "cannot save {the process}: what it has of outside of its pid namespace cannot be given to it again",
		"A process in a pid namespace within that of the tree has no number for a process group of outside: it can only be born in it, of a parent that is in it. The first process of such a namespace can only be stopped from outside of it.",
		"Let it lead a process group or a session of its own (setsid(1)); continue what is stopped."},
}
