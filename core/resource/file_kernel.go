package resource

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// Files that the kernel writes while they are read: of /proc, /sys and cgroups.
// They have a name and an offset, and what is read from there on is what the
// kernel says then, as it is for everyone who reads in several pieces.

// ofProcess matches names in /proc that speak of one process, and perhaps of
// one of its threads.
var ofProcess = regexp.MustCompile(`^/proc/(\d+)(/task/(\d+))?(/.*)?$`)

// ofKernel tells whether a file is one of theirs.
func ofKernel(target string) bool {
	return strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/")
}

// stateful are file systems whose open files remember more than an offset.
var stateful = map[int64]string{
	unix.TRACEFS_MAGIC:    "tracefs",
	unix.DEBUGFS_MAGIC:    "debugfs",
	unix.SECURITYFS_MAGIC: "securityfs",
	unix.SELINUX_MAGIC:    "selinuxfs",
	unix.BPF_FS_MAGIC:     "bpf",
	unix.EFIVARFS_MAGIC:   "efivarfs",
}

// refuseKernel names why a file of the kernel's cannot be saved, or nil.
func refuseKernel(v *View, f *procfs.FD) *fault.Error {
	refuse := func(err error, why string) *fault.Error {
		return &fault.Error{Code: fault.ProcFile, Detail: f.Target + why, Err: err}
	}
	if !ofKernel(f.Target) {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(procPath(v.PID, "fd", strconv.Itoa(int(f.Number))), &fs); err != nil {
		return refuse(err, "")
	}
	if name, ok := stateful[fs.Type]; ok {
		return refuse(nil, ", of "+name)
	}
	if m := ofProcess.FindStringSubmatch(f.Target); m != nil {
		own := strconv.Itoa(int(v.nameIn(f)))
		if m[1] != own {
			return refuse(nil, ", of another process")
		}
		if m[3] != "" && m[3] != own {
			return refuse(nil, ", of a thread that is not the first")
		}
	}
	writes := f.Flags&unix.O_ACCMODE != unix.O_RDONLY
	if writes && (strings.HasPrefix(f.Target, "/proc/pressure/") || strings.HasSuffix(f.Target, ".pressure")) {
		return refuse(nil, ", on which a trigger may be set")
	}
	if f.Type() == unix.S_IFREG && f.Flags&unix.O_PATH == 0 {
		if err := seekable(v, f); err != nil {
			return refuse(err, "")
		}
	}
	return nil
}

// nameIn is the number of the process in the /proc that a file is of: a process in
// a pid namespace may have one of that, or that of others.
func (v *View) nameIn(f *procfs.FD) procfs.PID {
	var st unix.Stat_t
	if err := unix.Stat("/proc", &st); err != nil || st.Dev == f.Dev {
		return v.PID
	}
	return v.VPID()
}

// seekable asks for the offset without moving it.
func seekable(v *View, f *procfs.FD) error {
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Seek(fd, 0, unix.SEEK_CUR); err != nil {
		return fmt.Errorf("lseek: %w", err)
	}
	return nil
}

// lasting is the name under which a file is found again: what speaks of the
// process itself does so whatever number it has then.
func lasting(target string) string {
	m := ofProcess.FindStringSubmatch(target)
	switch {
	case m == nil:
		return target
	case m[2] != "":
		return "/proc/thread-self" + m[4]
	}
	return "/proc/self" + m[4]
}
