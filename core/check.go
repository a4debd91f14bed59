package core

import (
	"slices"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
)

// Checked is what a look at a running process has found.
type Checked struct {
	Name      string // how messages call the process
	Processes int    // it and those that descend from it
	Blockers  []Blocker
}

// Blocker is something that stands in the way of saving a process.
type Blocker struct {
	PID   PID // whose it is; the first one's if it is a matter of several
	Fault *fault.Error
}

// Check names all that stands in the way of saving a process and its descendants,
// as a checkpoint would, and does not disturb it: it reads /proc and stops nothing. What only
// the stopped process can tell, such as messages in its sockets that cannot be
// kept, a checkpoint may refuse all the same. external is
// CheckpointRequest.External.
func (e *Engine) Check(target PID, external bool) (*Checked, error) {
	checked, err := e.checkOnce(target, external)
	if err != nil || len(checked.Blockers) == 0 {
		return checked, err
	}
	// A process that runs may have changed between one line of /proc and the next.
	again, err := e.checkOnce(target, external)
	if err != nil {
		return nil, err
	}
	again.Blockers = slices.DeleteFunc(again.Blockers, func(b Blocker) bool {
		return !slices.ContainsFunc(checked.Blockers, func(o Blocker) bool { return o.Fault.Error() == b.Fault.Error() })
	})
	return again, nil
}

func (e *Engine) checkOnce(target PID, external bool) (*Checked, error) {
	pids, err := task.Descendants(target)
	if err != nil {
		return nil, err
	}
	tracees, err := resource.Tracees()
	if err != nil {
		return nil, err
	}
	var views []*resource.View
	defer func() {
		for _, v := range views {
			v.Close()
		}
	}()
	place := make(map[PID]int)
	checked := &Checked{}
	for i, pid := range pids {
		v, err := resource.Look(pid, false)
		if err != nil && i > 0 && task.Ended(pid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		place[pid] = len(views)
		views = append(views, v)
		v.BenignFilters, v.CallsCaught = e.filters(pid)
		v.ParentHears = e.launcher(v.Stat.PPid) != nil
		v.External = external
	}
	checked.Name, checked.Processes = views[0].Name(), len(views)
	for _, v := range views {
		checked.add(v.SurveyTracing(views, tracees), v.PID)
	}
	parent := func(i int) int { return place[views[i].Stat.PPid] } // an orphan is taken for a child of the first
	tree := resource.NewTree(views, parent)
	if err := tree.Suppose(); err != nil {
		return nil, err
	}
	for i, list := range tree.SurveyEach() {
		checked.add(list, views[i].PID)
	}
	if container := e.containerOf(views[0]); container != nil {
		list, err := container.survey(views[0])
		if err != nil {
			return nil, err
		}
		checked.add(list, target)
	}
	list, err := checkRelations(relatives(views, parent, tree.Maker))
	checked.add(append(tree.SurveyRelations(), list...), target)
	return checked, err
}

func (c *Checked) add(list fault.List, pid PID) {
	for _, f := range list {
		c.Blockers = append(c.Blockers, Blocker{pid, f})
	}
}
