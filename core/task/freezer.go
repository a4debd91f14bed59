package task

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// A task that a control group has frozen cannot be worked with. Version 1 does
// not let it reach a ptrace stop, version 2 takes it back as soon as it is to
// run a call for us. So everything in the group is seized and interrupted, the
// group is thawed, and every task of it comes to a ptrace stop before any
// instruction of its own. In the end the group is frozen again before the tasks
// are let go. If we are killed in between it is left thawed.

// freezerKind is how a version of control groups freezes.
type freezerKind struct {
	frozen string // the file that tells whether the group itself is frozen: 1 or 0
	state  string // the file that freezes and thaws
	on     string
	off    string
	tasks  string // the file that lists the tasks
}

var (
	// Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst
	freezerV1 = freezerKind{"freezer.self_freezing", "freezer.state", "FROZEN", "THAWED", "tasks"}
	// Documentation/admin-guide/cgroup-v2.rst, since Linux 5.2
	freezerV2 = freezerKind{"cgroup.freeze", "cgroup.freeze", "1", "0", "cgroup.threads"}
)

// freezer is a control group that is frozen.
type freezer struct {
	freezerKind
	dir string
}

func (f *freezer) set(state string) error {
	return os.WriteFile(filepath.Join(f.dir, f.state), []byte(state), 0)
}

// freezersOf returns the groups that keep a process from running: its own and
// those above that are frozen, the outermost last.
func freezersOf(p *procfs.Proc) ([]freezer, error) {
	places, err := placesOf(p)
	if err != nil {
		return nil, err
	}
	var found []freezer
	for _, place := range places {
		for f := place.freezer; f.dir != place.root; f.dir = filepath.Dir(f.dir) {
			if text, err := os.ReadFile(filepath.Join(f.dir, f.frozen)); err == nil && strings.TrimSpace(string(text)) == "1" {
				found = append(found, f)
			}
		}
	}
	return found, nil
}

// place is the group that a process is in, of a hierarchy that can freeze.
type place struct {
	freezer
	root string // where the hierarchy is mounted: that group cannot be frozen
}

// placesOf returns the groups of a process that are there to be seen.
func placesOf(p *procfs.Proc) ([]place, error) {
	groups, err := p.Cgroups()
	if err != nil {
		return nil, fmt.Errorf("find control groups of pid %d: %w", p.PID(), err)
	}
	var places []place
	for _, g := range groups {
		kind, fstype := freezerV2, "cgroup2"
		if g.Hierarchy != 0 {
			kind, fstype = freezerV1, "cgroup"
		}
		v1 := slices.Contains(g.Controllers, "freezer")
		if g.Hierarchy != 0 && !v1 || g.Deleted {
			continue
		}
		mounts, err := cgroupMounts()
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			if m.FSType != fstype || v1 && !slices.Contains(strings.Split(m.VFSOptions, ","), "freezer") {
				continue
			}
			inside, err := filepath.Rel(m.Root, g.Path)
			if err != nil || inside == ".." || strings.HasPrefix(inside, "../") {
				continue
			}
			places = append(places, place{freezer{kind, filepath.Join(m.Mountpoint, inside)}, m.Mountpoint})
			break
		}
	}
	return places, nil
}

// cgroupMounts are where control groups are mounted. They hardly move while a
// program runs.
var cgroupMounts = sync.OnceValues(func() ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	return mounts, nil
})

// members lists every task in the group and in those below it that has a
// number in our pid namespace, and tells whether there are others.
func (f *freezer) members() (tids []procfs.PID, hidden bool, err error) {
	err = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, f.tasks))
		if err != nil {
			return err
		}
		for _, field := range bytes.Fields(text) {
			tid, err := strconv.Atoi(string(field))
			if err != nil {
				return err
			}
			if tid == 0 { // one of another pid namespace
				hidden = true
				continue
			}
			tids = append(tids, procfs.PID(tid))
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("list tasks of %s: %w", f.dir, err)
	}
	return tids, hidden, nil
}

// open thaws the groups when everything in them has been interrupted. The
// target's own tasks have been.
func (f *Frozen) open(t *tracer.Tracer, claims *Claims, freezers []freezer, own []procfs.PID) error {
	known := make(map[procfs.PID]bool)
	for _, tid := range own {
		known[tid] = true
	}
	for i := range freezers {
		tids, _, err := freezers[i].members()
		if err != nil {
			return err
		}
		for _, tid := range tids {
			if known[tid] {
				continue
			}
			known[tid] = true
			if err := f.hold(t, tid); err != nil {
				return err
			}
		}
	}
	for _, g := range freezers {
		if err := g.set(g.off); err != nil {
			return &fault.Error{Code: fault.DidNotStop, Object: fmt.Sprintf("pid %d", f.PID), Detail: "frozen by control group " + g.dir, Err: err}
		}
		f.freezers = append(f.freezers, g)
	}
	return awaitStops(claims, f.others, f.others)
}

// hold seizes and interrupts a task that a group holds beside the target.
func (f *Frozen) hold(t *tracer.Tracer, tid procfs.PID) error {
	e, err := seize(t, tid, fmt.Sprintf("task %d, frozen together with pid %d", tid, f.PID))
	if fault.Errno(err) == unix.ESRCH {
		return nil
	}
	if err != nil {
		if status, statusErr := statusOf(tid); statusErr == nil && status.State == 'Z' {
			return nil
		}
		return err
	}
	f.others = append(f.others, e)
	if err := e.Interrupt(); err != nil {
		return fmt.Errorf("interrupt task %d: %w", tid, err)
	}
	return nil
}

// close freezes again what open has thawed.
func (f *Frozen) close() error {
	var errs []error
	for _, g := range slices.Backward(f.freezers) {
		if err := g.set(g.on); err != nil {
			errs = append(errs, fmt.Errorf("freeze %s again: %w", g.dir, err))
		}
	}
	f.freezers = nil
	return errors.Join(errs...)
}
