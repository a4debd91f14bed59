package task

import (
	"errors"
	"fmt"
	"os"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// Resolve finds the process that a caller means by a pid: the number counts in
// the caller's own pid namespace. Zero and negative numbers mean nobody, and
// neither does the number of a thread that is not a process.
//
// A process of a namespace below the caller's is a container's: only its init
// stands for it, every other one is refused (fault.NestedNamespace).
func Resolve(caller procfs.PID, pid int) (procfs.PID, error) {
	none := func(err error) error {
		return &fault.Error{Code: fault.CallProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	if pid <= 0 {
		return 0, none(nil)
	}
	level, ns, err := placeOf(caller)
	if err != nil {
		return 0, err
	}
	_, own, err := placeOf(procfs.PID(os.Getpid()))
	if err != nil {
		return 0, err
	}
	target := procfs.PID(pid)
	if ns != own {
		if target, err = search(level, ns, procfs.PID(pid)); err != nil {
			return 0, none(err)
		}
	}
	status, err := statusOf(target)
	if err != nil || status.Tgid != target {
		return 0, none(err)
	}
	if n := len(status.NStgid); n > level && status.NStgid[n-1] != 1 {
		return 0, &fault.Error{Code: fault.NestedNamespace, Object: fmt.Sprintf("pid %d (%s)", pid, status.Name)}
	}
	return target, nil
}

// placeOf returns how deep below ours the pid namespace of a task is, counting
// ours as 1, and which one it is.
func placeOf(pid procfs.PID) (level int, ns uint64, err error) {
	p, err := procfs.Open(pid)
	if err != nil {
		return 0, 0, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	defer p.Close()
	status, err := p.Status()
	if err != nil {
		return 0, 0, err
	}
	if ns, err = p.NS("pid"); err != nil {
		return 0, 0, err
	}
	return len(status.NStgid), ns, nil
}

// Level is how deep the pid namespace of a task is, ours being 1: the place of
// its own number among those of NStgid.
func Level(tid procfs.PID) (int, error) {
	level, _, err := placeOf(tid)
	return level, err
}

var errNobody = errors.New("no process has that number in the caller's pid namespace")

// search looks for the process with that number in another namespace.
func search(level int, ns uint64, want procfs.PID) (procfs.PID, error) {
	pids, err := procfs.List()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		p, err := procfs.Open(pid)
		if err != nil {
			continue // ended meanwhile
		}
		status, err := p.Status()
		if err != nil || len(status.NStgid) < level || status.NStgid[level-1] != want {
			p.Close()
			continue
		}
		at, err := namespaceAt(p, len(status.NStgid)-level)
		p.Close()
		if err == nil && at == ns {
			return pid, nil
		}
	}
	return 0, errNobody
}
