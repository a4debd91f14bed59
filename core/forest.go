package core

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer/procfs"
)

// forest is what an image says of its processes before it comes to each.
type forest struct {
	living []process // the root first, each before its children
	ended  []process
	strays []*stray
	// rewritten tells that TREE names other processes than those that were saved:
	// a restarter has written those into it that it has made.
	rewritten bool
}

type process struct {
	image.Process
	parent int   // place among the living, -1 for the root
	maker  int   // of who makes it: the parent, or a sibling before it
	named  int32 // by TREE
	levels []level
	nested *nested
	opens  int32 // the first process of the pid namespace that its children are to be in, 0 if that is its own
}

// describe finds what TREE lacks, if there is more than one process, and refuses
// what cannot grow again.
func (c *checkpoint) describe() (err error) {
	c.forest = &forest{}
	if len(c.members) == 1 && len(c.frozen.Zombies) == 0 {
		return nil
	}
	for i, m := range c.members {
		p := c.processOf(m.view.Status, m.view.Stat, m.Parent)
		p.Shares = c.tree.Shares(m.view)
		if p.opens, err = c.opensFor(m.view); err != nil {
			return err
		}
		if p.maker = c.tree.Maker(i); p.maker != p.parent {
			p.Maker = c.forest.living[p.maker].VPID
		}
		p.nested = c.relatives[len(c.forest.living)].own
		c.forest.living = append(c.forest.living, p)
	}
	for _, z := range c.frozen.Zombies {
		p, err := c.zombie(z)
		if err != nil {
			return err
		}
		c.forest.ended = append(c.forest.ended, p)
	}
	if err := c.forest.findStrays(); err != nil {
		return &fault.Error{Code: fault.SessionEnded, Object: c.members[0].view.Name(), Err: err}
	}
	return c.checkLevels()
}

// placeOf is the place of a process among the members, -1 for the parent of the
// root.
func (c *checkpoint) placeOf(of *task.Member) int {
	if place, ok := c.places[of]; ok {
		return place
	}
	return -1
}

// writeForest writes it.
func (c *checkpoint) writeForest(w *image.Writer) error {
	for _, p := range slices.Concat(c.forest.living, c.forest.ended) {
		if err := w.Put(0, &p.Process); err != nil {
			return err
		}
		if err := p.writeLevels(w); err != nil {
			return err
		}
		if err := p.nested.write(w); err != nil {
			return err
		}
	}
	return nil
}

// level is the place of the first process's own numbers among those that we see.
func (c *checkpoint) level() int { return len(c.members[0].view.Status.NStgid) - 1 }

// processOf says what /proc tells of a process, in the numbers of the pid namespace
// of the first one, and of those below it.
func (c *checkpoint) processOf(status *procfs.Status, stat *procfs.Stat, parent *task.Member) process {
	level := c.level()
	p := process{parent: c.placeOf(parent), levels: levelsOf(status, level)}
	p.VPID, p.VPgrp, p.VSession = int32(status.NStgid[level]), int32(status.NSpgid[level]), int32(status.NSsid[level])
	p.ExitSignal = stat.ExitSignal
	if p.parent >= 0 {
		p.VPPID = int32(c.members[p.parent].view.Status.NStgid[level])
	}
	return p
}

func (c *checkpoint) zombie(z task.Zombie) (p process, err error) {
	proc, err := procfs.Open(z.PID)
	if err != nil {
		return p, err
	}
	defer proc.Close()
	status, err := proc.Status()
	if err != nil {
		return p, err
	}
	stat, err := proc.Stat()
	if err != nil {
		return p, err
	}
	p = c.processOf(status, stat, z.Parent)
	p.State, p.ExitCode = image.ProcessEnded, stat.ExitCode
	copy(p.Name[:15], stat.Comm)
	return p, nil
}

