package fault

import "golang.org/x/sys/unix"

// 1200: descriptors cannot be saved.
const (
	Pipe            Code = 1201
	Socket          Code = 1202
	IOUring         Code = 1203
	Epoll           Code = 1204
	Eventfd         Code = 1205
	Timerfd         Code = 1206
	Signalfd        Code = 1207
	Inotify         Code = 1208
	Fanotify        Code = 1209
	Pidfd           Code = 1210
	Userfaultfd     Code = 1211
	PerfEvent       Code = 1212
	BPF             Code = 1213
	Terminal        Code = 1214
	Device          Code = 1215
	FileUnlinked    Code = 1216
	FileUnreachable Code = 1217
	FileLocked      Code = 1218
	Memfd           Code = 1219
	PathDescriptor  Code = 1220
	AnonInode       Code = 1221
	TableShared     Code = 1222
	Fifo            Code = 1223
	FileOwner       Code = 1224
	Namespace       Code = 1225
	ProcFile        Code = 1226
	FileKind        Code = 1227
	FileShared      Code = 1228
	DmaBuf          Code = 1230
	InotifyEvents   Code = 1253
	SeccompListener Code = 1254
	Landlock        Code = 1255
	SecretMemory    Code = 1256
	Pty             Code = 1257
	PtySession      Code = 1258
	ControlOutside  Code = 1247
)

