package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// Suspended tells how Suspend has frozen a process.
type Suspended struct {
	Group   string    // the control group that is frozen, "" without one
	Stopped []Stopped // else the processes that a signal has stopped, the first process of a namespace first
}

// Stopped is a process that was running and that Suspend has stopped.
type Stopped struct {
	PID   procfs.PID `json:"pid"`
	Start uint64     `json:"start"` // procfs.Stat.StartTime, against its number being used again
}

const suspendPrefix = "crshim-frozen-"

// suspendGroup names the group that Suspend makes for a process.
func suspendGroup(pid procfs.PID) string { return suspendPrefix + strconv.Itoa(int(pid)) }

// Suspend keeps a process, and those that belong to it (belongTo), from
// running until Resume. It uses a control group, of version 2 if it can and of
// version 1 else: a frozen group is frozen as a whole, at once and unseen by
// its members. Where no group of its own can be had it uses SIGSTOP, which
// parents see and which those can undo who may send SIGCONT.
//
// What it does it does with our own rights.
func Suspend(pid procfs.PID) (*Suspended, error) {
	return suspend(pid, func(g *freezer) error { return g.setAndWait(true) }, stopAll)
}

// SuspendHeld is Suspend for processes all of whose tasks are in stops of ours:
// once they are let go none of them runs until Resume.
func SuspendHeld(pid procfs.PID) (*Suspended, error) {
	return suspend(pid, func(g *freezer) error { return g.set(g.on) }, stopHeld)
}

func suspend(pid procfs.PID, freeze func(*freezer) error, stop func(procfs.PID) (*Suspended, error)) (*Suspended, error) {
	members, err := belongTo(pid)
	if err != nil {
		return nil, err
	}
	if members[procfs.PID(os.Getpid())] {
		return nil, cannotFreeze(pid, errors.New("crshim itself is among its processes"))
	}
	p, err := procfs.Open(pid)
	if err != nil {
		return nil, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	defer p.Close()
	places, err := placesOf(p)
	if err != nil {
		return nil, err
	}
	for _, kind := range []freezerKind{freezerV2, freezerV1} {
		for _, at := range places {
			if at.freezerKind != kind {
				continue
			}
			group, err := at.claim(pid)
			if errors.Is(err, errNoGroup) {
				continue
			}
			if err == nil {
				err = freeze(group)
			}
			if err != nil {
				return nil, errors.Join(cannotFreeze(pid, err), group.letGo(pid))
			}
			return &Suspended{Group: group.dir}, nil
		}
	}
	return stop(pid)
}

func cannotFreeze(pid procfs.PID, err error) error {
	return &fault.Error{Code: fault.CannotFreeze, Object: fmt.Sprintf("pid %d", pid), Err: err}
}

// errNoGroup says that a hierarchy has no group for a process alone.
var errNoGroup = errors.New("no control group of its own")

// claim returns a group in which nobody is but those who belong to the process:
// the one that they are in, or a new one below that. It takes those who fork
// meanwhile, too: who has been moved forks into the new group.
func (at place) claim(pid procfs.PID) (*freezer, error) {
	members, err := belongTo(pid)
	if err != nil {
		return nil, err
	}
	if at.dir != at.root {
		if others, err := at.others(members); err != nil || !others {
			return &freezer{at.freezerKind, at.dir}, err
		}
	}
	own := &freezer{at.freezerKind, filepath.Join(at.dir, suspendGroup(pid))}
	err = os.Mkdir(own.dir, 0o755)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EAGAIN) {
		return nil, errNoGroup // EAGAIN: cgroup.max.descendants
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	for moved := true; moved; {
		if moved, err = own.take(pid, at); err != nil {
			return nil, errors.Join(err, own.letGo(pid))
		}
	}
	return own, nil
}

// take moves whoever belongs to the process and is in the group at into this
// one. It is errNoGroup if one of them is elsewhere, or may not be moved.
func (f *freezer) take(pid procfs.PID, at place) (moved bool, err error) {
	members, err := belongTo(pid)
	if err != nil {
		return false, err
	}
	for member := range members {
		switch dir, err := at.dirOf(member); {
		case errors.Is(err, procfs.ErrGone) || err == nil && dir == f.dir:
			continue
		case err != nil:
			return false, err
		case dir != at.dir:
			return false, errNoGroup
		}
		err := os.WriteFile(filepath.Join(f.dir, "cgroup.procs"), []byte(strconv.Itoa(int(member))), 0)
		switch {
		case err == nil:
			moved = true
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EOPNOTSUPP):
			return false, errNoGroup
		case !errors.Is(err, unix.ESRCH): // a zombie stays where it is
			return false, fmt.Errorf("move process %d: %w", member, err)
		}
	}
	return moved, nil
}

