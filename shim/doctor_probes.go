package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// probes lists everything doctor asks, the weightiest first. Those that need a process to try things on share one.
func probes() []probe {
	v := &victim{}
	return []probe{
		{
			name: "kernel release", needed: true, since: "5.19",
			serves: "a caller that is caught exactly once (seccomp flag WAIT_KILLABLE_RECV)",
			try:    "boot a kernel of version 5.19 or later",
			ask:    askRelease,
		},
		{
			name: "seccomp listener", needed: true, since: "5.19",
			serves: "crshim run: the two calls reach the supervisor",
			try:    "see the detail; under another listener (a container runtime, another crshim run) start crshim outside of it",
			ask:    askListener,
		},
		{
			name: "ptrace of a process of ours", needed: true,
			serves: "looking into a process and rebuilding it",
			try:    "sysctl kernel.yama.ptrace_scope=0 (or 1); in a container, a seccomp profile that allows ptrace",
			ask:    v.askPtrace,
		},
		{
			name: "process_vm_readv", needed: true, since: "3.2",
			serves: "reading the memory of a stopped process",
			try:    "in a container, a seccomp profile that allows process_vm_readv and process_vm_writev",
			ask:    askProcessVM,
		},
		{
			name: "kcmp", needed: true, since: "3.5",
			serves: "telling whether two descriptors are one open file",
			try:    "a kernel with CONFIG_KCMP; in a container, a seccomp profile that allows kcmp",
			ask:    askKcmp,
		},
		{
			name: "CONFIG_CHECKPOINT_RESTORE", needed: true, since: "4.18",
			serves: "the layout fields of a process (PR_SET_MM_MAP) and its clear_child_tid address",
			try:    "a kernel built with CONFIG_CHECKPOINT_RESTORE, as those of the distributions are",
			ask:    askCheckpointRestore,
		},
		{
			name: "rseq configuration by ptrace", needed: true, since: "5.13",
			serves: "restartable sequences, which glibc registers in every thread",
			try:    "boot a kernel of version 5.13 or later",
			ask:    v.askRseq,
		},
		{
			name: "pidfd_getfd", needed: true, since: "5.6",
			serves: "taking the image's descriptor from the caller",
			try:    "in a container, a seccomp profile that allows pidfd_open and pidfd_getfd",
			ask:    askPidfdGetfd,
		},
		{
			name: "processor state", needed: true,
			serves: "vector registers, by ptrace as one XSAVE area",
			try:    "a processor with XSAVE (any x86-64 of the last ten years)",
			ask:    v.askXstate,
		},
		{
			name:   "Yama lets us trace any process of ours",
			serves: "crshim checkpoint of a process that was not started under crshim",
			try:    "sysctl kernel.yama.ptrace_scope=0, or CAP_SYS_PTRACE",
			ask:    askYama,
		},
		{
			name:   "right to choose pids and the exe link",
			since:  "5.9",
			serves: "restart --pids keep, and /proc/PID/exe of a restored process",
			try:    "CAP_CHECKPOINT_RESTORE (setcap cap_checkpoint_restore+ep crshim), or root",
			ask:    askSetTID,
		},
		{
			name:   "right to suspend a process's own seccomp filters",
			since:  "4.3",
			serves: "processes that have filters of their own",
			try:    "CAP_SYS_ADMIN, and a crshim that is itself under no filter",
			ask:    v.askSuspendSeccomp,
		},
		{
			name:   "right to raise limits",
			serves: "resource limits above those of the caller of restart (CAP_SYS_RESOURCE)",
			try:    "CAP_SYS_RESOURCE",
			ask:    func() finding { return askCapability(unix.CAP_SYS_RESOURCE) },
		},
		{
			name: "user namespaces", since: "3.8",
			serves: "pid namespaces without root",
			try:    "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns, whichever is there",
			ask:    askUserNamespace,
		},
		{
			name: "PAGEMAP_SCAN", since: "6.7",
			serves: "finding the pages to save; older kernels are read entry by entry, and pages of zeros are saved too",
			try:    "boot a kernel of version 6.7 or later",
			ask:    func() finding { return answered(procfs.PagemapScanSupported()) },
		},
		{
			name: "userfaultfd", since: "5.11",
			serves: "moving staged memory into place without a copy, and tracking writes",
			try:    "sysctl vm.unprivileged_userfaultfd has no say over user-mode faults; allow userfaultfd in the seccomp profile",
			ask:    askUserfaultfd,
		},
		{
			name:   "transparent huge pages",
			serves: "restoring memory at two to three times the speed",
			try:    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
			ask:    askHugePages,
		},
		{
			name: "MADV_COLLAPSE", since: "6.1",
			serves: "huge pages in memory that was not advised to have them",
			try:    "boot a kernel of version 6.1 or later",
			ask:    askCollapse,
		},
		{
			name: "children listed in /proc", since: "3.5",
			serves: "finding the tree below a process without reading all of /proc (CONFIG_PROC_CHILDREN)",
			try:    "nothing needs to be done: without it all of /proc is read",
			ask: func() finding {
				_, err := os.ReadFile("/proc/thread-self/children")
				return judge(err, "", unix.ENOENT)
			},
		},
	}
}

