package task

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Tree is a process with all that descend from it, none of which can run.
type Tree struct {
	// Members are the processes, the root first and each before its children.
	Members []*Member
	// Zombies are the children that have ended and that nobody has waited for.
	Zombies []Zombie
}

// Member is a process of a tree.
type Member struct {
	*Frozen
	Parent *Member // nil for the root

	session procfs.PID
	proc    *procfs.Proc // while the tree is not complete
}

// Zombie is a process that has ended.
type Zombie struct {
	PID    procfs.PID
	Parent *Member
}

// FreezeTree stops a process and all that descend from it, but for the caller,
// which has been caught and belongs to the process own; nil if there is none. Who
// is stopped makes no children, so their list is complete once their parent is,
// but for orphans, which go to the nearest that takes them in: so all lists are
// read until they name nobody new.
func FreezeTree(t *tracer.Tracer, claims *Claims, root procfs.PID, caller *tracer.Tracee, own procfs.PID) (tree *Tree, err error) {
	tree = &Tree{}
	defer func() {
		tree.complete()
		if err != nil {
			err = errors.Join(err, tree.Thaw())
		}
	}()
	callerOf := func(pid procfs.PID) *tracer.Tracee {
		if pid == own {
			return caller
		}
		return nil
	}
	if err := tree.add(t, claims, root, nil, callerOf(root)); err != nil {
		return tree, err
	}
	for again := true; again; {
		again = false
		for i := 0; i < len(tree.Members); i++ {
			m := tree.Members[i]
			fresh, err := tree.fresh(m)
			if err != nil {
				return tree, err
			}
			for _, pid := range fresh {
				err := tree.add(t, claims, pid, m, callerOf(pid))
				if err != nil && Ended(pid) {
					tree.bury(pid, m)
					err = nil
				}
				if err != nil {
					return tree, err
				}
				again = true
			}
		}
	}
	tree.sort()
	return tree, nil
}

// Freeze stops a process alone, whatever children it has. The caller, if there
// is one, is a task of it.
func Freeze(t *tracer.Tracer, claims *Claims, pid procfs.PID, caller *tracer.Tracee) (*Tree, error) {
	tree := &Tree{}
	defer tree.complete()
	if err := tree.add(t, claims, pid, nil, caller); err != nil {
		return nil, errors.Join(err, tree.Thaw())
	}
	return tree, nil
}

func (t *Tree) complete() {
	for _, m := range t.Members {
		m.proc.Close()
	}
}

// Root is the process at the top.
func (t *Tree) Root() *Member { return t.Members[0] }

// fresh lists the children that are not known yet.
func (t *Tree) fresh(m *Member) ([]procfs.PID, error) {
	threads := make([]procfs.PID, len(m.Tasks))
	for i, e := range m.Tasks {
		threads[i] = e.TID()
	}
	pids, err := m.proc.ChildrenOf(threads)
	if err != nil {
		return nil, fmt.Errorf("list children of pid %d: %w", m.PID, err)
	}
	return slices.DeleteFunc(pids, func(pid procfs.PID) bool {
		return slices.ContainsFunc(t.Members, func(m *Member) bool { return m.PID == pid }) ||
			slices.ContainsFunc(t.Zombies, func(z Zombie) bool { return z.PID == pid })
	}), nil
}

