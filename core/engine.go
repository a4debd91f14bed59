package core

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer/procfs"
)

// Caller is a task that waits inside an emulated call.
type Caller = task.Caller

// Engine carries out checkpoints and restarts. The zero value is ready for
// use; it is safe for concurrent use.
type Engine struct {
	// Filters tells how many of the seccomp filters of a process are known to
	// let every call of ours pass, and whether the emulated calls are available
	// to it. Nil stands for none.
	Filters func(procfs.PID) (benign int, caught bool)
	// Launcher returns the container whose first process is waited for by that
	// process of crshim (View.ParentHears), nil for others. Nil stands for never.
	Launcher func(procfs.PID) *Container
	// After, if set, is called when a step has been carried out.
	After func(step string)
	// Warn, if set, is told what could not be brought back exactly.
	Warn func(format string, args ...any)

	claims  task.Claims
	musters musters
	crid    atomic.Int64
}

// Records returns the table of every record that an image may hold.
var Records = func() *image.Table {
	specs := append(append([]image.Spec{}, image.V13...), image.Common...)
	specs = slices.Concat(specs, levelRecords, nestedRecords, containerRecords, groupRecords)
	return image.MustTable(append(specs, resource.Records()...)...)
}()

// Timing is how long the steps of an operation took.
type Timing struct {
	Step string
	Took time.Duration
}

// stopwatch carries out steps, times them and tells who listens.
type stopwatch struct {
	engine *Engine
	steps  []Timing
}

func (s *stopwatch) step(name string, do func() error) error {
	begin := time.Now()
	err := do()
	if i := slices.IndexFunc(s.steps, func(t Timing) bool { return t.Step == name }); i >= 0 {
		s.steps[i].Took += time.Since(begin)
	} else {
		s.steps = append(s.steps, Timing{name, time.Since(begin)})
	}
	if err == nil && s.engine.After != nil {
		s.engine.After(name)
	}
	return err
}

func (e *Engine) warn(format string, args ...any) {
	if e.Warn != nil {
		e.Warn(format, args...)
	}
}

// result is what a caught caller sees of an error.
func result(err error) int64 { return -int64(fault.Errno(err)) }

// PID is a process id.
type PID = procfs.PID

// Resolve finds the process that a caller means by a pid (task.Resolve).
func Resolve(caller PID, pid int) (PID, error) { return task.Resolve(caller, pid) }

func (e *Engine) launcher(pid procfs.PID) *Container {
	if e.Launcher == nil {
		return nil
	}
	return e.Launcher(pid)
}

func (e *Engine) filters(pid procfs.PID) (benign int, caught bool) {
	if e.Filters == nil {
		return 0, false
	}
	return e.Filters(pid)
}
