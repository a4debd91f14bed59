package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Visit prepares to have other threads of the process, which are stopped, run
// a program each: with Program and then Run. The memory for it is at an address
// that overlaps none of InjectOptions.Avoid. Close ends the visit.
func (r *Remote) Visit(tasks []*Tracee) (*Siblings, error) {
	if err := r.ready(); err != nil {
		return nil, err
	}
	at, err := r.e.choosePlace(r.opt.Avoid, SiblingsSize(len(tasks)))
	if err != nil {
		return nil, err
	}
	s, err := r.mapSiblings(at, len(tasks), siblingsRun)
	if err != nil {
		return nil, r.e.fault("visit siblings of", err)
	}
	s.tasks = tasks
	// Should we end, those that we have sent off go back by themselves.
	p := r.begin()
	s.lead = p.Call(unix.SYS_FUTEX, s.telling(siblingsRun)...).Undo(unix.SYS_FUTEX, s.telling(siblingsLeave)...)
	return s, r.e.fault("visit siblings of", p.Run())
}

// Run has each sibling run its program, all at once, and waits for them. They
// then have their own registers and masks back and are stopped as before. own
// is their states, of which the xstate too must be given. The error is that of
// the first row that failed in one of them.
func (s *Siblings) Run(own []State) error {
	if err := s.write(own); err != nil {
		return fmt.Errorf("prepare siblings: %w", err)
	}
	for i, e := range s.tasks {
		if err := e.ready(); err != nil {
			return e.fault("visit", err)
		}
		if own[i].Regs.Is32() {
			return e.fault("visit", ErrCompat)
		}
	}
	for i, e := range s.tasks {
		// Registers first: with its own mask it does no harm there, but with
		// all blocked it would be lost at home.
		err := e.setRegs(own[i].Regs.resting(s.region.Start, s.block(i)))
		if err == nil {
			err = e.setSigmask(^uint64(0))
		}
		if err == nil {
			err = e.resume(unix.PTRACE_CONT, 0)
		}
		if err != nil {
			return e.fault("visit", err)
		}
	}
	failed := s.await()
	if err := s.halt(); err != nil {
		return err
	}
	if err := s.give(own, false); err != nil {
		return err
	}
	return failed
}

// Close ends a visit.
func (s *Siblings) Close() error {
	p := s.r.begin()
	p.Forget(s.lead)
	if err := p.Run(); err != nil {
		return err
	}
	return s.unmap()
}