func (t *Tree) add(tr *tracer.Tracer, claims *Claims, pid procfs.PID, parent *Member, caller *tracer.Tracee) error {
	if int(pid) == os.Getpid() {
		return OwnTree(t.rootOr(pid))
	}
	var stopped []*tracer.Tracee
	if caller != nil {
		stopped = append(stopped, caller)
	}
	// A control group may have held it together with another one.
	held, err := t.held(pid)
	if err != nil {
		return err
	}
	proc, err := procfs.Open(pid)
	if err != nil {
		return &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	f, err := freeze(tr, claims, proc, append(stopped, held...))
	if err != nil {
		proc.Close()
		return reworded(err, pid, t.rootOr(pid))
	}
	f.Caller = caller
	for _, m := range t.Members {
		m.others = slices.DeleteFunc(m.others, func(e *tracer.Tracee) bool { return slices.Contains(held, e) })
	}
	m := &Member{Frozen: f, Parent: parent, proc: proc}
	t.Members = append(t.Members, m)
	session, err := unix.Getsid(int(pid))
	m.session = procfs.PID(session)
	if err != nil {
		return fmt.Errorf("find session of pid %d: %w", pid, err)
	}
	return nil
}

// rootOr is the number of the root, or of who is to become it.
func (t *Tree) rootOr(pid procfs.PID) procfs.PID {
	if len(t.Members) > 0 {
		return t.Root().PID
	}
	return pid
}

// OwnTree refuses the tree that we are in.
func OwnTree(root procfs.PID) error {
	return &fault.Error{Code: fault.OwnTree, Object: fmt.Sprintf("pid %d", root)}
}

// held are tasks of a process that have been stopped for the sake of others.
func (t *Tree) held(pid procfs.PID) (held []*tracer.Tracee, err error) {
	for _, m := range t.Members {
		for _, e := range m.others {
			leader, err := e.Leader()
			if err != nil {
				return nil, err
			}
			if leader == pid {
				held = append(held, e)
			}
		}
	}
	return held, nil
}

// bury notes a child that has ended, unless nothing is left of it: its parent
// ignores SIGCHLD.
func (t *Tree) bury(pid procfs.PID, parent *Member) {
	if isZombie(pid) {
		t.Zombies = append(t.Zombies, Zombie{pid, parent})
	}
}

func isZombie(pid procfs.PID) bool {
	status, err := statusOf(pid)
	return err == nil && status.State == 'Z' && status.Threads == 1
}

// Ended tells whether nothing of a process runs any more.
func Ended(pid procfs.PID) bool {
	status, err := statusOf(pid)
	return err != nil || status.State == 'X' || isZombie(pid)
}

// Descendants lists a running process and all that come down from it, as far as
// they can be seen. The tree that we are in is refused.
func Descendants(root procfs.PID) ([]procfs.PID, error) {
	if int(root) == os.Getpid() {
		return nil, OwnTree(root)
	}
	pids := []procfs.PID{root}
	for i := 0; i < len(pids); i++ {
		children, living, err := childrenOf(pids[i])
		switch {
		case i == 0 && errors.Is(err, procfs.ErrGone):
			return nil, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", root), Err: err}
		case i == 0 && err != nil:
			return nil, fmt.Errorf("list children of pid %d: %w", root, err)
		case i > 0 && !living:
			pids = slices.Delete(pids, i, i+1)
			i--
		}
		for _, pid := range children {
			if int(pid) == os.Getpid() {
				return nil, OwnTree(root)
			}
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// childrenOf lists the children of a running process; living is false if it has
// ended.
func childrenOf(pid procfs.PID) (children []procfs.PID, living bool, err error) {
	proc, err := procfs.Open(pid)
	if err != nil {
		return nil, false, err
	}
	defer proc.Close()
	stat, err := proc.Stat()
	if err != nil || stat.State == 'X' || stat.State == 'Z' && stat.NumThreads == 1 {
		return nil, false, err
	}
	if stat.NumThreads == 1 {
		children, err = proc.ChildrenOf([]procfs.PID{pid})
	} else {
		children, err = proc.Children()
	}
	return children, true, err
}

// sort puts the members in the order in which the tree grows again: depth first,
// and of the children of one who leads a session those first that were there
// before it did.
func (t *Tree) sort() {
	var sorted []*Member
	var walk func(m *Member)
	walk = func(m *Member) {
		sorted = append(sorted, m)
		for _, inside := range []bool{false, true} {
			for _, c := range t.Members {
				if c.Parent == m && inside == (t.born(c) == m.PID) {
					walk(c)
				}
			}
		}
	}
	walk(t.Members[0])
	t.Members = sorted
}

// born is the session that a process was born in: its own, or that of a child
// from before it led one; the one that its parent leads if neither tells.
func (t *Tree) born(m *Member) procfs.PID {
	if m.session != m.PID {
		return m.session
	}
	for _, c := range t.Members {
		if c.Parent != m {
			continue
		}
		if session := t.born(c); session != m.PID {
			return session
		}
	}
	return m.Parent.PID
}

// Thaw is Frozen.Thaw for all of them.
func (t *Tree) Thaw() error { return t.each((*Frozen).Thaw) }

// Stop is Frozen.Stop for all of them.
func (t *Tree) Stop() error { return t.each((*Frozen).Stop) }

// Kill ends all of them. None sees another one end.
func (t *Tree) Kill() error {
	var errs []error
	frozen := false
	for _, m := range slices.Backward(t.Members) {
		if err := unix.Kill(int(m.PID), unix.SIGKILL); err != nil {
			return errors.Join(fmt.Errorf("kill pid %d: %w", m.PID, err), t.Thaw())
		}
		frozen = frozen || len(m.freezers) > 0
	}
	if !frozen {
		return nil
	}
	// A task that is frozen does not die.
	for _, m := range slices.Backward(t.Members) {
		errs = append(errs, m.Leader().Kill())
		m.Tasks = nil
	}
	return errors.Join(append(errs, t.Thaw())...)
}

// each calls do for every member, children first. The control groups come before
// all: a task that is let go must find its own as it was.
func (t *Tree) each(do func(*Frozen) error) error {
	var errs []error
	for _, m := range t.Members {
		errs = append(errs, m.close())
	}
	for _, m := range slices.Backward(t.Members) {
		errs = append(errs, do(m.Frozen))
	}
	return errors.Join(errs...)
}
