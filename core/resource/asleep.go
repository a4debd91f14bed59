package resource

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// Asleep is how long a thread has been off the processor, or less; Known if the
// kernel tells.
type Asleep struct {
	For   time.Duration
	Known bool
}

// Sleepers finds out, before a process is stopped, how long each of its threads
// has slept in a call that keeps the time of its end to itself.
func (v *View) Sleepers() map[procfs.PID]Asleep {
	asleep := make(map[procfs.PID]Asleep)
	if v.Status.Threads == 1 {
		asleep[v.PID] = sleptFor(v.Proc)
		return asleep
	}
	may, err := procfs.LookAtThreads(v.Proc, func(thread *procfs.Proc) (procfs.PID, error) {
		call, err := thread.Syscall()
		if err != nil || !hasEnd(call) {
			return 0, err
		}
		return thread.PID(), nil
	})
	if err != nil {
		return asleep
	}
	for _, tid := range may {
		if tid == 0 {
			continue
		}
		thread, err := procfs.OpenThread(v.PID, tid)
		if err != nil {
			continue // it has ended
		}
		asleep[tid] = sleptFor(thread)
		thread.Close()
	}
	return asleep
}

// hasEnd tells whether a thread sleeps in a call that may end by itself.
func hasEnd(call procfs.Syscall) bool {
	const timeout = 3 // of futex(2), the fourth argument
	switch call.Nr {
	case unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_POLL, unix.SYS_RESTART_SYSCALL:
		return true
	case unix.SYS_FUTEX:
		return call.Args[timeout] != 0
	}
	return false
}

// sleptFor goes by the clock of the scheduler, which each processor has of its
// own. So we go to that processor; our own entry there, renewed at each tick, is
// the time now.
func sleptFor(thread *procfs.Proc) Asleep {
	stat, err := thread.Stat()
	if err != nil {
		return Asleep{}
	}
	at, ok, err := thread.ExecStart()
	if err != nil || !ok {
		return Asleep{}
	}
	var before, there unix.CPUSet
	there.Set(int(stat.Processor))
	if unix.SchedGetaffinity(0, &before) != nil || unix.SchedSetaffinity(0, &there) != nil {
		return Asleep{}
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }() // what was allowed is allowed
	own, err := procfs.OpenThread(procfs.PID(os.Getpid()), procfs.PID(unix.Gettid()))
	if err != nil {
		return Asleep{}
	}
	defer own.Close()
	here, ok, err := own.ExecStart()
	if err != nil || !ok {
		return Asleep{}
	}
	return Asleep{For: max(here-at, 0), Known: true}
}
