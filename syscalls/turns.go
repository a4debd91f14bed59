package syscalls

import (
	"sync"

	"github.com/crshim/crshim/tracer/procfs"
)

// turns makes the calls of one task follow each other. A task that runs on has its answer, but the handler of that call
// may still have something to put down which the next call asks for.
type turns struct {
	mu   sync.Mutex
	last map[procfs.PID]chan struct{} // closed at the end of the task's latest call; protected by mu
}

// take waits for the end of the task's call before this one. The function that it returns ends this one.
func (t *turns) take(tid procfs.PID) (end func()) {
	if tid == 0 {
		return func() {} // not visible to us: there may be many of them
	}
	mine := make(chan struct{})
	t.mu.Lock()
	if t.last == nil {
		t.last = make(map[procfs.PID]chan struct{})
	}
	before := t.last[tid]
	t.last[tid] = mine
	t.mu.Unlock()
	if before != nil {
		<-before
	}
	return func() {
		t.mu.Lock()
		if t.last[tid] == mine {
			delete(t.last, tid)
		}
		t.mu.Unlock()
		close(mine)
	}
}
