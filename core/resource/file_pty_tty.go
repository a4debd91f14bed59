package resource

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// devTTY is /dev/tty: whichever terminal controlled the process that opened it.
var devTTY = unix.Mkdev(5, 0)

// nameTerminals finds out which terminals of the tree were opened as /dev/tty,
// and has their descriptors say so.
func (t *Tree) nameTerminals() error {
	hasMaster := func(v *View) bool {
		return slices.ContainsFunc(v.FDs, func(f procfs.FD) bool { _, ok := masterIndex(&f); return ok })
	}
	if !slices.ContainsFunc(t.views, hasMaster) {
		return nil
	}
	for _, v := range t.views {
		for i := range v.FDs {
			f := &v.FDs[i]
			if f.Type() != unix.S_IFCHR || f.Rdev != devTTY || f.Flags&unix.O_PATH != 0 {
				continue
			}
			rdev, err := v.terminalBehind(f)
			if err != nil {
				return err
			}
			if index := slaveIndexOf(rdev); index >= 0 && v.masterInside(index) {
				f.Rdev = rdev
			}
		}
	}
	return nil
}

// asControlling tells that a side of a terminal was opened as /dev/tty: the
// inode is that of everybody who has done so.
func asControlling(f *procfs.FD) bool { return f.Target == "/dev/tty" }

// terminalBehind is the device number of the terminal itself (TIOCGDEV, Linux
// 3.3), 0 if it cannot be had any more.
func (v *View) terminalBehind(f *procfs.FD) (uint64, error) {
	fd, err := v.duplicate(f.Number)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return 0, nil // closed meanwhile, by a process that runs
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	rdev, err := unix.IoctlGetUint32(fd, unix.TIOCGDEV)
	if errors.Is(err, unix.EIO) {
		return 0, nil // hung up
	}
	if err != nil {
		return 0, fmt.Errorf("ask which terminal %s is: %w", v.FDName(f.Number), err)
	}
	return uint64(rdev), nil
}
