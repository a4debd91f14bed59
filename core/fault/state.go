package fault

import "golang.org/x/sys/unix"

// 1300: signals and timers cannot be saved; 1400: identity and limits.
const (
	PendingSignals  Code = 1301
	PosixTimers     Code = 1302
	IntervalTimers  Code = 1303
	AltStackInUse   Code = 1304
	AsyncIO         Code = 1305
	RestartBlock    Code = 1306
	ParentSignal    Code = 1307
	HandlersShared  Code = 1308
	Capabilities    Code = 1401
	SecurityLabel   Code = 1402
	KeyRing         Code = 1403
	SyscallDispatch Code = 1412
	SemaphoreUndo   Code = 1404
	Scheduling      Code = 1405
	DirectoryGone   Code = 1406
	RootUnreachable Code = 1407
	ExeUnreachable  Code = 1408
	FSShared        Code = 1409
	TooManyGroups   Code = 1410
	IDsUnknown      Code = 1411
	FilterLost      Code = 1413
	TargetMemory    Code = 1414
	IOFlusher       Code = 1415
	SemaphoresApart Code = 1416
)

var state = []Entry{
	{PendingSignals, unix.EOPNOTSUPP, "cannot save {the process}: signals are pending",
		"Signals that have been sent and not yet delivered would be lost.",
		"Let the program unblock and handle them, then save it again."},
	{PosixTimers, unix.EOPNOTSUPP, "cannot save {the process}: it has a POSIX timer that cannot be made again",
		"It runs on the CPU clock of another process or thread, or tells another thread; or the kernel, before Linux 6.15, has no way to give it its number again.",
		"Have the program delete the timer first."},
	{IntervalTimers, unix.EOPNOTSUPP, "cannot save {the process}: an interval timer is running",
		"Timers of setitimer and alarm are not saved yet.",
		"Have the program stop the timer first."},
	{AltStackInUse, unix.EOPNOTSUPP, "cannot save {the process}: it runs on its alternate signal stack",
		"The stack cannot be declared again while the program stands on it.",
		"Save it when it has left the signal handler."},
	{AsyncIO, unix.EOPNOTSUPP, "cannot save {the process}: it has an asynchronous I/O context",
		"Contexts of io_setup and the requests in flight belong to the kernel.",
		"Have the program destroy the context first."},
	{RestartBlock, unix.EOPNOTSUPP, "cannot save {the process}: it waits in a call that cannot be resumed",
		"The kernel holds the rest of an interrupted call in a form that cannot be read.",
		"Save it when it has left that call."},
	{ParentSignal, unix.EOPNOTSUPP, "cannot save {the process}: its parent-death signal cannot be kept",
		"The signal belongs to a parent that is not part of the image.",
		"Have the program clear PR_SET_PDEATHSIG first."},
	{HandlersShared, unix.EOPNOTSUPP, "cannot save {the process}: signal handlers shared with another process",
		"Two processes that were cloned with CLONE_SIGHAND use one table; after restart each would have its own.",
		"Save the tree that holds both."},
	{Capabilities, unix.EOPNOTSUPP, "cannot save {the process}: capabilities that cannot be had again",
		"The process holds a set of capabilities or securebits that no sequence of calls gives back.",
		"Have the program drop them, or save it before it changes them."},
	{SecurityLabel, unix.EOPNOTSUPP, "cannot save {the process}: its security label differs from that of the caller",
		"A label of SELinux or AppArmor is decided by policy at exec and cannot be carried over.",
		"Run both under the same profile."},
	{KeyRing, unix.EOPNOTSUPP, "cannot save {the process}: it has a key ring of its own",
		"Keys are held by the kernel so that they cannot be read back.",
		"Have the program join the user's session key ring."},
	{SyscallDispatch, unix.EOPNOTSUPP, "cannot save {the process}: its system calls are dispatched to a handler of its own",
		"With PR_SET_SYSCALL_USER_DISPATCH the kernel makes calls only from one range of code, and not those that save the process. Emulators such as Wine use it.",
		"Have the program switch it off first."},
	{SemaphoresApart, unix.EOPNOTSUPP, "cannot save {the process}: its System V semaphore adjustments are not those of the process alone",
		"What SEM_UNDO gives back is noted for all threads of a process together. Here a thread has left that by unshare(2), or another process has it, too, by clone(2) with CLONE_SYSVSEM.",
		"Have the program do without one of them."},
	{SemaphoreUndo, unix.EOPNOTSUPP, "cannot save {the process}: its System V semaphore adjustments cannot be found out",
		"The amounts of SEM_UNDO are found by operations that the process tries. It must be allowed to read and alter each set that was used since it was started.",
		"Have the program release its semaphores first, or give it back the permission."},
	{Scheduling, unix.EOPNOTSUPP, "cannot save {the process}: a scheduling policy of unknown kind",
		"The policy is not one that sched_setattr of this version can give back.",
		"Set an ordinary policy first, with chrt --other."},
	{DirectoryGone, unix.EBADF, "cannot save {the process}: its working directory cannot be reached by its name",
		"The directory was deleted, or lies outside the root directory of the program.",
		"Have the program change to a directory that exists."},
	{RootUnreachable, unix.EBADF, "cannot save {the process}: its root directory cannot be reached by its name",
		"The directory was deleted, or lies outside what the caller can see.",
		"Save it from the outside of its chroot, where the directory has a name."},
	{ExeUnreachable, unix.EBADF, "cannot save {the process}: its program file cannot be reached by its name",
		"The file was deleted or replaced, as by an upgrade, or lies outside the root directory of the program.",
		"Restart the program from the present file, then save it."},
	{FSShared, unix.EOPNOTSUPP, "cannot save {the process}: working directory shared with another process",
		"Two processes that were cloned with CLONE_FS change directory together, and one that is made again gets that of its parent alone. The other one is outside of the tree, or not the parent; or it is a thread that has left the directories of its process.",
		"Save the tree that holds both; do not have the parent leave the directories (unshare) that its children have in common."},
	{TooManyGroups, unix.EOPNOTSUPP, "cannot save {the process}: it has more supplementary groups than a record holds",
		"The kernel allows 65536 supplementary groups, and a record of the format holds 8000.",
		"Start the program with fewer groups."},
	{IDsUnknown, unix.EOPNOTSUPP, "cannot save {the process}: one of its ids has no number in its user namespace",
		"A process may have a group from before it entered its user namespace, for which that has no number. Nobody can give it back.",
		"Map the group in the user namespace, or start the program without it."},
	{FilterLost, unix.EOPNOTSUPP, "cannot save {the process}: a seccomp filter that cannot be loaded again",
		"A filter may leave the decision to whoever holds its listener, and that link is lost; and one that was not given as classic BPF, or a chain of very many instructions, cannot be given back.",
		"Start the program without that filter."},
	{TargetMemory, unix.ENOMEM, "cannot save {the process}: it has no memory for the calls that save it",
		"It makes these calls itself and needs about a megabyte of address space for them. Its address space is at its limit (RLIMIT_AS), it has as many mappings as it may (vm.max_map_count), or the machine has no memory left.",
		"Raise the limit for the time of the checkpoint, as with prlimit --as=unlimited: --pid PID; nothing was changed."},
	{IOFlusher, unix.EOPNOTSUPP, "cannot save {the process}: it serves the memory management of the kernel (PR_SET_IO_FLUSHER)",
		"A process that block devices or file systems of this machine depend on cannot stand still, and what depends on it would not come back with it.",
		"Unmount what it serves and end it in its own way."},
}

// 1500: the image cannot be written.
const (
	ImageWrite       Code = 1501
	ImageTerminal    Code = 1502
	ImageNotWritable Code = 1503
	ImageTooLong     Code = 1504
)

var output = []Entry{
	{ImageWrite, 0, "cannot write {the image}",
		"Writing to the descriptor failed: the disk may be full, or the reader of the pipe may have gone.",
		"See the cause at the end of the line; what was written so far is not a whole image."},
	{ImageTerminal, unix.EINVAL, "cannot write {the image}: the descriptor is a terminal",
		"An image is binary and holds everything that the program knows, its secrets too.",
		"Send it to a file or a pipe."},
	{ImageNotWritable, unix.EBADF, "cannot write {the image}: the descriptor is not open for writing",
		"The descriptor was opened read-only, or with O_PATH.",
		"Open it for writing."},
	{ImageTooLong, unix.EOPNOTSUPP, "cannot write {the image}: a value is too long for its record",
		"A record of the format holds at most 32767 bytes.",
		"See the cause at the end of the line for which value it is."},
}
