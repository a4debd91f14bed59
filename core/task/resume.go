package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// belongTo lists a process and those that are frozen with it: for the first
// process of a pid namespace all in that namespace and those below it, else all
// descendants.
func belongTo(pid procfs.PID) (map[procfs.PID]bool, error) {
	level, ns, err := placeOf(pid)
	if err != nil {
		if len(fault.Flatten(err)) == 0 { // another user's
			err = cannotFreeze(pid, err)
		}
		return nil, err
	}
	status, err := statusOf(pid)
	if err != nil || status.Tgid != pid {
		return nil, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	first := level > 1 && status.NStgid[level-1] == 1
	pids, err := procfs.List()
	if err != nil {
		return nil, err
	}
	members := map[procfs.PID]bool{pid: true}
	parents := make(map[procfs.PID]procfs.PID)
	for _, other := range pids {
		p, err := procfs.Open(other)
		if err != nil {
			continue // ended meanwhile
		}
		status, err := p.Status()
		if err == nil {
			parents[other] = status.PPid
		}
		if err == nil && first && len(status.NStgid) >= level {
			if at, err := namespaceAt(p, len(status.NStgid)-level); err == nil && at == ns {
				members[other] = true
			}
		}
		p.Close()
	}
	for more := true; more; {
		more = false
		for child, parent := range parents {
			if members[parent] && !members[child] {
				members[child], more = true, true
			}
		}
	}
	return members, nil
}

// stopAll stops a process and those that belong to it by SIGSTOP: the first
// process of a namespace first, as it would tell of the others.
func stopAll(pid procfs.PID) (*Suspended, error) {
	s := &Suspended{}
	sent := make(map[procfs.PID]bool)
	for wait, waited := time.Millisecond, time.Duration(0); ; wait = min(2*wait, 100*time.Millisecond) {
		members, err := belongTo(pid)
		if err != nil {
			return nil, errors.Join(err, continueAll(s.Stopped))
		}
		still := true
		for _, member := range first(pid, members) {
			start, stopped, err := stoppedState(member)
			switch {
			case errors.Is(err, procfs.ErrGone) || err == nil && stopped:
				continue
			case err == nil && !sent[member]:
				sent[member] = true
				if err = unix.Kill(int(member), unix.SIGSTOP); err == nil {
					s.Stopped = append(s.Stopped, Stopped{member, start})
				}
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, errors.Join(cannotFreeze(member, err), continueAll(s.Stopped))
			}
			still = false
		}
		if still {
			return s, nil
		}
		if waited >= stopTimeout {
			return nil, errors.Join(&fault.Error{Code: fault.DidNotStop, Object: fmt.Sprintf("pid %d", pid)}, continueAll(s.Stopped))
		}
		time.Sleep(wait)
		waited += wait
	}
}

// stopHeld has tasks stop that are in stops of ours: what is pending comes before
// any instruction of theirs. Who is to be stopped anyway does not belong to what
// Resume continues.
func stopHeld(pid procfs.PID) (*Suspended, error) {
	s := &Suspended{}
	members, err := belongTo(pid)
	if err != nil {
		return nil, err
	}
	for _, member := range first(pid, members) {
		start, _, err := stoppedState(member)
		if errors.Is(err, procfs.ErrGone) {
			continue
		}
		var status *procfs.Status
		if err == nil {
			status, err = statusOf(member)
		}
		if err == nil && status.ShdPnd&(1<<(unix.SIGSTOP-1)) == 0 {
			s.Stopped = append(s.Stopped, Stopped{member, start})
			err = unix.Kill(int(member), unix.SIGSTOP)
		}
		if err != nil {
			return nil, cannotFreeze(member, err)
		}
	}
	return s, nil
}

// first lists processes, that one before the others.
func first(pid procfs.PID, members map[procfs.PID]bool) []procfs.PID {
	order := []procfs.PID{pid}
	for member := range members {
		if member != pid {
			order = append(order, member)
		}
	}
	return order
}

// stoppedState tells whether a process does not run. It is ErrGone for a zombie.
func stoppedState(pid procfs.PID) (start uint64, stopped bool, err error) {
	p, err := procfs.Open(pid)
	if err != nil {
		return 0, false, err
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return 0, false, err
	}
	if stat.State == 'Z' || stat.State == 'X' {
		return 0, false, procfs.ErrGone
	}
	return stat.StartTime, stat.State == 'T' || stat.State == 't', nil
}

// continueAll lets processes go on that stopAll has stopped, the first one last.
func continueAll(stopped []Stopped) error {
	var errs []error
	for _, s := range slices.Backward(stopped) {
		start, _, err := stoppedState(s.PID)
		if errors.Is(err, procfs.ErrGone) || err == nil && start != s.Start {
			continue
		}
		if err == nil {
			err = unix.Kill(int(s.PID), unix.SIGCONT)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("continue pid %d: %w", s.PID, err))
		}
	}
	return errors.Join(errs...)
}

