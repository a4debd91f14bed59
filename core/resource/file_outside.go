package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// holder is a descriptor of another process.
type holder struct {
	pid procfs.PID
	fd  int32
}

// elsewhere returns the descriptors of other processes whose links read like
// this one's, as far as we may look into them: a pipe's link names the pipe,
// that of an anonymous inode only its kind. All of /proc is read once for a
// view.
func (v *View) elsewhere(target string) ([]holder, error) {
	if v.others == nil {
		if err := v.readOthers(); err != nil {
			return nil, err
		}
	}
	return v.others[target], nil
}

func (v *View) readOthers() error {
	own := make(map[string]bool)
	for i := range v.FDs {
		own[v.FDs[i].Target] = true
	}
	for i := range v.Mappings {
		if m := &v.Mappings[i]; m.Deleted {
			own[linkText(m)] = true
		}
	}
	pids, err := procfs.List()
	if err != nil {
		return err
	}
	v.others = make(map[string][]holder)
	for _, pid := range pids {
		if v.inside(pid) {
			continue
		}
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		names, err := os.ReadDir(dir)
		if err != nil {
			continue // not ours to look into, or gone
		}
		for _, name := range names {
			target, err := os.Readlink(filepath.Join(dir, name.Name()))
			if err != nil || !own[target] {
				continue
			}
			n, err := strconv.ParseInt(name.Name(), 10, 32)
			if err != nil {
				return fmt.Errorf("read %s: %w", dir, err)
			}
			v.others[target] = append(v.others[target], holder{pid, int32(n)})
		}
	}
	return nil
}

// sharedWith returns a process that has the same open file, 0 if none is known.
func (v *View) sharedWith(f *procfs.FD) (procfs.PID, error) {
	if _, known := v.shared[f.Target]; !known {
		found, err := v.compareOthers(f.Target)
		if err != nil {
			return 0, err
		}
		if v.shared == nil {
			v.shared = make(map[string]map[int32]procfs.PID)
		}
		v.shared[f.Target] = found
	}
	return v.shared[f.Target][f.Number], nil
}

// compareOthers returns for each descriptor with that link a process that has
// the same open file. The kernel has an order of open files, so that each of
// the others' is looked up in our own.
func (v *View) compareOthers(target string) (map[int32]procfs.PID, error) {
	holders, err := v.elsewhere(target)
	if err != nil || len(holders) == 0 {
		return nil, err
	}
	var own []int32
	for i := range v.FDs {
		if v.FDs[i].Target == target {
			own = append(own, v.FDs[i].Number)
		}
	}
	// Closed or gone meanwhile, or not ours to look into: as good as not there.
	// What a running process has closed, it is asked about again when it stands.
	compare := func(a int32, h holder) int {
		order, failed := kcmp(v.PID, h.pid, kcmpFile, a, h.fd)
		switch {
		case failed == nil:
			return order
		case !errors.Is(failed, unix.EBADF) && !errors.Is(failed, unix.ESRCH) && !errors.Is(failed, unix.EPERM):
			err = failed
		}
		return 1
	}
	slices.SortFunc(own, func(a, b int32) int { return compare(a, holder{v.PID, b}) })
	found := make(map[int32]procfs.PID)
	for _, h := range holders {
		if v.ParentHears && h.pid == v.Stat.PPid {
			continue
		}
		i, same := slices.BinarySearchFunc(own, h, compare)
		for ; same && i < len(own) && compare(own[i], h) == 0; i++ {
			found[own[i]] = h.pid
		}
	}
	if err != nil {
		return nil, fmt.Errorf("compare open files of %s: %w", v.Name(), err)
	}
	return found, nil
}

// refuseNameless names why an open file that exists only between those who
// have it open cannot be saved.
func refuseNameless(v *View, f *procfs.FD) *fault.Error {
	pid, err := v.sharedWith(f)
	switch {
	case err != nil:
		return &fault.Error{Code: fault.FileShared, Detail: f.Target, Err: err}
	case pid != 0:
		return &fault.Error{Code: fault.FileShared, Detail: fmt.Sprintf("%s, pid %d", f.Target, pid)}
	}
	return nil
}

// duplicate returns a descriptor of ours for the open file behind one of the
// process (pidfd_getfd(2)). It is a bare number: os.File would make it block,
// and for the process as well.
func (v *View) duplicate(fd int32) (int, error) {
	if v.pidfd == 0 {
		pidfd, err := unix.PidfdOpen(int(v.PID), 0)
		if err != nil {
			return -1, fmt.Errorf("pidfd_open %d: %w", v.PID, err)
		}
		v.pidfd = pidfd
	}
	own, err := unix.PidfdGetfd(v.pidfd, int(fd), 0)
	if err != nil {
		return -1, fmt.Errorf("take %s: %w", v.FDName(fd), err)
	}
	return own, nil
}

// The kinds of kcmp(2).
const (
	kcmpFile     = 0
	kcmpEpollTFD = 7
)

// kcmp orders two things of two processes: 0 equal, -1 less, 1 greater or
// unequal without an order.
func kcmp(a, b procfs.PID, kind int, x, y int32) (int, error) {
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), uintptr(kind), uintptr(x), uintptr(y), 0)
	switch {
	case errno != 0:
		return 0, errno
	case order == 0:
		return 0, nil
	case order == 1:
		return -1, nil
	}
	return 1, nil
}
