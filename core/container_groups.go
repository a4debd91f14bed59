package core

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer/procfs"
)

// Kinds of records about control groups.
const (
	controlGroupKind image.Kind = 6706
	groupLimitKind   image.Kind = 6707
)

type controlGroupRecord struct {
	Limits uint32 `doc:"how many GROUP_LIMIT follow"`
	_      [4]byte
	Path   string `doc:"controllers of version 1, none for version 2, and behind a colon the path in the hierarchy"`
}

type groupLimitRecord struct {
	Text string `doc:"file of the group and, behind a blank, what it says"`
}

// maxGroups and maxLimits bound what an image says.
const (
	maxGroups = 256
	maxLimits = 64
)

var groupRecords = []image.Spec{
	image.Row[controlGroupRecord](controlGroupKind, "CONTROL_GROUP", image.InTree, "a control group of the container, in a hierarchy in which one limits it; from the outermost to that in which it is"),
	image.Row[groupLimitRecord](groupLimitKind, "GROUP_LIMIT", image.InTree, "a limit of that group"),
}

// noteGroups takes note of the control groups of a process.
func (c *Container) noteGroups(v *resource.View) (err error) {
	c.Groups, err = task.LimitsOf(v.Proc)
	return err
}

func (c *Container) writeGroups(w *image.Writer) error {
	for i := range c.Groups {
		g := &c.Groups[i]
		if err := w.Put(0, &controlGroupRecord{Limits: uint32(len(g.Limits)), Path: g.Controllers + ":" + g.Path}); err != nil {
			return err
		}
		for _, limit := range g.Limits {
			if err := w.Put(0, &groupLimitRecord{limit}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Container) readGroups(r *image.Reader) error {
	for {
		next, err := r.Peek()
		if err != nil || next != controlGroupKind {
			return err
		}
		rec, _, err := image.Expect[controlGroupRecord](r)
		if err != nil {
			return err
		}
		if len(c.Groups) == maxGroups || rec.Limits > maxLimits {
			return badMount("control group %q with %d limits", rec.Path, rec.Limits)
		}
		var g task.Group
		g.Controllers, g.Path, _ = strings.Cut(rec.Path, ":")
		for range rec.Limits {
			limit, _, err := image.Expect[groupLimitRecord](r)
			if err != nil {
				return err
			}
			g.Limits = append(g.Limits, limit.Text)
		}
		if !g.Check() {
			return badMount("control group %q", rec.Path)
		}
		c.Groups = append(c.Groups, g)
	}
}

// JoinGroups puts the blank process into the control groups that limited the
// container. Those that are no more are made; it returns their directories, the
// outermost first. A group that cannot be had is told as a warning: the
// restarter may not be permitted, and the container runs without its limits.
func (o *Opened) JoinGroups(pid PID) (made []string) {
	groups := o.Container.Groups
	for len(groups) > 0 {
		// The chain of one hierarchy ends where the next one begins.
		n := slices.IndexFunc(groups, func(g task.Group) bool { return g.Controllers != groups[0].Controllers })
		if n < 0 {
			n = len(groups)
		}
		dirs, err := joinChain(groups[:n], pid, o.Container.Cgroup)
		if err != nil {
			names := make([]string, n)
			for i := range names {
				names[i] = groups[i].String()
			}
			o.r.engine.warn("the container is not in control group %s any more: %v", strings.Join(names, ", "), err)
		}
		made = append(made, dirs...)
		groups = groups[n:]
	}
	return made
}

// joinChain joins the last of several groups below each other.
func joinChain(chain []task.Group, pid PID, namespace bool) (made []string, err error) {
	self, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return nil, err
	}
	defer self.Close()
	last := &chain[len(chain)-1]
	for i := range chain {
		if below := chain[i+1:]; len(chain[i].Limits) == 0 || slices.ContainsFunc(below, func(g task.Group) bool { return len(g.Limits) > 0 }) {
			continue
		}
		// The innermost one that limits: if we are in it, so is what we start.
		if in, err := chain[i].Holds(self); err != nil || in {
			return nil, err
		}
	}
	if namespace {
		return nil, errors.New("its own namespace of control groups begins where crshim restart is")
	}
	defer func() {
		if err == nil {
			return
		}
		for _, dir := range slices.Backward(made) {
			err = errors.Join(err, os.Remove(dir))
		}
		made = nil
	}()
	for i := range chain {
		dir, err := chain[i].Make()
		if dir != "" {
			made = append(made, dir)
		}
		if err != nil {
			return made, fmt.Errorf("make %s: %w", chain[i].Path, err)
		}
	}
	return made, last.Join(pid)
}
