package resource

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// refusedFile is every open file that is not saved. It only knows what to call it.
var refusedFile = FileKind{
	Name:    "everything else",
	Support: Refused,
	Note:    "Other sockets, other devices and the rest of the kernel's anonymous inodes are refused, each by name.",
	Match:   func(*View, *procfs.FD) bool { return true },
	Refuse: func(_ *View, f *procfs.FD) *fault.Error {
		return &fault.Error{Code: refusalOf(f), Detail: f.Target}
	},
}

// anonymous are the links of the kernel's anonymous inodes.
var anonymous = map[string]fault.Code{
	"[io_uring]":         fault.IOUring,
	"[eventpoll]":        fault.Epoll,
	"[eventfd]":          fault.Eventfd,
	"[timerfd]":          fault.Timerfd,
	"[signalfd]":         fault.Signalfd,
	"inotify":            fault.Inotify,
	"[fanotify]":         fault.Fanotify,
	"[pidfd]":            fault.Pidfd,
	"[userfaultfd]":      fault.Userfaultfd,
	"[perf_event]":       fault.PerfEvent,
	"bpf-map":            fault.BPF,
	"bpf-prog":           fault.BPF,
	"bpf_link":           fault.BPF,
	"bpf_iter":           fault.BPF,
	"btf":                fault.BPF,
	"dmabuf":             fault.DmaBuf,
	"[io_uring_cqwait]":  fault.IOUring,
	"seccomp notify":     fault.SeccompListener,
	"[landlock-ruleset]": fault.Landlock,
}

// refusalOf names an open file that cannot be saved by what its link and its
// type show.
func refusalOf(f *procfs.FD) fault.Code {
	if kind, ok := strings.CutPrefix(f.Target, "anon_inode:"); ok {
		if code, known := anonymous[kind]; known {
			return code
		}
		return fault.AnonInode
	}
	switch {
	case strings.HasPrefix(f.Target, "pidfd:"):
		return fault.Pidfd
	case f.Target == "/secretmem (deleted)":
		return fault.SecretMemory
	case strings.HasPrefix(f.Target, "/dmabuf:"):
		return fault.DmaBuf
	case strings.HasPrefix(f.Target, "/memfd:"):
		return fault.Memfd
	case strings.Contains(f.Target, ":[") && strings.HasPrefix(f.Target, "pipe:"):
		return fault.Pipe
	case strings.HasPrefix(f.Target, "socket:"):
		return fault.Socket
	case f.Flags&unix.O_PATH != 0:
		return fault.PathDescriptor
	}
	switch f.Type() {
	case unix.S_IFIFO:
		return fault.Fifo
	case unix.S_IFSOCK:
		return fault.Socket
	case unix.S_IFCHR, unix.S_IFBLK:
		return fault.Device
	}
	if i := strings.Index(f.Target, ":["); i > 0 && !strings.HasPrefix(f.Target, "/") {
		return fault.Namespace
	}
	return fault.FileKind
}
