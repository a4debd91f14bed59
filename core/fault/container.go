package fault

import "golang.org/x/sys/unix"

// 3100: a container cannot be made, found or frozen.
const (
	NamespacesForbidden Code = 3101
	NamespaceLimit      Code = 3102
	NamespaceMissing    Code = 3103
	ContainerMount      Code = 3104
	ContainerProc       Code = 3105
	ContainerRoot       Code = 3106
	ContainerSetup      Code = 3107
	ContainerLost       Code = 3108
	NameTaken           Code = 3109
	NoSuchContainer     Code = 3110
	RuntimeDirectory    Code = 3111
	CannotFreeze        Code = 3112
	NotFirst            Code = 3113
	ContainerNet        Code = 3114
	ContainerMounts     Code = 3115
	ContainerIPC        Code = 3116
	NoContainerHere     Code = 3118
	ContainerContents   Code = 3119
	MountPlace          Code = 3120
	ContainerUnpack     Code = 3121
	IPCFailed           Code = 3125
	Mqueue              Code = 3126
	NetFailed           Code = 3127
	IPCMissing          Code = 3128
	NestedMake          Code = 3129
	SemaphoresTaken     Code = 3134
)

var containers = []Entry{
	{NamespacesForbidden, unix.EPERM, "cannot make {the container}: namespaces are not permitted",
		"New namespaces take CAP_SYS_ADMIN, or a user namespace, which this host does not grant to every user.",
		"As root: sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0, whichever is there; " +
			"inside another container, a profile that allows clone3 with CLONE_NEWUSER."},
	{NamespaceLimit, unix.ENOSPC, "cannot make {the container}: there are too many namespaces",
		"The host limits how many namespaces of a kind a user may have, and how deep they may be nested.",
		"End other containers, or raise the limit as root: sysctl user.max_user_namespaces, user.max_pid_namespaces and the like."},
	{NamespaceMissing, unix.EINVAL, "cannot make {the container}: the kernel lacks a namespace that was asked for",
		"The kernel was built without CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_CGROUPS or CONFIG_TIME_NS.",
		"Use a kernel built with them, as those of the distributions are, or leave out the flag that asks for it."},
	{ContainerMount, 0, "cannot mount {a directory of the container}",
		"The directories of a container are mounted with the rights of its user, before the command starts.",
		"See the cause at the end of the line. The place of a bind mount must be there; CAP_SYS_ADMIN may be missing where a " +
			"security module restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns)."},
	{ContainerProc, unix.EPERM, "cannot mount {/proc}: the kernel does not permit it",
		"In a user namespace /proc can be mounted only where all of it can be seen already. Another container around this one hides parts of it.",
		"Start crshim outside of the other container, or that one with its /proc unmasked."},
	{ContainerRoot, 0, "cannot use {the directory} as the root of a container",
		"The root needs the directories proc and dev, on which those of the container are mounted.",
		"Make them: mkdir DIR/proc DIR/dev."},
	{ContainerSetup, 0, "cannot make {the container}",
		"A step of setting up the container has failed.",
		"See the cause at the end of the line. The exit status is 125."},
	{ContainerLost, unix.ENOSYS, "cannot go on with {the container}: its supervisor has ended",
		"The process that answers the calls was killed. A container ends with it.",
		"Start it anew; look in the log of the host for why the supervisor was killed."},
	{NameTaken, unix.EEXIST, "cannot start {the container}: one of that name is running",
		"Names of containers are unique for each user.",
		"Choose another --name; crshim ps lists those that are taken."},
	{NoSuchContainer, unix.ESRCH, "cannot find {the container}: no container of that name is running",
		"The argument is neither a process id nor the name of a container that this user has started.",
		"crshim ps lists the containers."},
	{RuntimeDirectory, 0, "cannot use {the runtime directory}",
		"Running containers are registered in $XDG_RUNTIME_DIR/crshim; without that variable, for root in /run/crshim and for others in /tmp/crshim-UID.",
		"Set XDG_RUNTIME_DIR to a directory of your own that nobody else may write to."},
	{CannotFreeze, 0, "cannot freeze {the process}",
		"Neither a control group of its own could be had for it nor could all of its processes be stopped by a signal.",
		"See the cause at the end of the line. Freeze as the user that owns the processes, or as root."},
	{NotFirst, unix.EINVAL, "cannot restore {the first process of a pid namespace} among other processes",
		"It was process 1 of its pid namespace, and it and those below it may rest on that. They can come back only as that of a new one.",
		"An image of a container of crshim, saved from outside by its first process, says how to make it anew: crshim restart. For others, " +
			"have the first process of a new pid namespace call restart(2) itself."},
	{ContainerNet, unix.EINVAL, "cannot save {the network of the container}",
		"Of a network namespace an image keeps lo, veth pairs and dummy interfaces, addresses, routes and the usual settings, and nothing else.",
		"Remove what the detail names, or use crshim run --container --net host."},
	{ContainerMounts, unix.EINVAL, "cannot save {the mount}",
		"Kept are tmpfs with what is in it, /proc, /dev/pts, message queues, sysfs and bind mounts, if they are private. Other file systems that were mounted in the container, " +
			"and a tmpfs that another mount covers or of which only a part is mounted, are not.",
		"Unmount it, or mount it on the host and give it to the container by --bind."},
	{ContainerIPC, unix.EINVAL, "cannot save {the IPC objects of the container}",
		"System V shared memory, semaphores and message queues, and POSIX message queues, end with the namespace that they are in. They are saved by " +
			"the first process of the container, as far as it may look at them and there is a way to look.",
		"See the detail, and docs/containers.md. Remove what is not needed before: ipcrm, mq_unlink."},
	{NoContainerHere, unix.EINVAL, "cannot restore {the image} as the container that is asked for",
		"--name, --hostname, --rootfs and --bind are about a container, which is what crshim checkpoint saves by its name or by its first process; " +
			"another root takes a container that had one of its own.",
		"Leave them out, or save the container as a whole."},
	{ContainerContents, unix.EIO, "cannot save the contents of {the mount}",
		"A tmpfs ends with the container, so all that is in it goes into the image. It is read with the rights of the first process; owners that the " +
			"container does not know, flags of chattr(1) and, in a user namespace, extended attributes other than user.* are not kept.",
		"See the cause at the end of the line, and remove the file or change what is said of it."},
	{MountPlace, unix.ENOENT, "cannot mount at {the place} again: a directory or file is missing",
		"What was mounted in the container is mounted again where it was, and what was bound from the host must still be there.",
		"Make the directory, or give another one: crshim restart --rootfs DIR --bind SRC:DST."},
	{ContainerUnpack, unix.EIO, "cannot restore the contents of {the mount}",
		"The files of a tmpfs are made again with the rights of the user of the container.",
		"See the cause at the end of the line. Devices and trusted attributes take the rights that they took before."},
	{IPCFailed, 0, "cannot make {the IPC object} of the container again",
		"What was in the IPC namespace is made by the first process of the new container, with its rights and within its limits (RLIMIT_MSGQUEUE, RLIMIT_MEMLOCK).",
		"See the cause at the end of the line."},
	{Mqueue, unix.EOPNOTSUPP, "cannot save {a descriptor}: POSIX message queue",
		"An open message queue is found again by its name, and that a process is to be notified of a message cannot be seen and set again.",
		"Keep the name of the queue until the program ends, and do without mq_notify(3)."},
	{NetFailed, 0, "cannot make {a part of the network} of the container again",
		"Interfaces, addresses and routes are made by the first process of the new container, as they were saved.",
		"See the cause at the end of the line; the kernel may lack the kind of interface, or IPv6."},
	{IPCMissing, unix.ENOENT, "cannot restart beside {the IPC object}, which is gone",
		"By restart(2) the namespaces of the caller stay as they are. What the image has of the IPC namespace is expected there, and is not changed.",
		"Restart the image as a container, by crshim restart, which makes it all again."},
	{NestedMake, unix.EPERM, "cannot restore {the process}: a namespace within that of the tree cannot be made",
		"A namespace of a process of the image takes CAP_SYS_ADMIN in the user namespace that it is made in. A process that calls restart() itself cannot become one whose children are to be in another pid namespace than itself.",
		"Restart it as root or in a container (crshim run --container), by crshim restart."},
	{SemaphoresTaken, unix.EAGAIN, "cannot give the process its adjustments of {the set of semaphores} again",
		"What it had taken of the set with SEM_UNDO the kernel gave back when it ended. It takes that again when it is restarted, which must be possible at once.",
		"Wait until others have released the semaphores, or end the process that was saved. One that restarts by restart(2) must have no adjustments itself."},
}