// dirOf returns the group that a process is in, of the same hierarchy. It is
// ErrGone for a zombie, which no group can freeze.
func (at place) dirOf(pid procfs.PID) (string, error) {
	p, err := procfs.Open(pid)
	if err != nil {
		return "", err
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return "", err
	}
	if stat.State == 'Z' || stat.State == 'X' {
		return "", procfs.ErrGone
	}
	places, err := placesOf(p)
	if err != nil {
		return "", err
	}
	for _, other := range places {
		if other.freezerKind == at.freezerKind {
			return other.dir, nil
		}
	}
	return "", errNoGroup
}

// others tells whether the group has tasks beside the members, or members are
// outside of it.
func (at place) others(members map[procfs.PID]bool) (bool, error) {
	tids, hidden, err := at.members()
	if err != nil || hidden {
		return hidden, err
	}
	inside := make(map[procfs.PID]bool)
	for _, tid := range tids {
		pid, err := Process(tid)
		if err != nil {
			continue // it has ended
		}
		if !members[pid] {
			return true, nil
		}
		inside[pid] = true
	}
	for pid := range members {
		if !inside[pid] {
			return true, nil
		}
	}
	return false, nil
}

// setAndWait freezes or thaws the group, and waits until it is.
func (f *freezer) setAndWait(frozen bool) error {
	state := f.off
	if frozen {
		state = f.on
	}
	if err := f.set(state); err != nil {
		return err
	}
	for wait, waited := time.Millisecond, time.Duration(0); ; wait = min(2*wait, 100*time.Millisecond) {
		is, err := f.is(frozen)
		if is || err != nil {
			return err
		}
		if waited >= stopTimeout {
			return fmt.Errorf("%s: %w", f.dir, &fault.Error{Code: fault.DidNotStop, Object: "its control group"})
		}
		time.Sleep(wait)
		waited += wait
	}
}

// is tells whether every task of the group is frozen, or none is.
func (f *freezer) is(frozen bool) (bool, error) {
	if f.freezerKind == freezerV1 {
		text, err := os.ReadFile(filepath.Join(f.dir, f.state))
		state := f.off
		if frozen {
			state = f.on
		}
		return strings.TrimSpace(string(text)) == state, err
	}
	want := "frozen 0"
	if frozen {
		want = "frozen 1"
	}
	text, err := os.ReadFile(filepath.Join(f.dir, "cgroup.events"))
	return strings.Contains(string(text), want), err
}

// letGo thaws a group that claim has returned. One that it has made is no more
// after that, and its processes are where they were.
func (f *freezer) letGo(pid procfs.PID) error {
	if f == nil {
		return nil
	}
	if err := f.setAndWait(false); err != nil {
		return err
	}
	if filepath.Base(f.dir) != suspendGroup(pid) {
		return nil
	}
	up := filepath.Join(filepath.Dir(f.dir), "cgroup.procs")
	for {
		text, err := os.ReadFile(filepath.Join(f.dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		pids := strings.Fields(string(text))
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			if err := os.WriteFile(up, []byte(pid), 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %s back: %w", pid, err)
			}
		}
	}
	return removeGroup(f.dir)
}

// removeGroup removes a group from which all have gone. The kernel takes its
// time to notice that a task has ended.
func removeGroup(dir string) error {
	for wait, waited := time.Millisecond, time.Duration(0); ; wait *= 2 {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) || waited >= stopTimeout {
			return err
		}
		time.Sleep(wait)
		waited += wait
	}
}
