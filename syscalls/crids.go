package syscalls

import (
	"fmt"
	"sync"

	"github.com/crshim/crshim/tracer/procfs"
)

// process names a process for as long as the system runs: pids come back, a pid with a start time does not.
type process struct {
	pid   procfs.PID
	start uint64 // clock ticks since boot
}

func processOf(tid procfs.PID) (process, error) {
	thread, err := procfs.Open(tid)
	if err != nil {
		return process{}, err
	}
	defer func() { _ = thread.Close() }()
	status, err := thread.Status()
	if err != nil {
		return process{}, err
	}
	leader, err := procfs.Open(status.Tgid)
	if err != nil {
		return process{}, err
	}
	defer func() { _ = leader.Close() }()
	stat, err := leader.Stat()
	if err != nil {
		return process{}, err
	}
	return process{status.Tgid, stat.StartTime}, nil
}

// crids remembers the last crid of every process that made a checkpoint. An entry is 24 bytes beside an image of
// megabytes, so those of ended processes are left to lie.
type crids struct {
	mu sync.Mutex
	of map[process]int // protected by mu
}

func (s *crids) remember(tid procfs.PID, crid int) error {
	p, err := processOf(tid)
	if err != nil {
		return fmt.Errorf("remember crid %d: %w", crid, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[process]int)
	}
	s.of[p] = crid
	return nil
}

func (s *crids) last(tid procfs.PID) (int, error) {
	p, err := processOf(tid)
	if err != nil {
		return 0, fmt.Errorf("find last crid: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[p], nil
}
