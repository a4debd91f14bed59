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

// sleeper is when a thread was last on a processor, by that processor's clock.
type sleeper struct {
	tid procfs.PID
	cpu int32
	at  time.Duration
}

// Sleepers finds out, before processes are stopped, how long each of their threads
// has slept: a call may keep the time of its end to itself.
//
// Which call it is would be told by /proc/PID/task/TID/syscall, but the kernel
// waits there until the thread is off its queue (wait_task_inactive), and for one
// that wakes and sleeps a thousand times a second on a busy machine that took
// half a minute.
func Sleepers(pids []procfs.PID) map[procfs.PID]Asleep {
	var sleepers []sleeper
	for _, pid := range pids {
		proc, err := procfs.Open(pid)
		if err != nil {
			continue // it has ended
		}
		some, err := procfs.LookAtThreads(proc, lookAtSleeper)
		proc.Close()
		if err == nil { // else the kernel does not tell
			sleepers = append(sleepers, some...)
		}
	}
	asleep := make(map[procfs.PID]Asleep)
	now := make(map[int32]time.Duration)
	for _, s := range sleepers {
		if s.tid == 0 {
			continue
		}
		here, known := now[s.cpu]
		if !known {
			if here, known = clockOf(s.cpu); !known {
				continue
			}
			now[s.cpu] = here
		}
		asleep[s.tid] = Asleep{For: max(here-s.at, 0), Known: true}
	}
	return asleep
}

func lookAtSleeper(thread *procfs.Proc) (sleeper, error) {
	stat, err := thread.Stat()
	if err != nil || stat.State != 'S' {
		return sleeper{}, err
	}
	at, ok, err := thread.ExecStart()
	if err != nil || !ok {
		return sleeper{}, err
	}
	return sleeper{thread.PID(), stat.Processor, at}, nil
}

// clockOf reads the scheduler's clock of a processor. There is one of each; so we
// go there, and our own entry, renewed at each tick, is the time now.
func clockOf(cpu int32) (time.Duration, bool) {
	var before, there unix.CPUSet
	there.Set(int(cpu))
	if unix.SchedGetaffinity(0, &before) != nil || unix.SchedSetaffinity(0, &there) != nil {
		return 0, false
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }() // what was allowed is allowed
	own, err := procfs.OpenThread(procfs.PID(os.Getpid()), procfs.PID(unix.Gettid()))
	if err != nil {
		return 0, false
	}
	defer own.Close()
	here, ok, err := own.ExecStart()
	return here, ok && err == nil
}
