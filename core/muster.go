package core

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer/procfs"
)

// The protocol of 2009 for trees: a restarter forks the tasks by itself, writes
// their process ids into the image, and each of them calls restart() with the
// number of the first one, the root. Those others wait here until the root has
// read the head of the image and all that it names are there. Then they belong to
// the root's restart; what becomes of that is what becomes of them.

// arrival is a task that waits for a root.
type arrival struct {
	waiting *task.Waiting
	process procfs.PID
	over    chan struct{} // closed when value and err say how it went
	value   int64
	err     error
}

// end tells how it went.
func (a *arrival) end(value int64, err error) {
	a.value, a.err = value, err
	close(a.over)
}

// musters holds those that wait and that no root has taken yet. The zero value is
// ready for use.
type musters struct {
	mu      sync.Mutex
	at      map[procfs.PID]map[procfs.PID]*arrival // by root, by process
	lost    map[procfs.PID]uint64                  // roots whose last restart has failed, with the time of their start
	changed chan struct{}                          // closed when somebody has come
}

// musterTick is how often those who wait look for what nothing tells them: a
// notified call is woken by fatal signals alone (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV).
const musterTick = 20 * time.Millisecond

// Join has a caller wait to become a process of the tree that root restarts.
func (e *Engine) Join(caller *Caller, root PID) (int64, error) {
	process, err := task.Process(caller.TID)
	if err != nil {
		return 0, err
	}
	pidfd, err := unix.PidfdOpen(int(root), 0)
	if err != nil {
		return 0, &fault.Error{Code: fault.CallCRID, Object: "restart", Err: err}
	}
	defer func() { _ = unix.Close(pidfd) }() // only watched
	if err := e.mayJoin(process, root); err != nil {
		return 0, err
	}
	a := &arrival{waiting: e.claims.Enter(*caller), process: process, over: make(chan struct{})}
	defer e.claims.Leave(a.waiting)
	if err := e.musters.enter(root, a); err != nil {
		return 0, err
	}
	tick := time.NewTicker(musterTick)
	defer tick.Stop()
	for {
		select {
		case <-a.over:
			return a.value, a.err
		case <-tick.C:
			err := patience(a.waiting)
			if err == nil && ended(pidfd) {
				err = rootLost(process)
			}
			if err != nil && e.musters.leave(root, a) {
				return 0, err
			}
		}
	}
}

func rootLost(process procfs.PID) error {
	return &fault.Error{Code: fault.RootLost, Object: fmt.Sprintf("pid %d", process)}
}

// mayJoin refuses to wait for who can never take the caller: its tree is below
// the root, and that has to make an emulated call.
func (e *Engine) mayJoin(process, root procfs.PID) error {
	below, err := task.Below(process, root)
	if err != nil {
		return err
	}
	if _, caught := e.filters(root); !below || !caught {
		return &fault.Error{Code: fault.CallCoordinator, Object: "restart", Detail: fmt.Sprintf("pid %d", root)}
	}
	return nil
}

// patience says why a caller waits no longer.
func patience(w *task.Waiting) error {
	if w.Answered() {
		return task.ErrAnswered // frozen by somebody else: it calls again
	}
	if err := w.Valid(); err != nil {
		return &fault.Error{Code: fault.CallerGone, Object: "the caller", Err: err}
	}
	signalled, err := task.Signalled(w.TID)
	if err != nil {
		return err
	}
	if signalled {
		return &fault.Error{Code: fault.CallInterrupted, Object: "restart"}
	}
	return nil
}

// ended tells whether a process has (pidfd_open(2)).
func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// enter fails if the process waits for that root already, or comes too late.
func (m *musters) enter(root procfs.PID, a *arrival) error {
	began, err := task.Began(root)
	if err != nil {
		return rootLost(a.process)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost[root] == began {
		return rootLost(a.process)
	}
	if m.at == nil {
		m.at = make(map[procfs.PID]map[procfs.PID]*arrival)
	}
	if m.at[root] == nil {
		m.at[root] = make(map[procfs.PID]*arrival)
	}
	if m.at[root][a.process] != nil {
		return &fault.Error{Code: fault.CallCRID, Object: "restart", Detail: "another task of the process does so already"}
	}
	m.at[root][a.process] = a
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
	return nil
}

// leave is false if a root has taken it: then it will be told.
func (m *musters) leave(root procfs.PID, a *arrival) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at[root][a.process] != a {
		return false
	}
	m.remove(root, a)
	return true
}