var descriptors = []Entry{
	{Pipe, unix.EBADF, "cannot save {a descriptor}: pipe to another process",
		"Another process has an end of it and knows nothing of the checkpoint. Only as standard input, output or error can a pipe that leads outside be replaced, by that of whoever restarts the program, without being told so.",
		"Have the other process close its end, or the program its own; or save it with --external, and say what takes its place with crshim restart --fd."},
	{Socket, unix.EBADF, "cannot save {a descriptor}: socket",
		"A connection has a second end that knows nothing of the checkpoint; sockets are not saved yet.",
		"Have the program close its sockets first and open them again afterwards. As standard input, output or error a socket is inherited anew."},
	{IOUring, unix.EOPNOTSUPP, "cannot save {a descriptor}: io_uring instance",
		"The rings and the requests in flight belong to the kernel, which has no way to put them back.",
		"Use the program's fallback without io_uring, or set kernel.io_uring_disabled=2 before it starts."},
	{Epoll, unix.EOPNOTSUPP, "cannot save {a descriptor}: epoll instance that watches a closed descriptor",
		"The file is still open under another number, but epoll knows it by the number that was closed, under which it cannot be added again.",
		"Have the program take it out of the set before it closes the number."},
	{Eventfd, unix.EOPNOTSUPP, "cannot save {a descriptor}: eventfd counter",
		"The kernel does not tell whether it counts as a semaphore, as Linux does since 6.5.",
		"Use a newer kernel, or have the program close it first."},
	{Timerfd, unix.EOPNOTSUPP, "cannot save {a descriptor}: timerfd",
		"The kernel does not tell how the timer is set.",
		"Use a kernel with CONFIG_PROC_FS and fdinfo as of Linux 3.17, or have the program close it first."},
	{Signalfd, unix.EOPNOTSUPP, "cannot save {a descriptor}: signalfd",
		"The kernel does not tell the set of signals.",
		"Have the program close it first."},
	{Inotify, unix.EOPNOTSUPP, "cannot save {a descriptor}: inotify instance that watches a file whose name is not known",
		"The kernel tells what is watched by inode only. Finding the name takes CAP_DAC_READ_SEARCH, or luck: it is looked for in the directories that the program has to do with. A deleted file has none.",
		"Save the program as root, or start it in a directory above what it watches."},
	{InotifyEvents, unix.EOPNOTSUPP, "cannot save {a descriptor}: inotify instance with events that have not been read",
		"Events cannot be put back into the queue, and the program would miss them.",
		"Try again when the program has read them."},
	{Fanotify, unix.EOPNOTSUPP, "cannot save {a descriptor}: fanotify group",
		"The marks and the events in the queue cannot be read back from the kernel.",
		"Have the program close it first and mark anew afterwards."},
	{Pidfd, unix.EOPNOTSUPP, "cannot save {a descriptor}: pidfd of another process",
		"The process that it refers to is not in the image, and may not exist after restart.",
		"Have the program close it first, or save it when that process has ended."},
	{Userfaultfd, unix.EOPNOTSUPP, "cannot save {a descriptor}: userfaultfd",
		"Page faults that wait to be served are known only to the kernel and the server.",
		"Have the program close it first."},
	{PerfEvent, unix.EOPNOTSUPP, "cannot save {a descriptor}: perf event",
		"A performance counter cannot be set back to the value that it had.",
		"Stop the measurement first."},
	{BPF, unix.EOPNOTSUPP, "cannot save {a descriptor}: BPF object",
		"Programs, maps and links of BPF live in the kernel and are shared beyond the process.",
		"Have the program close it first and load it anew afterwards."},
	{Terminal, unix.EBADF, "cannot save {a descriptor}: terminal",
		"A terminal is inherited as standard input, output or error, never reopened by name; this one is neither.",
		"Have the program use its standard descriptors, or redirect it to a file; or save it with --external, and say what takes its place with crshim restart --fd."},
	{Device, unix.EBADF, "cannot save {a descriptor}: device",
		"What a driver remembers about an open device cannot be read back. Only null, zero, full, random and urandom have nothing to remember.",
		"Have the program close the device first; or save it with --external, and have it opened anew with crshim restart --fd."},
	{FileUnlinked, unix.EBADF, "cannot save {a descriptor}: deleted, and not a file that can be carried in the image",
		"A deleted file is saved with its contents if it is the program's alone. This one has another name, extended attributes or contents that the program may not read, or it is a directory.",
		"Keep it under its name while the program has it open, or remove its other names."},
	{FileUnreachable, unix.EBADF, "cannot save {a descriptor}: its name no longer leads to it",
		"Another file has taken the name, a mount hides it, or it lies outside the root directory of the program.",
		"Put the file back under that name, or undo the mount."},
	{FileLocked, unix.EOPNOTSUPP, "cannot save {a descriptor}: a lock or lease that cannot be taken again",
		"Somebody waits for the lease to be given up, or the open file has locks of the process (F_SETLK) and of its own (F_OFD_SETLK) at once.",
		"Try again, or have the program release it first."},
	{Memfd, unix.EOPNOTSUPP, "cannot save {a descriptor}: file made by memfd_create that is not the program's alone",
		"Another process has the file open or mapped, or it is of huge pages, or cannot be read.",
		"Use a file with a name, for example in /dev/shm, or have the other process close it."},
	{PathDescriptor, unix.EOPNOTSUPP, "cannot save {a descriptor}: opened with O_PATH to what is neither file nor directory",
		"An O_PATH descriptor names a place in the file system; this one names a link, socket or device.",
		"Have the program close it first."},
	{AnonInode, unix.EOPNOTSUPP, "cannot save {a descriptor}: kernel object of unknown kind",
		"The descriptor belongs to a kernel facility that is not known here.",
		"Have the program close it first, and report its link in /proc/PID/fd."},
	{TableShared, unix.EOPNOTSUPP, "cannot save {a descriptor table}: shared with another process",
		"Two processes that were cloned with CLONE_FILES use one table, and one that is made again gets it of its parent alone. The other one is outside of the tree, or not the parent; or it is a thread that has left the table of its process.",
		"Save the tree that holds both; do not have the parent leave the table (unshare) that its children have in common."},
	{Fifo, unix.EBADF, "cannot save {a descriptor}: named pipe to another process",
		"Another process has it open and knows nothing of the checkpoint.",
		"Have the other process close it, or the program itself; or save it with --external, and say what takes its place with crshim restart --fd."},
	{FileOwner, unix.EOPNOTSUPP, "cannot save {a descriptor}: asks for signals about input and output",
		"The signals go to another process, or to a thread that is not the first, as set by F_SETOWN; who that is after a restart nobody can say.",
		"Have the program make itself the owner, or nobody."},
	{Namespace, unix.EOPNOTSUPP, "cannot save {a descriptor}: namespace",
		"A descriptor of a namespace refers to what may not exist after restart.",
		"Have the program close it first."},
	{ProcFile, unix.EOPNOTSUPP, "cannot save {a descriptor}: file of /proc about a process",
		"The file describes a process by a number that may belong to another one after restart.",
		"Have the program close it first and open it anew afterwards."},
	{FileKind, unix.EBADF, "cannot save {a descriptor}: neither a regular file nor a directory",
		"The 2009 format knows these two kinds alone, and this one has no record of its own.",
		"Have the program close it first."},
	{FileShared, unix.EOPNOTSUPP, "cannot save {a descriptor}: open file shared with another process",
		"What one does to it the other sees: an offset, a counter, a queue. After restart each would have its own.",
		"Have one of the two close it, or open it separately."},
	{DmaBuf, unix.EOPNOTSUPP, "cannot save {a descriptor}: buffer shared with a device",
		"The buffer belongs to a driver, which has no way to put it back.",
		"Have the program close the device first."},
	{SeccompListener, unix.EOPNOTSUPP, "cannot save {a descriptor}: listener of a seccomp filter",
		"It answers for processes that run under the filter, and the kernel gives out no second listener for it.",
		"End those processes and have the program close it first."},
	{Landlock, unix.EOPNOTSUPP, "cannot save {a descriptor}: Landlock ruleset",
		"The kernel does not tell the rules that have been put into it.",
		"Have the program close it first, as it can once it has applied the rules."},
	{SecretMemory, unix.EOPNOTSUPP, "cannot save {a descriptor}: file made by memfd_secret",
		"Its memory is hidden from everybody but the program, and an image is for others to read.",
		"Have the program unmap and close it first, or start it without: it usually has a fallback."},
	{Pty, unix.EBADF, "cannot save {a descriptor}: pseudo terminal",
		"Both sides have to be in the process alone and at rest; what has been typed and printed is then saved with it.",
		"See the cause in parentheses: have whoever else holds it close it, or read what is there; or save it with --external."},
	{PtySession, unix.EBADF, "cannot save {a descriptor}: pseudo terminal that is a controlling terminal",
		"It is that of the first process, which is part of the session of whoever restarts it, or of a session whose leader is not saved along.",
		"Save the tree from further up; have the program open it with O_NOCTTY, or save it with --external."},
	{ControlOutside, unix.EOPNOTSUPP, "cannot save {the process}: its controlling terminal is not in the tree",
		"Only the first process and its session get the terminal of whoever restarts them. A further session has one that comes with the tree, if whoever has its master is saved along.",
		"Save the tree from further up, so that it holds the terminal's other side; or with --external, and the session comes back without a terminal."},
}