// readForest reads it. An image of one process may have no more than its pid.
func readForest(r *image.Reader, pids []image.PIDs) (*forest, error) {
	f := &forest{}
	place := make(map[int32]int, len(pids))
	endedBefore := make(map[int32]bool)
	for {
		next, err := r.Peek()
		if err != nil {
			return nil, err
		}
		if next != image.KindProcess {
			break
		}
		rec, _, err := image.Expect[image.Process](r)
		if err != nil {
			return nil, err
		}
		p := process{Process: *rec, parent: -1}
		if err := p.readLevels(r); err != nil {
			return nil, err
		}
		if err := p.readNested(r); err != nil {
			return nil, err
		}
		at, known := place[rec.VPPID]
		if known {
			p.parent = at
		}
		madeWell := f.findMaker(&p, place)
		i := len(f.living)
		_, taken := place[rec.VPID]
		switch {
		case rec.VPID <= 0 || taken, known != (i > 0), rec.VPgrp < 0, rec.VSession < 0, rec.ExitSignal < 0 || rec.ExitSignal > 64,
			rec.Shares&^image.SharesMask != 0, rec.Shares&(image.SharesVM|image.SharesSighand) == image.SharesSighand, rec.Shares != 0 && (!known || rec.State == image.ProcessEnded), !madeWell:
			return nil, badForest("process %d, child of %d", rec.VPID, rec.VPPID)
		case !f.nests(&p):
			return nil, badForest("process %d in a pid namespace", rec.VPID)
		case rec.State == image.ProcessEnded && endedBefore[rec.VPID]:
			return nil, badForest("process %d ended twice", rec.VPID)
		case rec.State == image.ProcessEnded:
			endedBefore[rec.VPID] = true
			f.ended = append(f.ended, p)
			continue
		case rec.State != image.ProcessLives || i == len(pids) || len(f.ended) > 0 || pids[i].VPID <= 0:
			return nil, badForest("process %d", rec.VPID)
		}
		p.named = pids[i].VPID
		f.rewritten = f.rewritten || p.named != rec.VPID
		place[rec.VPID] = i
		f.living = append(f.living, p)
	}
	if len(f.living) == 0 && len(pids) == 1 {
		f.living = append(f.living, process{Process: image.Process{VPID: pids[0].VPID}, parent: -1, maker: -1, named: pids[0].VPID})
	}
	if len(f.living) != len(pids) {
		return nil, badForest("%d processes, and more of %d", len(pids), len(f.living))
	}
	if err := f.findStrays(); err != nil {
		return nil, err
	}
	return f, errors.Join(f.findOpened(), f.findMounters())
}

// saved returns what TREE said when the image was written.
func (f *forest) saved(now []image.PIDs) []image.PIDs {
	was := slices.Clone(now)
	for i, p := range f.living {
		was[i].VPID, was[i].VTGID = p.VPID, p.VPID
		if i > 0 {
			was[i].VPPID = p.VPPID
		}
	}
	return was
}

func badForest(format string, args ...any) error {
	return &fault.Error{Code: fault.ImageValue, Object: "image", Detail: fmt.Sprintf(format, args...)}
}

// findMaker tells whether a process is made by who can: the parent, or a sibling of
// the same signal that has something together with it (clone(2), CLONE_PARENT). All
// three are in one pid namespace.
func (f *forest) findMaker(p *process, place map[int32]int) bool {
	p.maker = p.parent
	if p.Maker == 0 {
		return true
	}
	at, known := place[p.Maker]
	if !known || at == 0 || p.Shares == 0 || f.living[at].parent != p.parent || f.living[at].ExitSignal != p.ExitSignal {
		return false
	}
	above := len(f.living[p.parent].levels)
	if len(f.living[at].levels) != above || len(p.levels) != above {
		return false
	}
	p.maker = at
	return true
}

// inSession tells whether a process or one that comes down from it is in a
// session.
func (f *forest) inSession(i int, session int32) bool {
	below := make([]bool, len(f.living)) // parents come before their children
	for k := i; k < len(f.living); k++ {
		p := &f.living[k]
		below[k] = k == i || p.maker >= i && below[p.maker]
		if below[k] && p.VSession == session {
			return true
		}
	}
	return false
}

// last is the highest number of a process.
func (f *forest) last() (last procfs.PID) {
	for _, p := range slices.Concat(f.living, f.ended) {
		last = max(last, procfs.PID(p.VPID))
	}
	return last
}
