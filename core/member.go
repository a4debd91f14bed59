package core

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
)

// member is a process of the tree that is being saved.
type member struct {
	*task.Member
	view   *resource.View
	remote *tracer.Remote // while it is borrowed
	saver  *resource.Saver
	out    tracer.FD // the image, as it has it; -1 if it writes nothing itself
	lent   bool      // that is ours
}

// borrow has do work with all of the processes.
func (c *checkpoint) borrow(do func() error) (err error) {
	failed := true
	defer func() {
		for _, m := range slices.Backward(c.members) {
			if m.remote == nil {
				continue
			}
			if errors.Is(err, unix.EPIPE) && m.Leader() != c.caught {
				err = errors.Join(err, dropSIGPIPE(m.view, m.remote))
			}
			err = errors.Join(err, m.remote.GiveBack(failed))
		}
	}()
	for i, m := range c.members {
		var options tracer.InjectOptions
		if i == 0 && len(c.members) > 1 {
			options.ScratchSize = c.roomToGather()
		}
		if m.remote, err = m.Leader().Borrow(options); err != nil {
			return err
		}
	}
	err = do()
	failed = err != nil
	return err
}

// roomToGather is the scratch memory that the root needs: the usual, and a little
// for each descriptor that it may be given, to be undone if we end.
func (c *checkpoint) roomToGather() uint64 {
	size := uint64(1 << 20)
	for _, m := range c.members[1:] {
		size += uint64(len(m.view.FDs)) << 12
	}
	return size
}

// prepare makes the saver of a process. The image is read back by in, unless
// that is nil.
func (c *checkpoint) prepare(m *member, w *image.Writer, in *os.File) error {
	threads, err := c.threads(m)
	if err != nil {
		return err
	}
	if m.out, err = c.lendOutput(m); err != nil {
		return err
	}
	s, err := resource.NewSaver(m.view, w, m.out, threads, m.remote)
	if err != nil {
		return err
	}
	m.saver = s
	s.Doomed = c.req.Then == KillTarget && !c.self()
	if in != nil {
		s.Readback, s.Position = in, func() (int64, error) { return c.req.Out.Seek(0, io.SeekCurrent) }
	}
	return nil
}

// threads are what is saved of each task: its state as it was stopped.
func (c *checkpoint) threads(m *member) ([]*resource.SavedThread, error) {
	var threads []*resource.SavedThread
	for _, e := range m.Tasks {
		t := &resource.SavedThread{TID: e.TID(), Tracee: e, Status: m.view.StatusOf(e.TID()), Called: e == m.Caller, Asleep: c.asleep[e.TID()]}
		if t.Status == nil {
			return nil, fmt.Errorf("save task %d: %w", e.TID(), tracer.ErrGone)
		}
		var err error
		if e == m.Leader() {
			t.State, err = m.remote.State()
		} else {
			t.State, err = e.State()
		}
		if err != nil {
			return nil, err
		}
		threads = append(threads, t)
	}
	return threads, nil
}

// takeBack takes back the image's descriptor.
func (m *member) takeBack() error {
	if !m.lent {
		return nil
	}
	p := m.remote.Program()
	p.Close(m.out)
	return p.Run()
}

// checkRelations refuses what binds a process to others in a way that cannot be
// made again.
func (c *checkpoint) checkRelations() error {
	var list fault.List
	root := c.members[0].view
	for _, m := range c.members[1:] {
		if len(m.view.Status.NStgid) != len(root.Status.NStgid) {
			list = append(list, &fault.Error{Code: fault.NestedNamespace, Object: m.view.Name()})
		}
		for _, kind := range []string{"mnt", "ipc", "uts", "net", "user", "cgroup", "time"} {
			same, err := sameNamespace(kind, root.Proc, m.view.Proc)
			if err != nil {
				return err
			}
			if !same {
				list = append(list, &fault.Error{Code: fault.OtherNamespaces, Object: m.view.Name(), Detail: kind})
			}
		}
		if !c.inheritsSession(m) {
			list = append(list, &fault.Error{Code: fault.SessionEnded, Object: m.view.Name(), Detail: fmt.Sprintf("session %d", m.view.Stat.Session)})
		}
	}
	return list.Err()
}

// inheritsSession tells whether a process leads its session or has it from its
// parent, as that has it now or had it before it led one.
func (c *checkpoint) inheritsSession(m *member) bool {
	session := m.view.Stat.Session
	if session == m.PID {
		return true
	}
	for p := m.Parent; p != nil; p = p.Parent {
		v := c.members[slices.IndexFunc(c.members, func(o *member) bool { return o.Member == p })].view
		switch {
		case v.Stat.Session == session:
			return true
		case v.Stat.Session != p.PID:
			return false
		}
	}
	return false
}
