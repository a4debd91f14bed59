package core

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// A process cannot be put into a session, but for that of who makes it. So one
// that has lost the leader of its session is made by somebody who leads such a
// one, as a child of the parent that it has (CLONE_PARENT), before anything of
// the image is in either. Who only was there to lead ends again.

// born is a process that was made before the image came to it.
type born struct {
	tracee *tracer.Tracee
	leads  bool           // a session
	remote *tracer.Remote // if it is borrowed: its parent has forked it just now
}

// bear returns a process of the image, which its parent makes now unless it was
// made before.
func (r *restart) bear(i int) (*born, error) {
	if s := r.forest.strayOf(i); s != nil && r.born[i] == nil {
		if err := r.bearAll(s); err != nil {
			return nil, fmt.Errorf("make session %d: %w", s.number, err)
		}
	}
	if b := r.born[i]; b != nil {
		delete(r.born, i)
		return b, nil
	}
	p := &r.forest.living[i]
	parent := r.plants[p.parent]
	at, err := r.roomFor(p.maker, p.Shares)
	if err != nil {
		return nil, err
	}
	child, err := r.forkBorrowed(parent.remote, parent.view.Name(), p.numbers(), unix.Signal(p.ExitSignal), r.forest.cloned(p), at)
	if err != nil {
		return nil, err
	}
	return &born{tracee: child.Tracee(), remote: child}, nil
}

// bearAll makes the processes that come straight into such a session.
func (r *restart) bearAll(s *stray) error {
	parent := r.plants[s.parent]
	leader, err := r.fork(parent, s.numbers, s.signal, together(s.shares))
	if err != nil {
		return err
	}
	r.unwanted = leader
	err = leader.Inject(tracer.InjectOptions{}, func(rem *tracer.Remote) error {
		group, err := rem.Syscall(unix.SYS_GETPID)
		if err != nil {
			return err
		}
		if r.groups[s.number], err = r.namesOf(leader); err != nil {
			return err
		}
		// He is not their parent, who has to wait for them if the stage fails.
		for range len(s.processes) + 1 {
			if err := parent.remote.Undo(unix.SYS_WAIT4, -group, 0, unix.WALL, 0); err != nil {
				return err
			}
		}
		if _, err := rem.Syscall(unix.SYS_SETSID); err != nil {
			return err
		}
		for _, i := range s.processes {
			p := &r.forest.living[i]
			child, err := r.forkBy(rem, parent.view.Name(), p.numbers(), 0, unix.CLONE_PARENT|r.forest.cloned(p), 0)
			if err != nil {
				return err
			}
			r.born[i] = &born{tracee: child}
			number, err := r.namesOf(child)
			if err != nil {
				return err
			}
			// It may go into another group.
			if err := parent.remote.Undo(unix.SYS_WAIT4, number.to(parent), 0, unix.WALL, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch r.unwanted = nil; {
	case s.leader >= 0:
		r.born[s.leader] = &born{tracee: leader, leads: true}
		return nil
	case s.waits:
		r.leaders[s.number] = leader
		return nil
	}
	if err := leader.Kill(); err != nil {
		return err
	}
	if _, err := parent.remote.Syscall(unix.SYS_WAIT4, r.groups[s.number].to(parent), 0, unix.WALL, 0); err != nil {
		return err
	}
	return parent.dropSignal(s.signal)
}

// endUnborn ends what was made and never became a process of the image.
func (r *restart) endUnborn() error {
	var errs []error
	for _, b := range r.born {
		errs = append(errs, b.tracee.Kill())
	}
	for _, leader := range r.leaders {
		errs = append(errs, leader.Kill())
	}
	if r.unwanted != nil {
		errs = append(errs, r.unwanted.Kill())
	}
	return errors.Join(errs...)
}
