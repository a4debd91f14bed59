package tracer

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// When a thread executes a program, all others of its process end first, and it
// takes the number of the leader (ptrace(2), "execve(2) under ptrace"). A thread
// that is traced has not ended before its tracer has waited for it; and meanwhile nobody can
// be seized in that process (cred_guard_mutex of the kernel). So a tracer that
// has some of the threads, and seizes another one, would wait for itself.

// reapEvery is how long a seizure waits before it looks for threads that have ended.
const reapEvery = 5 * time.Millisecond

// seizeBeside is PTRACE_SEIZE. If it takes long, those of the threads beside that have
// ended are waited for on another thread of ours.
func seizeBeside(tid TID, options uintptr, beside []*Tracee) error {
	if len(beside) == 0 {
		return ptraceValue(unix.PTRACE_SEIZE, tid, 0, options)
	}
	tids := make([]TID, len(beside))
	for i, e := range beside {
		tids[i] = e.tid
	}
	var mu sync.Mutex // the numbers are those of the threads while the call lasts
	over := false
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(reapEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		for _, tid := range tids {
			_, _ = waitEnded(tid, 0) // who traces it finds that out
		}
		timer.Reset(reapEvery)
	})
	mu.Unlock()
	err := ptraceValue(unix.PTRACE_SEIZE, tid, 0, options)
	mu.Lock()
	defer mu.Unlock()
	over = true
	timer.Stop()
	return err
}

// waitEnded waits for a task if it has ended. The kernel reports stops of tracees
// whether asked for or not (wait_task_stopped), so it looks first.
func waitEnded(tid TID, flags int) (bool, error) {
	const exited, killed, dumped = 1, 2, 3 // CLD_*
	flags |= unix.WEXITED | unix.WNOHANG | unix.WALL
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, int(tid), &info, flags|unix.WNOWAIT, nil)
	switch {
	case errors.Is(err, unix.ECHILD):
		return true, nil
	case err != nil || info.Signo == 0 || info.Code != exited && info.Code != killed && info.Code != dumped:
		return false, err
	}
	return true, unix.Waitid(unix.P_PID, int(tid), nil, flags, nil)
}

// Ended tells whether the task has ended and been waited for, or has another number
// since it has executed a program. A stop that nobody has waited for yet remains.
func (e *Tracee) Ended() (bool, error) {
	e.t.check()
	if e.t.tracees[e.tid] != e {
		return true, nil
	}
	ended, err := waitEnded(e.tid, unix.WNOTHREAD)
	if ended {
		e.forget()
	}
	return ended, e.fault("wait for", err)
}

// adopt finds that a task which cannot be seized is traced by us already: it was
// a thread with another number when it was.
func (t *Tracer) adopt(tid TID, opt Options) (*Tracee, error) {
	if before := t.tracees[tid]; before != nil && !before.gone {
		return nil, nil
	}
	e := &Tracee{t: t, tid: tid, opt: opt, suspended: t.suspends}
	facts, err := e.facts()
	if err != nil {
		return nil, fmt.Errorf("find tracer of task %d: %w", tid, err)
	}
	if int(facts.tracer) != t.owner || facts.ended {
		return nil, nil
	}
	t.tracees[tid] = e
	return e, nil
}
