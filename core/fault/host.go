package fault

import "golang.org/x/sys/unix"

// 4000: the host lacks something.
const (
	KernelTooOld      Code = 4001
	NoKcmp            Code = 4002
	ListenerTaken     Code = 4003
	NoCheckpointConf  Code = 4004
	NoNewPrivs        Code = 4005
	NoProc            Code = 4006
	PtraceForbidden   Code = 4007
	NotX8664          Code = 4008
	NoSeccomp         Code = 4009
	SupervisorLimited Code = 4010
)

var host = []Entry{
	{KernelTooOld, unix.ENOSYS, "cannot run on {this kernel}: too old",
		"Catching a caller exactly once needs the seccomp flag WAIT_KILLABLE_RECV, which Linux has since version 5.19.",
		"Use a kernel of version 5.19 or later; crshim doctor lists what is there."},
	{NoKcmp, unix.ENOSYS, "cannot run on {this kernel}: kcmp is missing",
		"Which descriptors are one open file is asked by kcmp, which needs CONFIG_KCMP.",
		"Use a kernel built with CONFIG_KCMP, as those of the distributions are."},
	{ListenerTaken, unix.EBUSY, "cannot load {the filter}: another seccomp listener is above",
		"The kernel allows one listener in a chain of filters, and a container runtime or another crshim has it.",
		"Start crshim outside of the other one; inside an outer crshim run the calls work already."},
	{NoCheckpointConf, unix.ENOSYS, "cannot run on {this kernel}: built without checkpoint support",
		"The memory layout of a process is put back by PR_SET_MM_MAP, which needs CONFIG_CHECKPOINT_RESTORE.",
		"Use a kernel built with CONFIG_CHECKPOINT_RESTORE, as those of the distributions are."},
	{NoNewPrivs, unix.EACCES, "cannot load {the filter}: no_new_privs could not be set",
		"Without CAP_SYS_ADMIN the kernel takes a filter only from a process that can gain no privileges any more.",
		"See whether a security module forbids prctl PR_SET_NO_NEW_PRIVS."},
	{NoProc, unix.ENOENT, "cannot use {the proc file system}: not mounted",
		"The state of a process is read from /proc.",
		"Mount it: mount -t proc proc /proc."},
	{PtraceForbidden, unix.EPERM, "cannot trace {a process}: the host forbids it",
		"A security module (Yama ptrace_scope of 2 or 3) or a container profile forbids ptrace.",
		"Set kernel.yama.ptrace_scope to 0 or 1, or give the container CAP_SYS_PTRACE."},
	{NotX8664, unix.ENOSYS, "cannot run on {this machine}: not x86-64",
		"Registers and system calls are known for x86-64 alone.",
		"Use an x86-64 machine."},
	{NoSeccomp, unix.ENOSYS, "cannot run on {this kernel}: no seccomp user notification",
		"The kernel lacks CONFIG_SECCOMP_FILTER, or a container profile forbids seccomp.",
		"Use a kernel with it, or allow seccomp in the profile of the container."},
	{SupervisorLimited, 0, "cannot serve {the call}: the supervisor has run out of something",
		"A limit on open files, memory or processes of crshim itself was reached.",
		"See the cause at the end of the line and raise that limit."},
}
