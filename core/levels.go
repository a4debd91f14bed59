package core

import (
	"fmt"
	"slices"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer/procfs"
)

// A process in a pid namespace within that of the first one has numbers there,
// too, and in those between. All else goes by the numbers that the first process
// knows.

// Kinds of records about pid namespaces within that of the first process.
const (
	levelsKind   image.Kind = 6008
	childrenKind image.Kind = 6009
)

// maxLevels is MAX_PID_NS_LEVEL of <linux/pid_namespace.h>.
const maxLevels = 32

type levelsRecord struct {
	Levels []level `doc:"its numbers in pid namespaces within that of the first process, the outermost first"`
}

// level is how a process is called in one pid namespace.
type level struct {
	PID, Pgrp, Session int32 `doc:"0 for what is outside"`
}

type childrenRecord struct {
	First int32 `doc:"process id of the first process of the pid namespace in which children of the process will be (pid_namespaces(7), pid_for_children)"`
	_     [4]byte
}

var levelRecords = []image.Spec{
	image.Row[levelsRecord](levelsKind, "PROCESS_LEVELS", image.InTree, "behind PROCESS, of one that is in a pid namespace within that of the first one"),
	image.Row[childrenRecord](childrenKind, "PROCESS_CHILDREN", image.InTree, "behind PROCESS, of one whose next children are to be in another pid namespace than itself"),
}

func levelsOf(status *procfs.Status, root int) (levels []level) {
	for i := root + 1; i < len(status.NStgid); i++ {
		levels = append(levels, level{int32(status.NStgid[i]), int32(status.NSpgid[i]), int32(status.NSsid[i])})
	}
	return levels
}

// numbers are those of a process, from the namespace of the first one inwards.
func (p *process) numbers() []int32 {
	return p.each(p.VPID, func(l level) int32 { return l.PID })
}

// groups are the numbers of its process group, 0 where that is outside.
func (p *process) groups() []int32 {
	return p.each(p.VPgrp, func(l level) int32 { return l.Pgrp })
}

// sessions are the numbers of its session, 0 where that is outside.
func (p *process) sessions() []int32 {
	return p.each(p.VSession, func(l level) int32 { return l.Session })
}

func (p *process) each(outer int32, of func(level) int32) []int32 {
	all := []int32{outer}
	for _, l := range p.levels {
		all = append(all, of(l))
	}
	return all
}

// number is what a process is called in its own pid namespace.
func (p *process) number() procfs.PID {
	if n := len(p.levels); n > 0 {
		return procfs.PID(p.levels[n-1].PID)
	}
	return procfs.PID(p.VPID)
}

// nests tells whether a process is in the pid namespace of its parent, or the first
// one of another in that.
func (f *forest) nests(p *process) bool {
	above := 0
	if p.parent < 0 && p.nested != nil {
		return false
	}
	if p.parent >= 0 {
		above = len(f.living[p.parent].levels)
	}
	switch len(p.levels) {
	case above:
		return above == 0 || p.number() != firstPID
	case above + 1:
		return p.parent >= 0 && p.number() == firstPID
	}
	return false
}

// opensLevel tells whether a process is the first one of a pid namespace within
// that of its parent.
func (f *forest) opensLevel(p *process) bool {
	return p.parent >= 0 && len(p.levels) > len(f.living[p.parent].levels)
}

// hasNamespaces tells whether a process is in other namespaces than the first one.
func (f *forest) hasNamespaces() bool {
	return slices.ContainsFunc(f.living, func(p process) bool { return len(p.levels) > 0 || p.nested != nil })
}

func (p *process) writeLevels(w *image.Writer) error {
	if len(p.levels) > 0 {
		if err := w.Put(0, &levelsRecord{Levels: p.levels}); err != nil {
			return err
		}
	}
	if p.opens != 0 {
		return w.Put(0, &childrenRecord{First: p.opens})
	}
	return nil
}

