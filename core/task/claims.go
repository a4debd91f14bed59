package task

import (
	"errors"
	"sync"

	"github.com/crshim/crshim/tracer/procfs"
)

// Claims says which processes an operation is busy with.
// The zero value is ready for use.
type Claims struct {
	mu      sync.Mutex
	changed *sync.Cond              // broadcast when a claim ends or a waiting call is answered
	held    map[procfs.PID]bool     // thread groups
	waiting map[procfs.PID]*Waiting // by task
}

// Enter registers a caller, so that whoever freezes it can answer it.
// The caller's operation must end with Leave.
func (c *Claims) Enter(caller Caller) *Waiting {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	w := &Waiting{Caller: caller}
	c.waiting[caller.TID] = w
	return w
}

// Leave ends what Enter began.
func (c *Claims) Leave(w *Waiting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[w.TID] == w {
		delete(c.waiting, w.TID)
	}
}

// Hold waits until none of the processes is claimed by another operation and
// claims them all. While it waits, the caller on whose behalf it does (nil if
// there is none) may be frozen by another operation: ErrAnswered.
func (c *Claims) Hold(w *Waiting, pids ...procfs.PID) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	for {
		if w != nil && w.Answered() {
			return nil, ErrAnswered
		}
		if !c.anyHeld(pids) {
			break
		}
		c.changed.Wait()
	}
	for _, pid := range pids {
		c.held[pid] = true
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, pid := range pids {
			delete(c.held, pid)
		}
		c.changed.Broadcast()
	}, nil
}

// Restart answers the call in which a task waits, if it does, so that the
// task makes the call again once it runs. The task must have been seized and
// interrupted: else it would see the kernel's internal error number.
func (c *Claims) Restart(tid procfs.PID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	w := c.waiting[tid]
	if w == nil {
		return nil
	}
	if err := w.answer(ERESTARTNOINTR); err != nil && !errors.Is(err, ErrAnswered) {
		return err
	}
	c.changed.Broadcast()
	return nil
}

func (c *Claims) init() {
	if c.changed == nil {
		c.changed = sync.NewCond(&c.mu)
		c.held = make(map[procfs.PID]bool)
		c.waiting = make(map[procfs.PID]*Waiting)
	}
}

func (c *Claims) anyHeld(pids []procfs.PID) bool {
	for _, pid := range pids {
		if c.held[pid] {
			return true
		}
	}
	return false
}
