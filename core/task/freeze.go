package task

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Frozen is a process all of whose tasks are in a ptrace stop.
type Frozen struct {
	PID   procfs.PID
	Tasks []*tracer.Tracee // the leader first, the others as they were made
	// Caller, if it is one of Tasks, was stopped by Catch and is not ours to
	// let go.
	Caller *tracer.Tracee

	freezers []freezer        // thawed for us
	others   []*tracer.Tracee // tasks that those held too
}

// Leader returns the task that gave the process its pid.
func (f *Frozen) Leader() *tracer.Tracee { return f.Tasks[0] }

// Freeze stops every task of a process, but for one that has been caught as the
// caller; nil if there is none. New threads can appear until all known ones are
// stopped, so the list is read until it names no new one.
func Freeze(t *tracer.Tracer, claims *Claims, pid procfs.PID, caller *tracer.Tracee) (*Frozen, error) {
	proc, err := procfs.Open(pid)
	if err != nil {
		return nil, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	defer proc.Close()
	f := &Frozen{PID: pid, Caller: caller}
	known := make(map[procfs.PID]int) // and the place of each in the list
	var freezers []freezer
	if caller != nil {
		f.Tasks = append(f.Tasks, caller)
		known[caller.TID()] = 0
	} else if freezers, err = freezersOf(proc); err != nil {
		return nil, err // a caller runs, or it could not call
	}
	for {
		tids, err := proc.Threads()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("list threads of pid %d: %w", pid, err), f.Thaw())
		}
		fresh := tids[:0:0]
		for i, tid := range tids {
			if _, ok := known[tid]; !ok {
				fresh = append(fresh, tid)
			}
			known[tid] = i
		}
		if len(fresh) == 0 {
			break
		}
		thaw := func() error { return nil }
		if len(freezers) > 0 && len(f.Tasks) == 0 {
			thaw = func() error { return f.open(t, claims, freezers, tids) }
		}
		if err := f.stop(t, claims, fresh, thaw); err != nil {
			return nil, errors.Join(err, f.Thaw())
		}
	}
	slices.SortFunc(f.Tasks, func(a, b *tracer.Tracee) int { return known[a.TID()] - known[b.TID()] })
	if len(f.Tasks) == 0 || f.Tasks[0].TID() != pid {
		return nil, errors.Join(fmt.Errorf("freeze pid %d: %w", pid, tracer.ErrGone), f.Thaw())
	}
	return f, nil
}

// stop interrupts the tasks all at once and then waits for each. What thaw
// does it may do only when none of them can run any more.
func (f *Frozen) stop(t *tracer.Tracer, claims *Claims, tids []procfs.PID, thaw func() error) error {
	from := len(f.Tasks)
	for _, tid := range tids {
		e, err := seize(t, tid, fmt.Sprintf("task %d of pid %d", tid, f.PID))
		if fault.Errno(err) == unix.ESRCH && tid != f.PID {
			continue // a thread that ended meanwhile
		}
		if err != nil {
			return err
		}
		f.Tasks = append(f.Tasks, e)
		if err := e.Interrupt(); err != nil {
			return fmt.Errorf("interrupt task %d: %w", tid, err)
		}
	}
	if err := thaw(); err != nil {
		return err
	}
	return awaitStops(claims, f.Tasks[from:])
}

// awaitStops waits for interrupted tasks.
func awaitStops(claims *Claims, tasks []*tracer.Tracee) error {
	for _, e := range tasks {
		answer := func() error { return claims.Restart(e.TID()) }
		if err := answer(); err != nil {
			return fmt.Errorf("answer call of task %d: %w", e.TID(), err)
		}
		if err := waitStopped(e, answer); err != nil {
			return err
		}
	}
	return nil
}

// Thaw lets every task go on in the state that it was in before: running,
// stopped by a signal, or frozen by its control group.
func (f *Frozen) Thaw() error {
	errs := []error{f.close()}
	for _, e := range slices.Concat(f.Tasks, f.others) {
		if e == f.Caller {
			continue
		}
		if err := e.Detach(0); err != nil && !errors.Is(err, tracer.ErrGone) {
			errs = append(errs, fmt.Errorf("thaw task %d: %w", e.TID(), err))
		}
	}
	return errors.Join(errs...)
}

// Stop leaves the process stopped as by SIGSTOP.
func (f *Frozen) Stop() error {
	if err := unix.Kill(int(f.PID), unix.SIGSTOP); err != nil {
		return errors.Join(fmt.Errorf("stop pid %d: %w", f.PID, err), f.Thaw())
	}
	return f.Thaw()
}

// Kill ends the process. It never runs again, not even to see the signal.
func (f *Frozen) Kill() error {
	if err := unix.Kill(int(f.PID), unix.SIGKILL); err != nil {
		return errors.Join(fmt.Errorf("kill pid %d: %w", f.PID, err), f.Thaw())
	}
	if len(f.freezers) == 0 {
		return nil
	}
	// A task that is frozen does not die.
	err := f.Leader().Kill()
	f.Tasks = nil
	return errors.Join(err, f.Thaw())
}
