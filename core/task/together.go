package task

import (
	"github.com/crshim/crshim/tracer/procfs"
)

// Number is the pid of a process in its own pid namespace.
func Number(pid procfs.PID) (procfs.PID, error) {
	status, err := statusOf(pid)
	if err != nil {
		return 0, err
	}
	return status.NStgid[len(status.NStgid)-1], nil
}

// Began is when a process was started, in clock ticks since boot: with its number it
// names the process for good.
func Began(pid procfs.PID) (uint64, error) {
	p, err := procfs.Open(pid)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return 0, err
	}
	return stat.StartTime, nil
}

// Below tells whether a process descends from another one.
func Below(pid, ancestor procfs.PID) (bool, error) {
	for pid > 0 && pid != ancestor {
		status, err := statusOf(pid)
		if err != nil {
			return false, err
		}
		if pid = status.PPid; pid == ancestor {
			return true, nil
		}
	}
	return false, nil
}

// Signalled tells whether a task has a signal that would end an interruptible
// wait.
func Signalled(tid procfs.PID) (bool, error) {
	status, err := statusOf(tid)
	if err != nil {
		return false, err
	}
	return (status.SigPnd|status.ShdPnd)&^status.SigBlk != 0, nil
}

// Over tells whether a process, or a thread, has ended.
func Over(pid procfs.PID) bool {
	status, err := statusOf(pid)
	return err != nil || status.State == 'Z' || status.State == 'X'
}
