package core

import (
	"fmt"
	"slices"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
)

// Checked is what a look at a running process has found.
type Checked struct {
	Name     string // how messages call the process
	Blockers fault.List
}

// Check names all that stands in the way of saving a process, as a checkpoint
// would, and does not disturb it: it reads /proc and stops nothing. What only
// the stopped process can tell, such as messages in its sockets that cannot be
// kept, a checkpoint may refuse all the same. external is
// CheckpointRequest.External.
func (e *Engine) Check(target PID, external bool) (*Checked, error) {
	if by := task.TracedBy(target); by != 0 {
		return nil, &fault.Error{Code: fault.TracedByOther, Object: fmt.Sprintf("pid %d", target), Detail: fmt.Sprintf("by pid %d", by)}
	}
	checked, err := e.checkOnce(target, external)
	if err != nil || len(checked.Blockers) == 0 {
		return checked, err
	}
	// A process that runs may have changed between one line of /proc and the next.
	again, err := e.checkOnce(target, external)
	if err != nil {
		return nil, err
	}
	again.Blockers = slices.DeleteFunc(again.Blockers, func(b *fault.Error) bool {
		return !slices.ContainsFunc(checked.Blockers, func(o *fault.Error) bool { return o.Error() == b.Error() })
	})
	return again, nil
}

func (e *Engine) checkOnce(target PID, external bool) (*Checked, error) {
	v, err := resource.Look(target, false)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	v.BenignFilters, v.CallsCaught = e.filters(target)
	container := e.containerOf(v)
	v.ParentHears = container != nil
	v.External = external
	blockers := v.Survey()
	if container != nil {
		list, err := container.survey(v)
		if err != nil {
			return nil, err
		}
		blockers = append(blockers, list...)
	}
	return &Checked{Name: v.Name(), Blockers: blockers}, nil
}
