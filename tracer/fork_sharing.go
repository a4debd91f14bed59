package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Processes that have their memory together (CLONE_VM) are borrowed side by side:
// each has scratch memory of its own in it, and a place of its own for boot code.

// ForkSharing is ForkBorrowed of a child that has the memory of the process, and
// scratch memory of its own at the page boundary at. flags must have CLONE_VM.
func (r *Remote) ForkSharing(tids []TID, signal unix.Signal, flags uint64, at Addr) (*Remote, error) {
	if err := r.ready(); err != nil {
		return nil, err
	}
	child, err := r.fork(tids, signal, flags, at)
	if err != nil {
		return nil, fmt.Errorf("fork task %d: %w", r.e.tid, err)
	}
	return child, nil
}

// ShareMemory says that a task has the memory of another process. It comes before
// either is borrowed a second time.
func (e *Tracee) ShareMemory(with *Tracee) error {
	owner, err := with.space()
	if err != nil {
		return err
	}
	with.shared = true
	e.sharesWith, e.shared = owner, true
	return nil
}

// space is the process whose memory the task has.
func (e *Tracee) space() (TID, error) {
	if e.sharesWith != 0 {
		return e.sharesWith, nil
	}
	return e.Leader()
}

// adoptSharing takes over the process that r's task has just forked. Should we end,
// it ends as well, so that it never goes on where it is.
func (r *Remote) adoptSharing(at Addr) (*Remote, error) {
	c, err := r.forked()
	if err != nil {
		return nil, err
	}
	err = errors.Join(c.setOptions(), c.ShareMemory(r.e))
	var loan *Remote
	if err == nil {
		opt := r.opt
		opt.At = at
		loan, err = c.Borrow(opt)
	}
	if err != nil {
		return nil, errors.Join(err, c.Kill())
	}
	return loan, nil
}

// forgetBoots clears, in a child with a copy of the memory, the copies of boot code
// that is somebody else's.
func (r *Remote) forgetBoots(child *Tracee) error {
	if !r.e.shared {
		return nil
	}
	owner, err := r.e.space()
	if err != nil {
		return err
	}
	var errs []error
	for key := range r.e.t.boots {
		if key.leader == owner && key.addr != r.boot.addr {
			errs = append(errs, child.pokeMem(key.addr, make([]byte, bootSize)))
		}
	}
	return errors.Join(errs...)
}