// readLevels reads what stands behind PROCESS.
func (p *process) readLevels(r *image.Reader) error {
	next, err := r.Peek()
	if err != nil {
		return err
	}
	if next == levelsKind {
		rec, _, err := image.Expect[levelsRecord](r)
		if err != nil {
			return err
		}
		p.levels = rec.Levels
		if n := len(p.levels); n == 0 || n > maxLevels {
			return badForest("process %d in %d pid namespaces", p.VPID, n)
		}
		for _, l := range p.levels {
			if l.PID <= 0 || l.Pgrp < 0 || l.Session < 0 {
				return badForest("process %d is %d in its pid namespace", p.VPID, l.PID)
			}
		}
		if next, err = r.Peek(); err != nil {
			return err
		}
	}
	if next != childrenKind {
		return nil
	}
	rec, _, err := image.Expect[childrenRecord](r)
	if err != nil {
		return err
	}
	if p.opens = rec.First; p.opens <= 0 || p.State == image.ProcessEnded {
		return badForest("children of process %d", p.VPID)
	}
	return nil
}

// findOpened checks that the namespaces in which children are to be begin with a
// process of the image.
func (f *forest) findOpened() error {
	for i := range f.living {
		if p := &f.living[i]; p.opens != 0 && f.firstOf(p.opens) < 0 {
			return badForest("children of process %d", p.VPID)
		}
	}
	return nil
}

// firstOf is the place of the first process of a pid namespace, by its number; -1
// if it is none.
func (f *forest) firstOf(number int32) int {
	return slices.IndexFunc(f.living, func(p process) bool { return p.VPID == number && f.opensLevel(&p) })
}

// opensFor is the first process of the pid namespace in which the children of one
// are to be, 0 if that is its own.
func (c *checkpoint) opensFor(v *resource.View) (int32, error) {
	same, err := sameForChildren("pid", v)
	if err != nil || same {
		return 0, err
	}
	ns, err := v.Namespace("pid_for_children")
	if err != nil {
		return 0, err
	}
	for _, m := range c.members {
		own, err := m.view.Namespace("pid")
		if err != nil {
			return 0, err
		}
		if own == ns && m.view.VPID() == firstPID {
			return int32(m.view.Status.NStgid[c.level()]), nil
		}
	}
	return 0, &fault.Error{Code: fault.OtherNamespaces, Object: v.Name(), Detail: "pid_for_children"}
}

// checkLevels refuses what nobody could make again: processes in a group of outside
// of their pid namespace, which they cannot name, must have it of their parents.
func (c *checkpoint) checkLevels() error {
	f := c.forest
	refuse := func(p *process, format string, args ...any) error {
		return &fault.Error{Code: fault.NestedPlace, Object: fmt.Sprintf("process %d", p.VPID), Detail: fmt.Sprintf(format, args...)}
	}
	for i := range f.ended {
		if z := &f.ended[i]; !f.nests(z) {
			return refuse(z, "it was put into the namespace from outside")
		}
	}
	for i := range f.living {
		p := &f.living[i]
		if f.opensLevel(p) && c.members[i].view.Stopped && !c.members[i].view.Suspended {
			return refuse(p, "it is stopped, as only somebody outside of its pid namespace can do it")
		}
		if len(p.levels) == 0 || p.groups()[len(p.levels)] != 0 {
			continue
		}
		giver := f.giverOf(i)
		if giver < 0 {
			return refuse(p, "process group %d is not that of its parents", p.VPgrp)
		}
		leader := slices.IndexFunc(f.living, func(l process) bool { return l.VPID == p.VPgrp })
		if leader > i {
			return refuse(p, "process group %d is led by a younger process", p.VPgrp)
		}
	}
	return nil
}

// giverOf is the one from whom a process has a group that it cannot name: the
// nearest of those from whom it descends who can. -1 if that one is not in it.
func (f *forest) giverOf(i int) int {
	group := f.living[i].VPgrp
	at := f.living[i].parent
	for at > 0 && f.living[at].groups()[len(f.living[at].levels)] == 0 {
		at = f.living[at].parent
	}
	if at < 0 || f.living[at].VPgrp != group {
		return -1
	}
	return at
}
