package tracer

import (
	"errors"

	"golang.org/x/sys/unix"
)

// State returns what the task will go on with: its own state as it was
// borrowed, or what Become has set. An interrupted restartable sequence is
// already aborted in it, as the kernel would have done.
func (r *Remote) State() (State, error) {
	if err := r.ready(); err != nil {
		return State{}, err
	}
	if r.final.Xstate != nil {
		return r.final, nil
	}
	s := r.final
	var err error
	s.Xstate, err = r.e.Xstate() // programs leave it alone
	return s, err
}

// State is what a stopped task that is not borrowed will go on with.
func (e *Tracee) State() (s State, err error) {
	if s.Regs, err = e.Regs(); err != nil {
		return State{}, err
	}
	if s.Sigmask, err = e.Sigmask(); err != nil {
		return State{}, err
	}
	s.Xstate, err = e.Xstate()
	return s, err
}

// SyscallsDispatched tells whether system calls of a stopped task become signals
// (PR_SET_SYSCALL_USER_DISPATCH). The request is there since Linux 6.4; before,
// nobody can tell.
func (e *Tracee) SyscallsDispatched() (bool, error) {
	if err := e.ready(); err != nil {
		return false, e.fault("read dispatch of calls of", err)
	}
	mode, err := e.getSyscallDispatch()
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return mode != 0, e.fault("read dispatch of calls of", err)
}
