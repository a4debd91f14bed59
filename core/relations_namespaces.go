package core

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
)

// sharedNamespaces are those that all processes of a tree must have together.
var sharedNamespaces = []string{"net", "user", "cgroup", "time", "time_for_children"}

// checkNamespaces names processes in namespaces that no fork brings about: a pid
// namespace is made with its first process, by the parent of that.
func checkNamespaces(all []*relative) (list fault.List, err error) {
	root := all[0].view
	if same, err := sameForChildren("time", root); err != nil || !same {
		list = append(list, &fault.Error{Code: fault.ChildNamespaces, Object: root.Name(), Detail: "time", Err: err})
	}
	pids := make(map[uint64]bool) // namespaces, by their inodes, whose first process is here
	for _, r := range all {
		ns, err := r.view.Namespace("pid")
		if err != nil {
			return nil, err
		}
		if r.view.VPID() == firstPID || r.parent == nil {
			pids[ns] = true
		}
	}
	for _, r := range all {
		children, err := r.view.Namespace("pid_for_children")
		if err != nil && !errors.Is(err, unix.ENOENT) { // a namespace whose first process is not there yet
			return nil, err
		}
		if same, err := sameForChildren("pid", r.view); err != nil {
			return nil, err
		} else if !same && (!pids[children] || r.view.Status.Threads > 1) {
			list = append(list, &fault.Error{Code: fault.ChildNamespaces, Object: r.view.Name(), Detail: "pid"})
		}
		if r.parent == nil {
			continue
		}
		own, above := r.view.Status, r.parent.view.Status
		same, err := sameNamespace("pid", r.view, r.parent.view)
		if err != nil {
			return nil, err
		}
		if !same && (len(own.NStgid) != len(above.NStgid)+1 || r.view.VPID() != firstPID) {
			list = append(list, &fault.Error{Code: fault.OtherNamespaces, Object: r.view.Name(), Detail: "pid, entered from outside"})
		}
		for _, kind := range sharedNamespaces {
			same, err := sameNamespace(kind, root, r.view)
			if err != nil {
				return nil, err
			}
			if !same {
				list = append(list, &fault.Error{Code: fault.OtherNamespaces, Object: r.view.Name(), Detail: kind})
			}
		}
	}
	return list, nil
}

// sameNamespace tells whether two processes have one in common.
func sameNamespace(kind string, a, b *resource.View) (bool, error) {
	one, err := a.Namespace(kind)
	if err != nil {
		return false, err
	}
	other, err := b.Namespace(kind)
	return one == other, err
}

// sameForChildren tells whether children of a process will be in its own namespace.
func sameForChildren(kind string, v *resource.View) (bool, error) {
	own, err := v.Namespace(kind)
	if errors.Is(err, unix.ENOENT) {
		return true, nil // the kernel has none such
	}
	if err != nil {
		return false, err
	}
	theirs, err := v.Namespace(kind + "_for_children")
	if errors.Is(err, unix.ENOENT) {
		return kind == "time", nil // a pid namespace whose first process is not there yet
	}
	return own == theirs, err
}
