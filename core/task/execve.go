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

// A thread that executes a program ends all others, those that are stopped too, and
// gets the number of the leader, which may be a zombie meanwhile.

// reap waits for those that have ended: who executes a program needs that.
func reap(tasks []*tracer.Tracee) error {
	var errs []error
	for _, e := range tasks {
		_, err := e.Ended()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// settle looks at the tasks again when all should have stopped, and tells whether
// they have. It forgets those that have ended since, and removes them from those that are
// known. Who has executed a program has the number of the leader, and perhaps does not
// stand still yet.
func (f *Frozen) settle(claims *Claims, stopped []*tracer.Tracee, known map[procfs.PID]int) (settled bool, err error) {
	var moved, kept []*tracer.Tracee
	settled = true
	for _, e := range f.Tasks {
		stop, err := e.WaitStop(0)
		if errors.Is(err, tracer.ErrTimeout) {
			_, err = e.Regs() // nothing new: it is stopped, or ends, or is another one
		} else if err == nil && stop.Kind == tracer.ExecStop {
			moved = append(moved, e)
			err = errors.Join(e.Interrupt(), e.Cont(0))
		}
		if err == nil && !stop.Gone() {
			kept = append(kept, e)
			continue
		}
		if err != nil && !errors.Is(err, tracer.ErrGone) {
			return false, err
		}
		if slices.Contains(stopped, e) {
			return false, fmt.Errorf("freeze task %d: %w", e.TID(), tracer.ErrGone)
		}
		settled = false
		if ended, err := e.Ended(); err != nil {
			return false, err
		} else if !ended && e.TID() != f.PID {
			kept = append(kept, e) // it is on its way, and must be waited for
			continue
		}
		delete(known, e.TID())
	}
	f.Tasks = kept
	return settled, awaitStops(claims, moved, f.Tasks)
}

// withoutLeader is why a process cannot be frozen whose leader has ended although
// all other threads stand still.
func withoutLeader(pid procfs.PID, others int) error {
	if others > 0 {
		return &fault.Error{Code: fault.LeaderEnded, Object: fmt.Sprintf("pid %d", pid), Detail: fmt.Sprintf("%d others run on", others)}
	}
	return &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: tracer.ErrGone}
}

// replaced tells of a task that could not be seized (EPERM) that this was no matter
// of rights: the kernel waits while a thread executes a program, and then finds that
// the leader has ended, whose number is that of the thread by now. The same rights are
// asked for to open its memory.
func replaced(tid procfs.PID) bool {
	status, err := statusOf(tid)
	if err != nil || status.Kthread {
		return false
	}
	if status.TracerPid != 0 {
		return int(status.TracerPid) == unix.Gettid() // the thread was ours before
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}
