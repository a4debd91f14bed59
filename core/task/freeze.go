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

// Held tells whether its control group keeps it from running.
func (f *Frozen) Held() bool { return len(f.freezers) > 0 }

// freeze stops every task of a process but for those that are stopped already,
// and stay so if it fails. New threads can appear until all known ones are
// stopped, so the list is read until it names no new one, and until none of the
// stopped ones has been ended by another one that executes a program.
func freeze(t *tracer.Tracer, claims *Claims, proc *procfs.Proc, stopped []*tracer.Tracee) (frozen *Frozen, err error) {
	pid := proc.PID()
	f := &Frozen{PID: pid, Tasks: slices.Clone(stopped)}
	defer func() {
		if err != nil {
			f.Tasks = slices.DeleteFunc(f.Tasks, func(e *tracer.Tracee) bool { return slices.Contains(stopped, e) })
			err = errors.Join(err, f.Thaw())
		}
	}()
	known := make(map[procfs.PID]int) // and the place of each in the list
	var last []procfs.PID
	leaderless := false
	var freezers []freezer
	for _, e := range stopped {
		known[e.TID()] = 0
	}
	if len(stopped) > 0 {
		// They run, or they could not have called or been stopped.
	} else if freezers, err = freezersOf(proc); err != nil {
		return nil, err
	}
	for {
		tids, err := proc.Threads()
		if err != nil {
			return nil, fmt.Errorf("list threads of pid %d: %w", pid, err)
		}
		fresh := tids[:0:0]
		if leaderless && slices.Equal(tids, last) && Over(pid) {
			return nil, withoutLeader(pid, len(tids)-1)
		}
		for i, tid := range tids {
			if _, ok := known[tid]; !ok {
				fresh = append(fresh, tid)
			}
			known[tid] = i
		}
		if len(fresh) == 0 {
			settled, err := f.settle(claims, stopped, known)
			if err != nil {
				return nil, err
			}
			if settled {
				break
			}
			continue
		}
		thaw := func() error { return nil }
		if len(freezers) > 0 && len(f.Tasks) == 0 {
			thaw = func() error { return f.open(t, claims, freezers, tids) }
		}
		if err := f.stop(t, claims, fresh, thaw); err != nil {
			return nil, err
		}
		last, leaderless = tids, !slices.ContainsFunc(f.Tasks, func(e *tracer.Tracee) bool { return e.TID() == pid })
		if leaderless {
			delete(known, pid)
		}
	}
	slices.SortFunc(f.Tasks, func(a, b *tracer.Tracee) int { return known[a.TID()] - known[b.TID()] })
	if len(f.Tasks) == 0 || f.Tasks[0].TID() != pid {
		return nil, fmt.Errorf("freeze pid %d: %w", pid, tracer.ErrGone)
	}
	return f, nil
}

// stop interrupts the tasks all at once and then waits for each. What thaw
// does it may do only when none of them can run any more.
func (f *Frozen) stop(t *tracer.Tracer, claims *Claims, tids []procfs.PID, thaw func() error) error {
	from := len(f.Tasks)
	for _, tid := range tids {
		e, err := seize(t, tid, fmt.Sprintf("task %d of pid %d", tid, f.PID), f.Tasks...)
		if fault.Errno(err) == unix.ESRCH {
			continue // a thread that ended meanwhile
		}
		if err != nil {
			return err
		}
		f.Tasks = append(f.Tasks, e)
		if err := e.Interrupt(); err != nil && !errors.Is(err, tracer.ErrGone) {
			return fmt.Errorf("interrupt task %d: %w", tid, err)
		}
	}
	if err := thaw(); err != nil {
		return err
	}
	return awaitStops(claims, f.Tasks[from:], f.Tasks)
}

// awaitStops waits until interrupted tasks have stopped, or ended. All are those
// that are ours: one that executes a program waits for others of them to end.
func awaitStops(claims *Claims, tasks, all []*tracer.Tracee) error {
	for _, e := range tasks {
		answer := func() error { return claims.Restart(e.TID()) }
		if err := answer(); err != nil {
			return fmt.Errorf("answer call of task %d: %w", e.TID(), err)
		}
		err := waitStopped(e, func() error { return errors.Join(reap(all), answer()) })
		if err == nil {
			err = unnoticed(e)
		}
		if err != nil && !errors.Is(err, tracer.ErrGone) {
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
		err := e.Detach(0)
		if errors.Is(err, tracer.ErrRunning) {
			continue // it did not stop in time, and is let go with the tracer
		}
		if err != nil && !errors.Is(err, tracer.ErrGone) {
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
