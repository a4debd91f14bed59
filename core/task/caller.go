package task

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// ERESTARTNOINTR is the kernel's own result for "make the call again": a task
// that is stopped on its way out of a system call never sees it
// (include/linux/errno.h).
const ERESTARTNOINTR = unix.Errno(513)

// stopTimeout is how long a task may take to stop. Tasks in uninterruptible
// sleep do not; a minute of a hung network mount must not hang the caller.
const stopTimeout = 10 * time.Second

// inVforkFrom is from which wait on it is looked why a task does not stop.
const inVforkFrom = 64 * time.Millisecond

// ErrAnswered says that a waiting call was already answered.
var ErrAnswered = errors.New("call already answered")

// Caller is a task that waits inside an emulated call.
type Caller struct {
	TID procfs.PID
	// Answer ends the wait: the call fails with that errno unless the result
	// is replaced before the task runs again. It is called once.
	Answer func(unix.Errno) error
	// Valid fails once the task no longer waits (it was killed).
	Valid func() error
}

// Waiting is a caller that has not been answered yet, shared between its own
// operation and others that may want to freeze it.
type Waiting struct {
	Caller
	mu       sync.Mutex
	answered bool
}

// answer answers once and says ErrAnswered after that.
func (w *Waiting) answer(errno unix.Errno) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.answered {
		return ErrAnswered
	}
	w.answered = true
	return w.Caller.Answer(errno)
}

// Answered tells whether the call has its answer.
func (w *Waiting) Answered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered
}

// Catch stops a waiting caller at the exit of its call, with EINTR as the
// result that it will see if nobody sets another.
func Catch(t *tracer.Tracer, w *Waiting) (*tracer.Tracee, error) {
	e, err := seize(t, w.TID, "the caller")
	if err != nil {
		return nil, err
	}
	if err := e.Interrupt(); err != nil {
		return nil, errors.Join(fmt.Errorf("interrupt caller: %w", err), e.Detach(0))
	}
	if err := w.answer(unix.EINTR); err != nil {
		return nil, errors.Join(fmt.Errorf("answer caller: %w", err), e.Detach(0))
	}
	if err := waitStopped(e, func() error { return nil }); err != nil {
		return nil, err
	}
	return e, nil
}

// seize attaches without stopping and says in the project's words why not.
// beside are threads of the same process that are seized already.
func seize(t *tracer.Tracer, tid procfs.PID, what string, beside ...*tracer.Tracee) (*tracer.Tracee, error) {
	e, err := t.Seize(tid, tracer.Options{Beside: beside})
	switch {
	case err == nil:
		return e, nil
	case errors.Is(err, tracer.ErrGone):
		return nil, &fault.Error{Code: fault.NoSuchProcess, Object: what, Err: err}
	case errors.Is(err, unix.EPERM) && (Over(tid) || replaced(tid)):
		return nil, &fault.Error{Code: fault.NoSuchProcess, Object: what, Err: tracer.ErrGone}
	case errors.Is(err, unix.EPERM):
		code := fault.NotPermitted
		if TracedBy(tid) != 0 {
			code = fault.TracedByOther
		}
		return nil, &fault.Error{Code: code, Object: what, Err: err}
	}
	return nil, fmt.Errorf("seize %s: %w", what, err)
}

// Process returns the thread group of a task.
func Process(tid procfs.PID) (procfs.PID, error) {
	status, err := statusOf(tid)
	if err != nil {
		return 0, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", tid), Err: err}
	}
	return status.Tgid, nil
}

// Alone tells whether a process has one thread.
func Alone(pid procfs.PID) bool {
	status, err := statusOf(pid)
	return err == nil && status.Threads == 1
}

func statusOf(tid procfs.PID) (*procfs.Status, error) {
	p, err := procfs.Open(tid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Status()
}

// waitStopped waits for the stop that an interrupt causes. Between waits it
// nudges: a call that the task made just before it was interrupted may become
// known only now. A task that does not stop in time is let go: it goes on as if
// nobody had asked.
func waitStopped(e *tracer.Tracee, nudge func() error) error {
	for wait, waited := time.Millisecond, time.Duration(0); ; wait *= 2 {
		stop, err := e.WaitStop(wait)
		waited += wait
		switch {
		case errors.Is(err, tracer.ErrTimeout) && waited < stopTimeout:
			if err := nudge(); err != nil {
				return err
			}
			if wait < inVforkFrom {
				continue
			}
			if err := inVfork(e.TID(), false); err != nil {
				return err
			}
		case errors.Is(err, tracer.ErrTimeout):
			if err := inVfork(e.TID(), true); err != nil {
				return err
			}
			return &fault.Error{Code: fault.DidNotStop, Object: fmt.Sprintf("pid %d", e.TID()), Err: err}
		case err != nil:
			return fmt.Errorf("wait for task %d to stop: %w", e.TID(), err)
		case stop.Gone():
			return fmt.Errorf("stop task %d: %w", e.TID(), tracer.ErrGone)
		case stop.Kind == tracer.ExecStop:
			// It stands in the middle of execve, and has forgotten the interrupt.
			if err := errors.Join(e.Interrupt(), e.Cont(0)); err != nil {
				return fmt.Errorf("stop task %d: %w", e.TID(), err)
			}
			wait = time.Millisecond / 2
		case stop.Kind == tracer.SignalStop:
			// It has taken a signal before it was interrupted, and is to have it.
			if err := errors.Join(e.Interrupt(), e.Cont(stop.Signal)); err != nil {
				return fmt.Errorf("stop task %d: %w", e.TID(), err)
			}
			wait = time.Millisecond / 2
		default:
			return nil
		}
	}
}
