package core

import "github.com/crshim/crshim/core/resource"

// Relation is a row of the support table: what binds the processes of a tree.
type Relation struct {
	Name    string
	Support resource.Support
	Note    string
}

// Relations is what comes back of a tree beside its processes themselves.
var Relations = []Relation{
	{"parents and children", resource.Full,
		"Any depth and number, with the signal that tells of their end. Who calls checkpoint() for itself is saved alone."},
	{"process ids", resource.Partial,
		"All as they were, or, where one is taken or may not be chosen, all new: see --pids. restart() keeps its caller's id."},
	{"tasks of a restarter's own making", resource.Partial,
		"As in 2009: each calls restart() with the process id of the first (samples/mktree.c). They keep their parents, sessions and ids. " +
			"Refused: memory without a name that is shared, if the restarter lacks CAP_CHECKPOINT_RESTORE; huge pages that are shared; " +
			"CLONE_FILES and CLONE_FS; sessions that are not there, or that have a terminal of the tree."},
	{"process groups", resource.Partial,
		"Also those whose leaders have ended. The group of the first process is the restarter's, and so is that of who shared it; " +
			"with `crshim restart` on a terminal it is one of its own again, in the foreground, as an interactive shell needs it."},
	{"sessions", resource.Partial,
		"The first process is in the restarter's session, as are those that shared its own. Others are led again by who led them, or " +
			"by nobody where the leader has ended (daemons). Refused: a session whose leader lives outside of the tree, and one into which " +
			"processes with different parents have come."},
	{"zombies", resource.Partial,
		"Number, name, group or session that they led, status. What they used of the processor, their user and whether they dumped core is not kept."},
	{"stopped processes", resource.Full,
		"All but the first are stopped again, and their parents are told of it once more."},
	{"shared open files, pipes, sockets, terminals", resource.Full,
		"What several processes hold is in the image once, and is one again."},
	{"shared and copied memory", resource.Partial,
		"Shared memory is one again, and pages that are the same since a fork are in the image once. Also memory that a parent " +
			"has dropped and its children share. Refused of that: huge pages of the pool."},
	{"what clone(2) shares beside", resource.Partial,
		"A descriptor table (CLONE_FILES), and working directory, root and umask (CLONE_FS), that a process has together with its parent, or with a " +
			"sibling if the parent has left it or has ended. So are memory (CLONE_VM) and signal handlers (CLONE_SIGHAND), but for sharers " +
			"with threads or seccomp filters. Refused: where somebody without it is between those who have it. " +
			"CLONE_IO and CLONE_SYSVSEM are not kept: priorities of input and output set later are each one's own, and so are adjustments of semaphores. The child of a vfork is waited for, " +
			"until it has executed its program or ended."},
	{"namespaces", resource.Partial,
		"Pid namespaces within that of the first process, to any depth, are made again with all numbers in them, by the parents of their first " +
			"processes (CAP_SYS_ADMIN), and so is that the children of a process are to be in one. A mount, UTS or IPC namespace that a process has " +
			"opened for itself and its descendants is opened again: with proc, empty tmpfs and bind mounts in place, host and domain name, and the " +
			"limits of IPC. Refused: what else is mounted, or no longer; IPC objects; other network, user, control group or time namespaces; who was " +
			"put into a namespace from outside (nsenter). Containers are saved whole: docs/containers.md."},
	{"network of a container", resource.Partial,
		"veth pairs, dummy interfaces, addresses, routes, the usual settings. Refused: other interfaces, policy routing, permanent neighbours, netfilter rules. " +
			"Queueing disciplines and other settings are not looked at."},
	{"IPC objects of a container", resource.Partial,
		"System V shared memory, semaphores, message queues and POSIX message queues with what is in them, and the limits of the namespace. " +
			"Makers, times and last users of the objects are lost; huge pages and mq_notify(3) are refused."},
	{"tracers", resource.Refused,
		"A process of the tree that is traced, or that traces another one, wherever that is, is refused (docs/decisions/017); so is the tree that crshim itself is in."},
}
