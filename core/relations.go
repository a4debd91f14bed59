package core

import (
	"fmt"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
)

// relative is a process and its place in a tree.
type relative struct {
	view   *resource.View
	parent *relative // nil for the root
}

// relatives are the processes of a tree, each of which comes before its children.
func relatives(views []*resource.View, parent func(i int) int) []*relative {
	all := make([]*relative, len(views))
	for i, v := range views {
		all[i] = &relative{view: v}
		if i > 0 {
			all[i].parent = all[parent(i)]
		}
	}
	return all
}

// checkRelations names what binds processes to others, or keeps them apart from
// their parents, in a way that cannot be made again: they are forked in the
// session and the namespaces of the first one.
func checkRelations(all []*relative) (list fault.List, err error) {
	root := all[0].view
	for _, r := range all[1:] {
		if len(r.view.Status.NStgid) != len(root.Status.NStgid) {
			list = append(list, &fault.Error{Code: fault.NestedNamespace, Object: r.view.Name()})
			continue
		}
		for _, kind := range []string{"mnt", "ipc", "uts", "net", "user", "cgroup", "time", "pid_for_children", "time_for_children"} {
			same, err := sameNamespace(kind, root.Proc, r.view.Proc)
			if err != nil {
				return nil, err
			}
			if !same {
				list = append(list, &fault.Error{Code: fault.OtherNamespaces, Object: r.view.Name(), Detail: kind})
			}
		}
		if !r.inheritsSession() {
			list = append(list, &fault.Error{Code: fault.SessionEnded, Object: r.view.Name(), Detail: fmt.Sprintf("session %d", r.view.Stat.Session)})
		}
	}
	return list, nil
}

// inheritsSession tells whether a process leads its session or has it from its
// parent, as that has it now or had it before it led one.
func (r *relative) inheritsSession() bool {
	session := r.view.Stat.Session
	if session == r.view.PID {
		return true
	}
	for p := r.parent; p != nil; p = p.parent {
		switch {
		case p.view.Stat.Session == session:
			return true
		case p.view.Stat.Session != p.view.PID:
			return false
		}
	}
	return false
}