// judge turns the outcome of a trial into a finding: success is yes, an errno that the caller knows to mean no is no,
// anything else says nothing about the feature. A permission refused is always a no: it is so for this user.
func judge(err error, detail string, meansNo ...unix.Errno) finding {
	if err == nil {
		return finding{yes, detail}
	}
	for _, errno := range append(meansNo, unix.EPERM, unix.EACCES, unix.ENOSYS) {
		if errors.Is(err, errno) {
			return finding{no, err.Error()}
		}
	}
	return finding{unknown, err.Error()}
}

// answered is a finding of a question that somebody else has asked.
func answered(ok bool) finding {
	if ok {
		return finding{yes, ""}
	}
	return finding{no, ""}
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// atLeast compares a release such as 6.18.44-generic with a version.
func atLeast(release string, major, minor int) (bool, error) {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false, fmt.Errorf("parse kernel release %q: %w", release, err)
	}
	return a > major || a == major && b >= minor, nil
}

func askRelease() finding {
	release := kernelRelease()
	enough, err := atLeast(release, 5, 19)
	if err != nil {
		return finding{unknown, err.Error()}
	}
	if !enough {
		return finding{no, release}
	}
	return finding{yes, release}
}

func askProcessVM() finding {
	want := []byte("crshim")
	got := make([]byte, len(want))
	n, err := unix.ProcessVMReadv(unix.Getpid(), iovec(got), remoteIovec(want), 0)
	if err == nil && (n != len(want) || string(got) != string(want)) {
		return finding{unknown, fmt.Sprintf("read %d bytes of %d", n, len(want))}
	}
	return judge(err, "")
}

func askKcmp() finding {
	same, err := kcmpFile(unix.Getpid(), 2, 2)
	if err == nil && !same {
		return finding{unknown, "standard error differs from itself"}
	}
	if errors.Is(err, unix.EBADF) { // descriptor 2 is closed: the call is there all the same
		return finding{yes, ""}
	}
	return judge(err, "")
}

func askCheckpointRestore() finding {
	if err := tidAddress(); err != nil {
		return judge(fmt.Errorf("prctl PR_GET_TID_ADDRESS: %w", err), "", unix.EINVAL)
	}
	size, err := mmMapSize()
	if err != nil {
		return judge(fmt.Errorf("prctl PR_SET_MM_MAP_SIZE: %w", err), "", unix.EINVAL)
	}
	return finding{yes, fmt.Sprintf("prctl_mm_map of %d bytes", size)}
}

func askPidfdGetfd() finding {
	r, w, err := os.Pipe()
	if err != nil {
		return finding{unknown, err.Error()}
	}
	defer r.Close()
	defer w.Close()
	pidfd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return judge(fmt.Errorf("pidfd_open: %w", err), "")
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(r.Fd()), 0)
	if err != nil {
		return judge(fmt.Errorf("pidfd_getfd: %w", err), "")
	}
	unix.Close(fd)
	return finding{yes, ""}
}

func askYama() finding {
	text, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if errors.Is(err, os.ErrNotExist) {
		return finding{yes, "no Yama in this kernel"}
	}
	if err != nil {
		return finding{unknown, err.Error()}
	}
	scope, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return finding{unknown, err.Error()}
	}
	detail := fmt.Sprintf("ptrace_scope %d", scope)
	privileged := askCapability(unix.CAP_SYS_PTRACE).answer == yes
	if scope == 0 || scope < 3 && privileged {
		return finding{yes, detail}
	}
	return finding{no, detail}
}

// askCapability looks into the effective set.
func askCapability(capability int) finding {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return finding{unknown, fmt.Sprintf("capget: %v", err)}
	}
	return answered(data[capability/32].Effective&(1<<(capability%32)) != 0)
}

// askSetTID asks for a pid that is taken, our own: the kernel looks at the right first (alloc_pid in kernel/pid.c), so
// the answer is EEXIST with it and EPERM without, and no process is made either way.
func askSetTID() finding {
	err := cloneWithPID(unix.Getpid())
	if errors.Is(err, unix.EEXIST) {
		return finding{yes, ""}
	}
	return judge(fmt.Errorf("clone3 with set_tid: %w", err), "")
}

func askUserfaultfd() finding {
	features, err := userfaultfdFeatures()
	if err != nil {
		return judge(err, "")
	}
	var has []string
	for _, f := range []struct {
		bit  uint64 // UFFD_FEATURE_* of include/uapi/linux/userfaultfd.h
		name string
	}{{1 << 15, "WP_ASYNC"}, {1 << 16, "MOVE"}} {
		if features&f.bit != 0 {
			has = append(has, f.name)
		}
	}
	return finding{yes, strings.Join(has, ", ")}
}

func askHugePages() finding {
	text, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		return judge(err, "", unix.ENOENT)
	}
	mode := strings.TrimSpace(string(text))
	if slices.Contains(strings.Fields(mode), "[never]") {
		return finding{no, mode}
	}
	return finding{yes, mode}
}

// askUserNamespace makes a process in a new user and pid namespace and has it execute a file that is not there: if that
// is what fails, the namespaces were granted. Nothing is left behind either way.
func askUserNamespace() finding {
	_, err := syscall.ForkExec("/proc/self/no-such-file", []string{"probe"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID},
	})
	if errors.Is(err, unix.ENOENT) {
		return finding{yes, ""}
	}
	return judge(fmt.Errorf("clone with CLONE_NEWUSER and CLONE_NEWPID: %w", err), "", unix.ENOSPC, unix.EINVAL, unix.EUSERS)
}
