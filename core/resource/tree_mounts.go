package resource

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// findable refuses to have the first process open a file for others that have it by a
// name that leads it elsewhere: they are in a mount namespace of their own.
func (t *Tree) findable(v *View, f *procfs.FD) error {
	root := t.views[0]
	theirs, err := v.Namespace("mnt")
	if err != nil {
		return err
	}
	ours, err := root.Namespace("mnt")
	if err != nil || ours == theirs || f.Nlink == 0 || !strings.HasPrefix(f.Target, "/") {
		return err
	}
	var st unix.Stat_t
	err = unix.Stat(root.reach(f.Target), &st)
	if err == nil && (inodeID{st.Dev, st.Ino}) == idOf(f) {
		return nil
	}
	return &fault.Error{Code: fault.OtherNamespaces, Object: v.FDName(f.Number), Detail: "mnt: " + f.Target + ", which others share", Err: err}
}
