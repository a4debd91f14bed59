package core

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

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
		options := tracer.InjectOptions{Mappings: m.view.Mappings}
		if i == 0 && len(c.members) > 1 {
			options.ScratchSize = c.roomToGather()
		}
		if with := c.tree.MemoryOf(i); with != i {
			if err := m.Leader().ShareMemory(c.members[with].Leader()); err != nil {
				return err
			}
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