// Resume undoes Suspend, and thaws whatever other groups keep the process from
// running. Where there are none it continues the processes that Suspend has
// stopped; without a list of them, all that belong to the process.
func Resume(pid procfs.PID, stopped []Stopped) error {
	p, err := procfs.Open(pid)
	if err != nil {
		return &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	defer p.Close()
	frozen, err := freezersOf(p)
	if err != nil {
		return err
	}
	for i := range frozen { // all of them first: none is thawed while one above is frozen
		if err := frozen[i].set(frozen[i].off); err != nil {
			return cannotFreeze(pid, err)
		}
	}
	for i := range frozen {
		if err := frozen[i].letGo(pid); err != nil {
			return cannotFreeze(pid, err)
		}
	}
	if len(stopped) == 0 && len(frozen) == 0 {
		if stopped, err = listStopped(pid); err != nil {
			return err
		}
	}
	if err := continueAll(stopped); err != nil {
		return cannotFreeze(pid, err)
	}
	return nil
}

// listStopped lists what belongs to a process and is stopped.
func listStopped(pid procfs.PID) ([]Stopped, error) {
	members, err := belongTo(pid)
	if err != nil {
		return nil, err
	}
	var all []Stopped
	for member := range members {
		if start, stopped, err := stoppedState(member); err == nil && stopped {
			all = append(all, Stopped{member, start})
		}
	}
	slices.SortFunc(all, func(a, b Stopped) int { // the process itself first: it is continued last
		switch pid {
		case a.PID:
			return -1
		case b.PID:
			return 1
		}
		return int(a.PID - b.PID)
	})
	return all, nil
}

// IsFrozen tells whether a control group keeps a process from running.
func IsFrozen(pid procfs.PID) (bool, error) {
	p, err := procfs.Open(pid)
	if err != nil {
		return false, err
	}
	defer p.Close()
	frozen, err := freezersOf(p)
	return len(frozen) > 0, err
}

// Forget removes the group of a process that was killed while it was frozen.
// We are in the group that the process was in before.
func Forget(pid procfs.PID) {
	p, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return
	}
	defer p.Close()
	places, err := placesOf(p)
	if err != nil {
		return
	}
	for _, at := range places {
		dir := filepath.Join(at.dir, suspendGroup(pid))
		if _, err := os.Lstat(dir); err == nil {
			_ = removeGroup(dir) // a trace in /sys/fs/cgroup is all that is left if it fails
		}
	}
}

// SetGroup freezes or thaws a control group by its directory, and waits until
// it is.
func SetGroup(dir string, frozen bool) error {
	for _, kind := range []freezerKind{freezerV2, freezerV1} {
		f := freezer{kind, filepath.Clean(dir)}
		_, err := os.Lstat(filepath.Join(f.dir, kind.state))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.setAndWait(frozen)
		}
		if err != nil {
			return &fault.Error{Code: fault.CannotFreeze, Object: dir, Err: err}
		}
		return nil
	}
	return &fault.Error{Code: fault.CannotFreeze, Object: dir, Err: errors.New("it is no control group that can be frozen")}
}