// remove is called with mu held.
func (m *musters) remove(root procfs.PID, a *arrival) {
	if delete(m.at[root], a.process); len(m.at[root]) == 0 {
		delete(m.at, root)
	}
}

// awaits tells whether anybody waits for a root.
func (m *musters) awaits(root procfs.PID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.at[root]) > 0
}

// take takes all of the processes if all are there, and sends away others.
// Else it returns who is missing, and what is closed when somebody has come.
func (m *musters) take(root procfs.PID, processes []procfs.PID) (team []*arrival, missing []procfs.PID, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	named := make(map[procfs.PID]bool)
	for _, pid := range processes {
		named[pid] = true
		if a := m.at[root][pid]; a != nil {
			team = append(team, a)
		} else {
			missing = append(missing, pid)
		}
	}
	for pid, a := range m.at[root] {
		if !named[pid] {
			m.remove(root, a)
			a.end(0, &fault.Error{Code: fault.TaskUnnamed, Object: fmt.Sprintf("pid %d", pid)})
		}
	}
	if len(missing) > 0 {
		if m.changed == nil {
			m.changed = make(chan struct{})
		}
		return nil, missing, m.changed
	}
	for _, a := range team {
		m.remove(root, a)
	}
	return team, nil, nil
}

// begin forgets how the last restart of a root has ended.
func (m *musters) begin(root procfs.PID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.lost, root)
}

// dismiss sends away all that wait for a root whose restart is over. If it has
// failed, so it is for those that come until it tries again.
func (m *musters) dismiss(root procfs.PID, failed bool) {
	began, err := task.Began(root)
	m.mu.Lock()
	defer m.mu.Unlock()
	if failed && err == nil {
		if m.lost == nil {
			m.lost = make(map[procfs.PID]uint64)
		}
		m.lost[root] = began
	}
	for pid, a := range m.at[root] {
		m.remove(root, a)
		err := rootLost(pid)
		if !failed {
			err = &fault.Error{Code: fault.TaskUnnamed, Object: fmt.Sprintf("pid %d", pid)}
		}
		a.end(0, err)
	}
}

// muster waits until all tasks are there that the image names, and takes them,
// if it is a restarter's image at all: it names other processes than it holds, or
// somebody waits.
func (r *restart) muster(w *task.Waiting) error {
	musters := &r.engine.musters
	first := r.forest.living[0]
	self, err := task.Number(r.caller)
	if err != nil {
		return err
	}
	if named := procfs.PID(first.named) == self; !r.forest.rewritten && !(named && musters.awaits(r.caller)) {
		return nil
	} else if !named {
		return badForest("process %d is the first one, and the caller is %d", first.named, self)
	}
	processes := make([]procfs.PID, 0, len(r.forest.living)-1)
	seen := map[procfs.PID]bool{r.caller: true}
	for _, p := range r.forest.living[1:] {
		pid, err := task.Resolve(w.TID, int(p.named))
		if errors.Is(err, fault.CallProcess) {
			return taskMissing(procfs.PID(p.named))
		}
		if err != nil {
			return err
		}
		if seen[pid] {
			return badForest("process %d twice", p.named)
		}
		seen[pid] = true
		processes = append(processes, pid)
	}
	tick := time.NewTicker(musterTick)
	defer tick.Stop()
	for {
		team, missing, changed := musters.take(r.caller, processes)
		if len(missing) == 0 {
			r.team = team
			return nil
		}
		for _, pid := range missing {
			if task.Over(pid) {
				return taskMissing(pid)
			}
		}
		if err := patience(w); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-tick.C:
		}
	}
}

func taskMissing(pid procfs.PID) error {
	return &fault.Error{Code: fault.TaskMissing, Object: fmt.Sprintf("pid %d", pid)}
}
