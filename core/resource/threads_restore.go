package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// newLoadedThread prepares to read a thread.
func newLoadedThread() *LoadedThread {
	t := new(LoadedThread)
	for _, p := range Parts {
		var part ThreadRestoring
		if p.RestoreThread != nil {
			part = p.RestoreThread()
		}
		t.parts = append(t.parts, part)
	}
	return t
}

// loadThread reads what one part has to say of a thread.
func (b *Builder) loadThread(t *LoadedThread, i int) error {
	if t.parts[i] == nil {
		return nil
	}
	if err := t.parts[i].Load(b, t); err != nil {
		return fmt.Errorf("load %s: %w", Parts[i].Name, err)
	}
	return nil
}

// maxThreads bounds hostile input: it is the kernel's own limit of task numbers
// (PID_MAX_LIMIT of include/linux/threads.h).
const maxThreads = 4 << 20

// loadSiblings reads the threads behind the first.
func (b *Builder) loadSiblings() error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != image.KindThread {
			return err
		}
		if b.sharesMemory() {
			return badImage(fault.ImageValue, "threads", "of a process that has its memory of another one")
		}
		if len(b.Threads) == maxThreads {
			return badImage(fault.ImageValue, "threads", "more than %d", maxThreads)
		}
		t := newLoadedThread()
		b.Threads = append(b.Threads, t)
		for i := range Parts {
			if err := b.loadThread(t, i); err != nil {
				return err
			}
		}
	}
}

// Spawn makes the threads behind the first, and what parts make that refers to
// threads. They do nothing until Commit, and end if the stage is undone. It
// comes last in the stage.
func (b *Builder) Spawn() error {
	if err := b.Flush(); err != nil {
		return err
	}
	if err := b.spawn(b.Threads[1:]); err != nil {
		return err
	}
	for i, part := range b.parts {
		if part, ok := part.(interface{ Spawned(*Builder) error }); ok {
			if err := part.Spawned(b); err != nil {
				return fmt.Errorf("load %s: %w", Parts[i].Name, err)
			}
		}
	}
	return b.Flush()
}

func (b *Builder) spawn(others []*LoadedThread) error {
	if len(others) == 0 {
		return nil
	}
	at, ok := b.Layout.Find(tracer.SiblingsSize(len(others)), 0, procfs.PageSize)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: b.Caller.Name()}
	}
	b.Layout.Occupy(at)
	tids, err := b.numbers(others)
	if err != nil {
		return err
	}
	b.spawned, err = b.Remote.Spawn(at.Start, tids)
	switch {
	case errors.Is(err, unix.EEXIST):
		return &fault.Error{Code: fault.PIDTaken, Object: "thread", Err: err}
	case errors.Is(err, unix.EAGAIN):
		return &fault.Error{Code: fault.ThreadLimit, Object: b.Caller.Name(), Detail: fmt.Sprintf("%d threads", len(b.Threads)), Err: err}
	case err != nil:
		return fmt.Errorf("make threads: %w", err)
	}
	own, err := b.spawned.Own()
	if err != nil {
		return fmt.Errorf("read thread ids: %w", err)
	}
	for i, t := range others {
		t.TID = own[i]
	}
	return nil
}

// numbers says which thread ids to ask for: those of the image where the
// process has its pid of then and may choose, and nobody has taken one. Else
// the kernel chooses.
func (b *Builder) numbers(others []*LoadedThread) ([]procfs.PID, error) {
	free := make([]procfs.PID, len(others)) // 0 is any
	if b.VPID != b.Threads[0].Saved || !b.mayRestore() {
		b.Warn("all threads get new ids: a locked mutex that notes its owner, or a program that keeps ids itself, does not know them")
		return free, nil
	}
	p := b.Remote.Program()
	rows := make([]*tracer.Row, len(others))
	for i, t := range others {
		rows[i] = p.Call(unix.SYS_SCHED_GETSCHEDULER, tracer.Imm(uint64(t.Saved))).Tolerate()
	}
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("look for free thread ids: %w", err)
	}
	tids := make([]procfs.PID, len(others))
	for i, row := range rows {
		if !errors.Is(row.Err(), unix.ESRCH) {
			b.Warn("thread id %d is taken: all threads but the first get new ones", others[i].Saved)
			return free, nil
		}
		tids[i] = others[i].Saved
	}
	return tids, nil
}

// prepareSiblings says what the spawned threads do and become, and has the
// program that commits the process let them do it at its end.
func (b *Builder) prepareSiblings(p *tracer.Program) error {
	for _, t := range b.Threads {
		for i, part := range t.parts {
			if lead, ok := part.(threadLeading); ok {
				if err := lead.Lead(b, t, p); err != nil {
					return fmt.Errorf("prepare commit of %s: %w", Parts[i].Name, err)
				}
			}
		}
	}
	if b.spawned == nil {
		return nil
	}
	for k, t := range b.Threads[1:] {
		own := b.spawned.Program(k)
		for i, part := range t.parts {
			if part == nil {
				continue
			}
			if err := part.Commit(b, t, own); err != nil {
				return fmt.Errorf("prepare commit of %s: %w", Parts[i].Name, err)
			}
		}
		if err := b.finishThread(t, own); err != nil {
			return err
		}
	}
	return b.spawned.Prepare(b.siblingStates())
}

// settleSiblings gives the spawned threads their states.
func (b *Builder) settleSiblings() error {
	if b.spawned == nil {
		return nil
	}
	if err := b.spawned.Halt(); err != nil {
		return err
	}
	for k, t := range b.Threads[1:] {
		err := b.resumeSleep(t, func(nr uintptr, args ...uint64) (int64, error) {
			return b.spawned.Interrupted(k, nr, args...)
		})
		if err != nil {
			return err
		}
	}
	return b.spawned.Settle(b.siblingStates())
}

func (b *Builder) siblingStates() []tracer.State {
	var states []tracer.State
	for _, t := range b.Threads[1:] {
		states = append(states, t.State)
	}
	return states
}

// Detach lets the spawned threads go.
func (b *Builder) Detach() error {
	if b.spawned == nil {
		return nil
	}
	return b.spawned.Detach()
}
