package core

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer/procfs"
)

// relative is a process and its place in a tree.
type relative struct {
	view   *resource.View
	parent *relative // nil for the root
	maker  *relative // the parent, or a sibling
	own    *nested   // namespaces that it has for itself, nil without any; checkRelations finds them
}

// relatives are the processes of a tree, each of which comes before its children.
func relatives(views []*resource.View, parent, maker func(i int) int) []*relative {
	all := make([]*relative, len(views))
	for i, v := range views {
		all[i] = &relative{view: v}
		if i > 0 {
			all[i].parent, all[i].maker = all[parent(i)], all[maker(i)]
		}
	}
	return all
}

// checkRelations names what binds processes to others, or keeps them apart from
// their parents, in a way that cannot be made again: they are forked in the
// session and the namespaces of their parents.
func checkRelations(all []*relative) (list fault.List, err error) {
	if list, err = checkNamespaces(all); err != nil {
		return nil, err
	}
	within, err := findNested(all)
	if err != nil {
		return nil, err
	}
	list = append(list, within...)
	for _, r := range all[1:] {
		if !r.inheritsSession() {
			if why := r.stray(all); why != "" {
				list = append(list, &fault.Error{Code: fault.SessionEnded, Object: r.view.Name(), Detail: why})
			}
		}
	}
	return list, nil
}

// inheritsSession tells whether a process leads its session or has it from who
// makes it, as that has it now or had it before it led one.
func (r *relative) inheritsSession() bool {
	session := r.view.Stat.Session
	if session == r.view.PID {
		return true
	}
	for p := r.maker; p != nil; p = p.maker {
		switch {
		case p.view.Stat.Session == session:
			return true
		case p.view.Stat.Session != p.view.PID:
			return false
		}
	}
	return false
}

// stray tells why the session of a process, which its parent has not, cannot be
// made again; see forest.findStrays.
func (r *relative) stray(all []*relative) string {
	session := r.view.Stat.Session
	if session == 0 {
		return "session of another pid namespace"
	}
	if r.maker != r.parent {
		return fmt.Sprintf("session %d, and shares with %s, which is in another one", session, r.maker.view.Name())
	}
	for _, o := range all[1:] {
		switch {
		case o.view.PID == session && o.parent == r.parent:
			return ""
		case o.view.PID == session:
			return fmt.Sprintf("session of %s, which has another parent", o.view.Name())
		case o.view.Stat.Session == session && o.parent != r.parent && !o.inheritsSession():
			return fmt.Sprintf("session %d, as is %s, which has another parent", session, o.view.Name())
		}
	}
	stat, err := leaderOf(session)
	inside := func(o *relative) bool { return stat != nil && o.view.PID == stat.PPid }
	switch ended := stat == nil || stat.State == 'Z' || stat.State == 'X'; {
	case err != nil:
		return fmt.Sprintf("session %d: %v", session, err)
	case !ended:
		return fmt.Sprintf("session %d, whose leader is outside of the tree", session)
	case slices.ContainsFunc(all, inside) && !inside(r.parent):
		return fmt.Sprintf("session %d, whose leader has ended as a child of another one", session)
	}
	return ""
}

// leaderOf looks at who led a session; nil if nothing is left of him. Nobody else
// has the number as long as there is the session.
func leaderOf(session procfs.PID) (*procfs.Stat, error) {
	proc, err := procfs.Open(session)
	if errors.Is(err, procfs.ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	stat, err := proc.Stat()
	if errors.Is(err, procfs.ErrGone) {
		return nil, nil
	}
	return stat, err
}
