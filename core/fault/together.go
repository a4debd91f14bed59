package fault

import "golang.org/x/sys/unix"

// 2410 to 2419: tasks that restart together, by the protocol of 2009.
const (
	TaskMissing    Code = 2410
	TaskUnnamed    Code = 2411
	RootLost       Code = 2412
	TaskPlace      Code = 2413
	TaskSession    Code = 2414
	TaskMemory     Code = 2415
	TaskDescriptor Code = 2416
	TaskUser       Code = 2417
)

var together = []Entry{
	{TaskMissing, unix.ESRCH, "cannot restart the tree: {a task} is not there",
		"The list of processes in the image names a task that does not exist, or has ended before it called restart.",
		"Let the restarter make all tasks, and write their process ids into the list, before it passes the image on."},
	{TaskUnnamed, unix.EINVAL, "cannot restart {the task} together with others: the image does not name it",
		"The task called restart with the process id of another one, whose image has no place for it.",
		"Make as many tasks as the image has processes, and write their process ids into its list."},
	{RootLost, unix.EAGAIN, "cannot restart {the task} together with others: the first one has ended, or its restart has failed",
		"The image is read by the first task of the tree, and all others become what it says, or none does.",
		"See why the restart of the first task has failed; the others are as they were."},
	{TaskPlace, unix.EINVAL, "cannot restart the tree: {a task} is not the child that the image says",
		"A task that restarts together with others keeps its parent, and the signal by which its end is told. They have to be those of the image; and what clone() can share beside cannot be shared afterwards.",
		"Fork each task in the one that becomes its parent, with fork(); or let restart() make the tree, without any tasks."},
	{TaskSession, unix.EINVAL, "cannot restart the tree: {a task} is not in the session that the image says",
		"A session cannot be left again if the restart fails, and those that a task has forked stay in the one before.",
		"Call setsid() in the task that leads a session in the image, before it forks others; or let restart() make the tree, without any tasks."},
	{TaskMemory, unix.EPERM, "cannot share {memory} with a task that was there before",
		"Memory that has no name is inherited by fork. Another task gets at it by /proc/PID/map_files alone, which takes CAP_CHECKPOINT_RESTORE; memory of the huge page pool not even so.",
		"Restart as root, or let restart() make the tree, without any tasks."},
	{TaskDescriptor, unix.EINVAL, "cannot restart the tree: {a descriptor} of a task is in the way",
		"What tasks have in common is opened by one and handed to the others, under numbers that are free in both.",
		"Fork the tasks with the same descriptors open, and close what is not needed."},
	{TaskUser, unix.EPERM, "cannot restart the tree: {a task} belongs to another user than the first one",
		"What is in an image is for those who may read it, and it is the first task that reads it.",
		"Let all tasks be of one user and group."},
}
